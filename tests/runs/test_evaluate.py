"""Later evaluations of a finished run: the same figures on the same data, and on one's own files."""

import json

import numpy as np
import pytest

from rmjax.data.synthetic import rated_texts
from rmjax.errors import UserError
from rmjax.inference import scoring
from rmjax.runs import evaluate, train_reward
from tests.runs.conftest import config, write_jsonl


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
    path.write_text('{"prompt": "1 + 1?", "completion": "2"}\n')
    with pytest.raises(UserError, match="holds texts without ratings"):
        evaluate.run(workdir=str(rated[0]), data=str(path))
    found = evaluate.run(workdir=str(rated[0]), data=str(pairs_file))
    assert found["metrics"]["pairs/pair_accuracy"]["n"] == 120


def test_pairs_are_judged_with_every_seed(paired, pairs_file):
    found = evaluate.run(workdir=str(paired[0]), data=str(pairs_file))
    figure = found["metrics"]["pairs/pair_accuracy"]
    assert figure["n"] == 120 and len(figure["per_seed"]) == 2


def test_a_model_of_classes_has_its_accuracy_and_its_own_calibration(tmp_path):
    names = ("poor", "fair", "good")
    mine = lambda rating: names[int(np.searchsorted((-0.5, 0.5), rating))]
    rows = [{"text": r.text, "label": mine(r.rating)} for r in rated_texts(300, seed=5)]
    path = write_jsonl(tmp_path / "mine.jsonl", rows)
    line = f"file(path={str(path)!r}, classes='poor,fair,good')"
    lines = config(data=line, head="classes()", loss="cross_entropy()", epochs=6.0)
    results = train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    found = evaluate.run(workdir=str(tmp_path / "run"), data=line)["metrics"]
    assert results["metrics"] == found
    mine, most = found["mine/accuracy"], found["majority/mine/accuracy"]
    assert most["value"] < mine["value"] and mine["low"] < mine["value"] < mine["high"]
    assert {"mine/macro_f1", "mine/auc", "mine/own_ece", "mine/own_brier"} <= {*found}
    two = write_jsonl(tmp_path / "two.jsonl", [r for r in rows if r["label"] != "fair"])
    other = evaluate.run(workdir=str(tmp_path / "run"), data=str(two))
    note = "no class accuracy: the model's outputs are not the data's classes good, poor"
    assert note in other["notes"]
    assert "two/accuracy" not in other["metrics"]


def test_a_tie_width_reaches_the_link(tmp_path):
    lines = config(loss="rao_kupper()", pair_arrays="tie", group_size=4, batch_size=4, epochs=0.5)
    train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    scorer = scoring.load(tmp_path / "run")
    texts = rated_texts(40, seed=3)
    made = scorer.scored(texts).outputs
    assert made["tie_width"].shape == made["score"].shape and np.ptp(made["tie_width"]) == 0
    found = evaluate.run(workdir=str(tmp_path / "run"), data="synthetic_ratings()")["metrics"]
    assert "synthetic/own_ece" in found


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        evaluate.run(workdir=str(tmp_path), data="synthetic_ratings()")
