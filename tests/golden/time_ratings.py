"""How well and how fast the reference learns human ratings on our own split, by hand, beside configs/reward.py:movie:

    pip install -r requirements-reference.txt
    python tests/golden/time_ratings.py MODEL_FOLDER TRAIN.jsonl TEST.jsonl --dtype=bfloat16

transformers' sequence classifier on squared error of standardized ratings, AdamW with linear decay, batches of like
length. Lines are {"text", "rating"}; --write=DOMAIN makes the two files, with rmjax and without torch.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

flags = argparse.ArgumentParser()
flags.add_argument("folder", type=Path)
flags.add_argument("train", type=Path)
flags.add_argument("test", type=Path)
flags.add_argument("--write", default="", help="domain of the human ratings whose split is written")
flags.add_argument("--batch", type=int, default=32)
flags.add_argument("--epochs", type=int, default=3)
flags.add_argument("--rate", type=float, default=1e-4)
flags.add_argument("--seed", type=int, default=0)
flags.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
a = flags.parse_args()

if a.write:
    from rmjax.assembly.data import human_ratings

    data = human_ratings(domains=a.write)
    for path, records in ((a.train, data.train), (a.test, data.test)):
        own = [r for r in records if r.domain == a.write]
        lines = [json.dumps({"text": r.text, "rating": r.rating}) for r in own]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    raise SystemExit

import torch  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

read = lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
tokenizer = AutoTokenizer.from_pretrained(a.folder)
torch.manual_seed(a.seed)
shuffle = random.Random(a.seed).shuffle
model = AutoModelForSequenceClassification.from_pretrained(
    a.folder, num_labels=1, dtype=torch.float32
)
train, test = read(a.train), read(a.test)
level = np.array([row["rating"] for row in train], np.float64)
ids = lambda rows: tokenizer([row["text"] for row in rows])["input_ids"]
texts, targets = ids(train), (level - level.mean()) / level.std()
optimizer = torch.optim.AdamW(model.parameters(), lr=a.rate, weight_decay=0.01)
steps = a.epochs * (len(texts) // a.batch)
decay = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda n: min((n + 1) / (0.06 * steps), (steps - n) / (0.94 * steps))
)


def scores(own):
    """Of token ids, padded to the longest."""
    batch = tokenizer.pad({"input_ids": own}, return_tensors="pt")
    with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bfloat16"):
        return model(**batch).logits[:, 0].float()


def epoch():
    """Batches of like length: each pool of 16 batches is sorted."""
    order = list(range(len(texts)))
    shuffle(order)
    pools = [order[i : i + 16 * a.batch] for i in range(0, len(order), 16 * a.batch)]
    sort = [sorted(pool, key=lambda i: len(texts[i])) for pool in pools]
    found = [p[i : i + a.batch] for p in sort for i in range(0, len(p) - a.batch + 1, a.batch)]
    shuffle(found)
    return found


model.train()
start, seen = time.perf_counter(), 0
for batch in [b for _ in range(a.epochs) for b in epoch()]:
    wanted = torch.tensor(targets[batch], dtype=torch.float32)
    ((scores([texts[i] for i in batch]) - wanted) ** 2).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    decay.step()
    optimizer.zero_grad()
    seen += sum(len(texts[i]) for i in batch)
took = time.perf_counter() - start
model.eval()
held = ids(test)
with torch.no_grad():
    predicted = np.concatenate([scores(held[i : i + 64]).numpy() for i in range(0, len(held), 64)])
r = np.corrcoef(predicted, [row["rating"] for row in test])[0, 1]
print(
    f"{len(texts):,} texts, {a.epochs} epochs, {a.dtype}, seed {a.seed}: r = {r:.3f} on {len(test):,} held-out texts, "
    f"{took:.0f} s, {seen / took:,.0f} real tokens/s"
)
