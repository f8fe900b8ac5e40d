"""How fast the reference trains on preference pairs, by hand, beside `python -m experiments.bench reward`:

    pip install -r requirements-reference.txt
    python tests/golden/time_reference.py MODEL_FOLDER PAIRS.jsonl.gz --batch=8 --dtype=float32

transformers' sequence classifier, rows padded to the longest of a batch, AdamW, all parameters trained; pairs longer
than 512 tokens are left out, as reward trainers over it do. A folder with a .gguf file is read as that.
"""

import argparse
import gzip
import json
import random
import resource
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

flags = argparse.ArgumentParser()
flags.add_argument("folder", type=Path)
flags.add_argument("pairs", type=Path)
flags.add_argument("--batch", type=int, default=8, help="pairs a step")
flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
flags.add_argument("--seconds", type=float, default=60.0)
a = flags.parse_args()

file = next(a.folder.glob("*.gguf"), None)
stored = {"gguf_file": file.name} if file else {}
tokenizer = AutoTokenizer.from_pretrained(a.folder, **stored)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForSequenceClassification.from_pretrained(
    a.folder, num_labels=1, dtype=torch.float32, **stored
)
model.config.pad_token_id = tokenizer.pad_token_id
with (gzip.open if a.pairs.suffix == ".gz" else open)(a.pairs, "rt", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
texts = [[tokenizer(row[side])["input_ids"] for side in ("chosen", "rejected")] for row in rows]
pairs = [pair for pair in texts if max(map(len, pair)) <= 512]
random.Random(0).shuffle(pairs)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)


def steps():
    """Trains; yields the real tokens of each step."""
    for i in range(0, len(pairs) - a.batch, a.batch):
        ids = [text for side in zip(*pairs[i : i + a.batch], strict=True) for text in side]
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bfloat16"):
            scores = model(**tokenizer.pad({"input_ids": ids}, return_tensors="pt")).logits[:, 0]
        chosen, rejected = scores.float().split(a.batch)
        (-torch.nn.functional.logsigmoid(chosen - rejected).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield sum(map(len, ids))


model.train()
run = steps()
next(run)
start, tokens = time.perf_counter(), []
for real in run:
    tokens.append(real)
    if time.perf_counter() - start > a.seconds:
        break
took = time.perf_counter() - start
print(
    f"{len(pairs)} pairs; {a.dtype}, {a.batch} a step: {len(tokens) * a.batch / took:.2f} pairs/s, "
    f"{sum(tokens) / took:.0f} real tokens/s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
)
