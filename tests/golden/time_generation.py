"""How fast the reference samples, by hand, beside `python -m experiments.bench generate`:

    pip install -r requirements-reference.txt
    python tests/golden/time_generation.py --dtype=float32
    python tests/golden/time_generation.py MODEL_FOLDER --dtype=bfloat16

transformers' `generate` with its cache at temperature 1, always to full length. Without a folder: a GPT-2 of 4 x 256
over 8,192 tokens, random weights. A folder with a .gguf file is read as that.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

flags = argparse.ArgumentParser()
flags.add_argument("folder", type=Path, nargs="?")
flags.add_argument("--batches", default="1,8,32")
flags.add_argument("--prompt_tokens", type=int, default=32)
flags.add_argument("--new_tokens", type=int, default=64)
flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
flags.add_argument("--repeats", type=int, default=5)
a = flags.parse_args()

torch.manual_seed(0)
dtype = getattr(torch, a.dtype)
if a.folder is None:
    shape = GPT2Config(vocab_size=8192, n_positions=512, n_embd=256, n_layer=4, n_head=8)
    model = GPT2LMHeadModel(shape).to(dtype)
else:
    file = next(a.folder.glob("*.gguf"), None)
    stored = {"gguf_file": file.name} if file else {}
    model = AutoModelForCausalLM.from_pretrained(a.folder, dtype=dtype, **stored)
model.eval()
how = {
    "do_sample": True,
    "top_k": 0,
    "min_new_tokens": a.new_tokens,
    "max_new_tokens": a.new_tokens,
    "pad_token_id": 0,
}
for size in map(int, a.batches.split(",")):
    ids = torch.randint(0, model.config.vocab_size, (size, a.prompt_tokens))
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    times = []
    for _ in range(1 + a.repeats):
        start = time.perf_counter()
        with torch.inference_mode():
            made = model.generate(**asked, **how)
        times.append(time.perf_counter() - start)
    assert made.shape == (size, a.prompt_tokens + a.new_tokens)
    speeds = [size * a.new_tokens / took for took in times[1:]]
    print(
        f"{a.dtype}, batch {size}: median {statistics.median(speeds):.0f} tokens/s, best {max(speeds):.0f}",
        flush=True,
    )
