"""How fast the reference learns from its own samples, by hand, beside `python -m experiments.bench policy`:

    pip install -r requirements-reference.txt
    python tests/golden/time_rloo.py --batch=64
    python tests/golden/time_rloo.py MODEL_FOLDER --batch=8 --dtype=bfloat16

TRL's RLOOTrainer: 2 completions a prompt, prompts of 32 tokens, 32 new ones to full length, KL at 0.05, a reward that
costs nothing. Without a folder: a GPT-2 of 4 x 256 over 8,192 tokens, random weights. A folder with a .gguf file is
read as that.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import RLOOConfig, RLOOTrainer

flags = argparse.ArgumentParser()
flags.add_argument("folder", type=Path, nargs="?")
flags.add_argument("--batch", type=int, default=64, help="completions a step")
flags.add_argument("--prompt_tokens", type=int, default=32)
flags.add_argument("--new_tokens", type=int, default=32)
flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
flags.add_argument("--steps", type=int, default=12)
a = flags.parse_args()

torch.manual_seed(0)
if a.folder is None:
    words = {f"w{i}": i for i in range(8192)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="w1", eos_token="w2")
    shape = GPT2Config(vocab_size=8192, n_positions=512, n_embd=256, n_layer=4, n_head=8)
    model = GPT2LMHeadModel(shape)
    prompts = [" ".join(random.choices(list(words)[3:], k=a.prompt_tokens)) for _ in range(4096)]
else:
    file = next(a.folder.glob("*.gguf"), None)
    stored = {"gguf_file": file.name} if file else {}
    tokenizer = AutoTokenizer.from_pretrained(a.folder, **stored)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    read = AutoModelForCausalLM.from_pretrained(a.folder, dtype=torch.float32, **stored)
    for left in ("quantization_config", "_pre_quantization_dtype"):  # as of a plain folder
        vars(read.config).pop(left, None)
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    prompts = [" the" * a.prompt_tokens for _ in range(4096)]  # a token each


class Clock(TrainerCallback):
    """The time of each step's end."""

    def __init__(self):
        self.times = []

    def on_step_end(self, args, state, control, **_):
        self.times.append(time.perf_counter())


settings = RLOOConfig(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=a.batch,
    num_generations=2,
    max_completion_length=a.new_tokens,
    beta=0.05,
    max_steps=a.steps,
    model_init_kwargs={"dtype": "float32"},
    generation_kwargs={"min_new_tokens": a.new_tokens},
    bf16=a.dtype == "bfloat16",
    use_cpu=True,
    gradient_checkpointing=False,
    disable_dropout=True,
    logging_steps=a.steps,
    save_strategy="no",
    report_to="none",
)
clock, stored_at = Clock(), tempfile.mkdtemp()
model.save_pretrained(stored_at)  # the trainer reads the policy and its reference from a folder
tokenizer.save_pretrained(stored_at)
RLOOTrainer(
    model=stored_at,
    reward_funcs=lambda completions, **_: [float(len(text) % 7) for text in completions],
    args=settings,
    train_dataset=Dataset.from_dict({"prompt": prompts}),
    processing_class=tokenizer,
    callbacks=[clock],
).train()
took = [after - before for before, after in zip(clock.times[1:], clock.times[2:], strict=False)]
print(
    f"{a.dtype}, {a.batch} completions a step: median {a.batch / statistics.median(took):.2f} completions/s,"
    f" best {a.batch / min(took):.2f}"
)
