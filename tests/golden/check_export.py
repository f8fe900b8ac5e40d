"""Compares an exported folder in the reference implementation with our scores, by hand:

    python -m experiments.score --workdir=RUN < texts.jsonl > scores.jsonl
    pip install -r requirements-reference.txt && python tests/golden/check_export.py EXPORTED scores.jsonl

All texts in one batch, padded on the right and on the left. EXPORTED may be a PEFT folder whose base is a folder.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, scores = sys.argv[1:]
with open(scores, encoding="utf-8") as file:
    lines = [json.loads(line) for line in file]
want = torch.tensor([line["score"] for line in lines])
tokenizer = AutoTokenizer.from_pretrained(folder)
load = AutoModelForSequenceClassification.from_pretrained
about = Path(folder, "adapter_config.json")
if about.exists():
    from peft import PeftModel

    base = json.loads(about.read_text())["base_model_name_or_path"]
    model = load(base, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    model = PeftModel.from_pretrained(model, folder).eval()
else:
    model = load(folder, trust_remote_code=True).eval()
for side in ("right", "left"):
    tokenizer.padding_side = side
    batch = tokenizer([line["text"] for line in lines], padding=True, return_tensors="pt")
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        got = model(**inputs).logits[:, 0]
    print(
        f"{side}: largest difference {float((got - want).abs().max()):.2e} of scores {want.tolist()}"
    )
