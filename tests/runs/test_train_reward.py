"""Whole runs: what their folders hold, that they learn, and what the same command does the second time."""

import datetime
import json
import shutil

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from configs.reward import get_config
from rmjax.errors import UserError
from rmjax.runs import train_reward
from rmjax.train import checkpoint, loop, metrics


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_results_follow_the_contract(rated):
    home, results = rated
    assert read(home / "results.json") == results
    assert results["experiment"] == "reward" and results["finished"] is True
    assert results["steps"] == metrics.read(home)[-1]["step"]
    assert results["seconds"] > results["throughput"]["compile_seconds"] > 0
    names = {"tokens_per_second", "examples_per_second", "model_flops_per_second", "compile_seconds"}  # fmt: skip
    assert set(results["throughput"]) == names and min(results["throughput"].values()) > 0
    assert results["interval"].startswith("95% over documents") and 0 < results["padding"] < 1
    wanted = {"pearson", "spearman", "kendall", "pair_accuracy", "tie_rate", "ece", "brier"}
    own = {k: v for k, v in results["metrics"].items() if k.count("/") == 1}
    assert wanted <= {k.removeprefix("synthetic/") for k in own}
    assert {"human", "ceiling", "vader", "length", "majority"} == {
        k.split("/")[0] for k in results["metrics"] if k.count("/") == 2
    }
    for figure in own.values():
        assert figure["n"] == figure["documents"] == 120 and "per_seed" not in figure
        assert figure["low"] is None or figure["low"] <= figure["value"] <= figure["high"]
    assert own["synthetic/pearson"]["low"] < own["synthetic/pearson"]["high"]
    assert results["metrics"]["majority/synthetic/pearson"]["value"] is None


def test_folder_is_whole(rated):
    home, results = rated
    assert read(home / "config.json") == json.loads(reward_config().to_json())
    environment = read(home / "environment.json")
    assert {"versions", "devices", "cores", "revision", "command", "data", "choices"} == {*environment}  # fmt: skip
    today = datetime.date.today()
    begun = {str(today), str(today - datetime.timedelta(days=1))}  # midnight may lie between
    assert environment["choices"]["dtype"] == "float32" and environment["choices"]["date"] in begun
    assert all(len(digest) == 64 for digest in environment["data"].values())
    predictions = (home / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 120 and {"text", "rating", "score"} <= {*json.loads(predictions[0])}
    assert "<html" in (home / "report.html").read_text()
    assert not list(home.rglob("*.partial"))
    last, best = (checkpoint.about(home / "checkpoints" / name) for name in ("last", "best"))
    assert last["step"] == results["steps"] and best["step"] == results["best_step"]
    assert last["config"] == best["config"] == read(home / "config.json")
    assert json.loads(best["tokenizer"])["model"]


def reward_config():
    c = get_config("tiny")
    c.parallel, c.dtype = "one_device()", "float32"
    return c


def test_scalars_are_logged_once_a_step_in_both_forms(rated):
    home, _ = rated
    lines = metrics.read(home)
    found = [(x["step"], name) for x in lines for name in x if name != "step"]
    assert len(found) == len(set(found))
    (events,) = (home / "tensorboard").iterdir()
    assert sorted(found) == sorted(board(events.read_bytes()))


def board(data):
    """(step, name) of every scalar in an event file, a sequence of length-prefixed records."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        yield from ((event.step, value.tag) for value in event.summary.value)
        at += 16 + size


def test_it_learns_and_beats_the_baselines(rated):
    figures = rated[1]["metrics"]
    mine = figures["synthetic/pearson"]["value"]
    assert mine > 0.75
    assert mine > max(figures[f"{who}/synthetic/pearson"]["value"] for who in ("vader", "length"))
    assert figures["synthetic/pair_accuracy"]["value"] > 0.75
    losses = [x["train/loss"] for x in metrics.read(rated[0]) if "train/loss" in x]
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("which", ["rated", "paired"])
def test_best_is_the_best_validation(which, request):
    home, results, *_ = request.getfixturevalue(which)
    name = {"rated": "validation/pearson", "paired": "validation/pair_accuracy"}[which]
    values = {x["step"]: x[name] for x in metrics.read(home) if name in x}
    assert len(values) == get_config("tiny").validations
    assert results["best_step"] == min(values, key=lambda step: (-values[step], step))
    assert checkpoint.about(home / "checkpoints/best")["value"] == max(values.values())


def test_the_second_time_reports_and_does_not_train(rated, monkeypatch, capsys):
    home, results = rated
    monkeypatch.setattr(loop, "train", None)
    (home / "report.html").unlink()  # as if a kill had come just before it
    assert train_reward.run(config=reward_config(), workdir=str(home)) == results
    assert "This run is done" in capsys.readouterr().err
    assert (home / "report.html").exists()


def test_a_run_killed_while_it_judged_is_judged_again(paired, tmp_path, capsys):
    home, results, config = paired
    copy = shutil.copytree(home, tmp_path / "copy")
    (copy / "results.json").unlink()
    (copy / "predictions.jsonl").unlink()
    again = train_reward.run(config=config, workdir=str(copy))
    assert f"going on from step {results['steps']}" in capsys.readouterr().err
    for name in ("metrics", "reliability", "temperatures", "best_step"):
        assert again[name] == results[name]
    assert (copy / "predictions.jsonl").read_text() == (home / "predictions.jsonl").read_text()


def test_seeds_have_their_own_figures_and_streams(paired):
    home, results, _ = paired
    assert "2 seeds" in results["interval"] and results["seeds"] == 2
    figure = results["metrics"]["pairs/pair_accuracy"]
    first, second = figure["per_seed"]
    assert figure["value"] == pytest.approx((first + second) / 2)
    params = checkpoint.restore(home / "checkpoints/last")["params"]
    frozen = checkpoint.restore(home / "checkpoints/frozen")["frozen"]
    assert frozen and not {*frozen} & {*params}
    for name, value in params.items():
        if name.endswith("kernel"):
            assert not np.allclose(value[0], value[1]), name


def test_a_changed_config_is_refused_with_the_keys(rated):
    home, _ = rated
    other = reward_config()
    other.loss, other.seed, other.log_every = "mae()", 4, 3
    with pytest.raises(UserError) as error:
        train_reward.run(config=other, workdir=str(home))
    text = str(error.value)
    assert "loss: 'mse()' there, 'mae()' now" in text and "seed: 0 there, 4 now" in text
    assert "log_every" not in text and "--workdir" in text
    free = reward_config()
    free.log_every, free.save_every = 3, 7
    train_reward.run(config=free, workdir=str(home))


def test_changed_data_is_refused(paired, tmp_path, pairs_file):
    home, _, config = paired
    before = pairs_file.read_text()
    (home / "results.json").rename(tmp_path / "results.json")  # a run that is not done
    try:
        pairs_file.write_text(before.replace("Review 2.", "Review two."))
        with pytest.raises(UserError, match="data changed since this run began"):
            train_reward.run(config=config, workdir=str(home))
    finally:
        pairs_file.write_text(before)
        (tmp_path / "results.json").rename(home / "results.json")


def test_a_foreign_folder_is_refused_and_what_a_kill_left_is_not(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and holds no config.json"):
        train_reward.run(config=reward_config(), workdir=str(tmp_path))
    (tmp_path / "thesis.txt").rename(tmp_path / "config.json.partial")
    bad = reward_config()
    bad.data = "file(path='none.jsonl')"
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        train_reward.run(config=bad, workdir=str(tmp_path))
