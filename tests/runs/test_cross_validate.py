"""Every document is evaluated once, by a model that never saw it; the folds' figures become one with an interval."""

import json

import numpy as np
import pytest

from configs.policy import get_config as get_policy
from rmjax.assembly import data
from rmjax.errors import UserError
from rmjax.runs import cross_validate
from tests.runs.conftest import config

LINES = {
    "data": "synthetic_ratings(count=60)",
    "model": "tiny_encoder(width=8, layers=1)",
    "epochs": 1.0,
}


def test_folds_judge_every_text_once_and_their_mean_is_reported(tmp_path, monkeypatch):
    results = cross_validate.run(config=config(**LINES), workdir=str(tmp_path / "run"), folds=3)
    evaluated, each = [], []
    for i in range(3):
        home = tmp_path / f"run/fold_{i}"
        lines = (home / "predictions.jsonl").read_text().splitlines()
        evaluated += [json.loads(line)["id"] for line in lines]
        own = json.loads((home / "results.json").read_text())["metrics"]
        each.append(own["synthetic/pearson"]["value"])
    assert len(evaluated) == len(set(evaluated)) == 60
    figure = results["metrics"]["synthetic/pearson"]
    assert figure["per_fold"] == each and figure["n"] == 60
    assert figure["value"] == pytest.approx(np.mean(each))
    assert figure["low"] < figure["value"] < figure["high"]
    assert json.loads((tmp_path / "run/results.json").read_text()) == results


def test_parts_of_a_fold_are_disjoint_and_cover_all():
    loaded = data.synthetic_ratings(count=50)
    for i in range(5):
        parts = data.fold(loaded, f"{i}/5")
        ids = [{r.id for r in part} for part in (parts.train, parts.validation, parts.test)]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 50
        assert {r.id for r in data.fold(loaded, f"{(i + 1) % 5}/5").test} == ids[1]


@pytest.mark.parametrize("line", ["5/5", "0/2", "1", "a/b", "0/99"])
def test_a_fold_that_cannot_be_is_refused(line):
    with pytest.raises(UserError, match="'fold'"):
        data.fold(data.synthetic_ratings(count=50), line)


def test_a_config_of_another_command_is_refused(tmp_path):
    with pytest.raises(UserError, match="is of another command"):
        cross_validate.run(config=get_policy("tiny"), workdir=str(tmp_path))


def test_seeds_and_a_fold_of_ones_own_are_refused(tmp_path):
    for lines, key in (({"seeds": 2}, "seeds"), ({"fold": "0/5"}, "fold")):
        with pytest.raises(UserError, match=f"'{key}'"):
            cross_validate.run(config=config(**LINES, **lines), workdir=str(tmp_path), folds=3)
