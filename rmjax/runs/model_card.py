"""The README.md of an exported folder: what the model is, its held-out figures, and the code that scores as here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIGURES = ("pearson", "pair_accuracy", "step_accuracy")


def reward_model(
    home: Path,
    about: Mapping[str, Any],
    results: Mapping[str, Any],
    *,
    encoder: bool,
    code: bool,
    values: tuple[float, ...],
) -> str:
    """The card of a reward model.

    home: its run folder. about: of its best checkpoint. results: what its results.json holds.
    encoder: whether prompt and completion are two segments. code: whether transformers needs trust_remote_code.
    values: of a classifier the rating of each class, whose mean is the score; () of a scalar score.
    """
    config = about["config"]
    trusted = ", trust_remote_code=True" if code else ""
    score = f"logits.softmax(-1) @ torch.tensor({list(values)})" if values else "logits[:, 0]"
    return f"""---
library_name: transformers
pipeline_tag: text-classification
---

# {home.name}

A reward model, trained by rmjax with `model={config["model"]}`, `data={config["data"]}` and `loss={config["loss"]}`.

## Scores

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this one
tokenizer = AutoTokenizer.from_pretrained(folder{trusted})
model = AutoModelForSequenceClassification.from_pretrained(folder{trusted}).eval()
prompt, completion = "Name a prime.", "7"
inputs = {_call(about, encoder)}
with torch.no_grad():
    logits = model(**inputs).logits
score = {score}
```

A text without a prompt is `tokenizer(text, return_tensors="pt")`. Do not join prompt and completion in another way:
tokens where they meet may differ, and scores with them. Pad batches on the right.

## Held-out figures

{_figures(results)}
"""


def _call(about: Mapping[str, Any], encoder: bool) -> str:
    """The call that reads a prompt and its completion as the run does."""
    if about["template"]:
        return """tokenizer.apply_chat_template(
    [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}],
    return_dict=True,
    return_tensors="pt",
)"""
    joined = "prompt, completion" if encoder else "prompt + completion"
    return f'tokenizer({joined}, return_tensors="pt")'


def _figures(results: Mapping[str, Any]) -> str:
    """The model's own figures, one row a domain."""
    rows = ["| figure | value | 95% interval | n |", "|---|---|---|---|"]
    for name, figure in results["metrics"].items():
        known = name.count("/") == 1 and name.endswith(FIGURES) and figure["value"] is not None
        if known:
            low, high = ("–" if x is None else f"{x:.3f}" for x in (figure["low"], figure["high"]))
            rows.append(f"| {name} | {figure['value']:.3f} | {low} to {high} | {figure['n']} |")
    return "\n".join(rows)
