"""Writes an export of every family with random weights, and its scores, for check_export.py, by hand:

python -m tests.golden.make_exports FOLDER
for name in FOLDER/*; do python tests/golden/check_export.py $name/model $name/scores.jsonl; done
"""

import json
import sys
from pathlib import Path

from tests.runs.test_export import TEXTS, VARIANTS, exported

for name in VARIANTS:
    home = Path(sys.argv[1]) / name
    home.mkdir(parents=True)
    scores = exported(name, home / "model")
    with open(home / "scores.jsonl", "w", encoding="utf-8") as file:
        for record, score in zip(TEXTS, scores[0], strict=True):
            print(json.dumps({"text": record.text, "score": float(score)}), file=file)
