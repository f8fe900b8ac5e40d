"""Later evaluations of a finished run: the same figures on the same data, and on one's own files."""

import json

import pytest

from rmjax.data.synthetic import rated_texts
from rmjax.errors import UserError
from rmjax.runs import evaluate


def test_the_run_s_own_data_gives_its_own_figures(rated):
    home, results = rated
    found = evaluate.run(workdir=str(home), data="synthetic_ratings()")
    assert found["metrics"] == results["metrics"]
    assert found["reliability"] == results["reliability"]
    assert json.loads((home / "evaluations/synthetic_ratings.json").read_text()) == found


def test_own_file_without_single_raters(rated, tmp_path):
    home, _ = rated
    rows = [{"text": r.text, "rating": r.rating} for r in rated_texts(30, seed=5)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate.run(workdir=str(home), data=str(path), name="other")
    assert (home / "evaluations/other.json").exists()
    assert found["metrics"]["mine/pearson"]["n"] == 30
    assert found["metrics"]["mine/pearson"]["value"] > 0.5
    assert not any(name.startswith("human/") for name in found["metrics"])


def test_steps_are_refused_by_a_model_of_whole_texts_and_pairs_are_not(rated, tmp_path, pairs_file):
    steps = {"prompt": "1 + 1?", "steps": ["2"], "labels": [1]}
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(steps) + "\n")
    with pytest.raises(UserError, match="holds processes; the model in .* was trained on texts"):
        evaluate.run(workdir=str(rated[0]), data=str(path))
    found = evaluate.run(workdir=str(rated[0]), data=str(pairs_file))
    assert found["metrics"]["pairs/pair_accuracy"]["n"] == 120


def test_pairs_are_judged_with_every_seed(paired, pairs_file):
    found = evaluate.run(workdir=str(paired[0]), data=str(pairs_file))
    figure = found["metrics"]["pairs/pair_accuracy"]
    assert figure["n"] == 120 and len(figure["per_seed"]) == 2


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        evaluate.run(workdir=str(tmp_path), data="synthetic_ratings()")
