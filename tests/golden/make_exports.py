"""Writes an export of every family with random weights, and its scores, for check_export.py, by hand:

python -m tests.golden.make_exports FOLDER
for name in FOLDER/*; do python tests/golden/check_export.py $name/model $name/scores.jsonl; done
"""

import json
import sys
from pathlib import Path

from rmjax.data.records import RatedText
from tests.runs.test_export import PAIRS, TEXTS, VARIANTS, exported


def line(record: RatedText) -> dict[str, str]:
    """A record as `experiments.score` reads it."""
    if record.prompt:
        return {"prompt": str(record.prompt), "completion": record.text}
    return {"text": record.text}


for name in VARIANTS:
    for kind, records in (("texts", TEXTS), ("pairs", PAIRS)):
        home = Path(sys.argv[1]) / f"{name}-{kind}"
        home.mkdir(parents=True)
        scores = exported(name, home / "model", records)
        with open(home / "scores.jsonl", "w", encoding="utf-8") as file:
            for record, score in zip(records, scores[0], strict=True):
                print(json.dumps(line(record) | {"score": float(score)}), file=file)
