"""Two finished runs that the tests of this folder share: of rated texts, and of pairs with two seeds."""

import json
import random

import pytest

from configs.reward import get_config
from rmjax.data.synthetic import rated_texts
from rmjax.runs import train_reward


def config(**lines):
    """The tiny config on one device with these lines changed."""
    c = get_config("tiny")
    c.update({"parallel": "one_device()", "dtype": "float32", **lines})
    return c


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def rated(tmp_path_factory):
    """The folder of the tiny run, and what it returned."""
    home = tmp_path_factory.mktemp("rated") / "run"
    return home, train_reward.run(config=config(), workdir=str(home))


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    """120 pairs with margins and votes, in which the higher-rated synthetic text was chosen."""
    texts = rated_texts(240, seed=1)
    rows = []
    for i in range(0, 240, 2):
        worse, better = sorted(texts[i : i + 2], key=lambda r: r.rating)
        margin = round(better.rating - worse.rating, 3)
        row = {"id": f"p{i // 2}", "prompt": f"Review {i}.", "chosen": better.text, "rejected": worse.text}  # fmt: skip
        rows.append(row | {"margin": margin, "votes": [6, 3, 1]})
    random.Random(0).shuffle(rows)
    return write_jsonl(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows)


@pytest.fixture(scope="session")
def paired(tmp_path_factory, pairs_file):
    """A run of two seeds on given pairs and their margins, with frozen parameters; its config and results."""
    home = tmp_path_factory.mktemp("paired") / "run"
    lines = config(
        data=f"file(path={str(pairs_file)!r})", loss="bradley_terry()", pair_arrays="margins", seeds=2, epochs=2.0,
        model="tiny_decoder(width=16, layers=1)", frozen="norm/scale$", batch_size=8,
    )  # fmt: skip
    return home, train_reward.run(config=lines, workdir=str(home)), lines
