"""Compares an exported folder in the reference implementation with our scores, by hand:

    python -m experiments.score --workdir=RUN < lines.jsonl > scores.jsonl
    pip install -r requirements-reference.txt && python tests/golden/check_export.py EXPORTED scores.jsonl

Called as anybody would: `tokenizer(text)`, `apply_chat_template` of a folder with a template, else
`tokenizer(prompt + completion)`, or `tokenizer(prompt, completion)` of an encoder. All lines in one batch, padded on
the right and on the left. EXPORTED may be a PEFT folder whose base is a folder.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def read(tokenizer, lines, *, pairs):
    """A padded batch of all lines."""
    if "text" in lines[0]:
        return tokenizer([line["text"] for line in lines], padding=True, return_tensors="pt")
    prompts, completions = ([line[k] for line in lines] for k in ("prompt", "completion"))
    if tokenizer.chat_template:
        turn = lambda role, content: {"role": role, "content": content}
        said = [
            [turn("user", p), turn("assistant", c)]
            for p, c in zip(prompts, completions, strict=True)
        ]
        return tokenizer.apply_chat_template(
            said, padding=True, return_tensors="pt", return_dict=True, tokenize=True
        )
    if pairs:
        return tokenizer(prompts, completions, padding=True, return_tensors="pt")
    whole = [p + c for p, c in zip(prompts, completions, strict=True)]
    return tokenizer(whole, padding=True, return_tensors="pt")


def main(folder, scores):
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
    inner = getattr(model.config, "backbone", None) or {"model_type": model.config.model_type}
    pairs = inner["model_type"] in ("bert", "roberta", "mpnet")
    for side in ("right", "left"):
        tokenizer.padding_side = side
        with torch.no_grad():
            got = model(**read(tokenizer, lines, pairs=pairs)).logits[:, 0]
        difference = float((got - want).abs().max())
        print(f"{side}: largest difference {difference:.2e} of scores {want[:4].tolist()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
