"""Checkpoints and scalar files: atomic, one kept, cut back to where a run resumes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.models import shardings
from rmjax.train import checkpoint, metrics
from rmjax.train.parallel import one_device


def tree(value):
    return {"params": {"a/kernel": jnp.full((2, 3), value)}, "step": jnp.int32(7)}


def test_the_newest_checkpoint_comes_back_as_it_was(tmp_path):
    folder = tmp_path / "last"
    assert checkpoint.latest(folder) is None
    checkpoint.save(folder, 3, tree(1.0), {"step": 3, "best": None, "words": "añ"})
    checkpoint.save(folder, 5, tree(2.0), {"step": 5})
    assert checkpoint.latest(folder) == 5
    assert checkpoint.about(folder) == {"step": 5}
    assert [p.name for p in folder.iterdir()] == ["5"]
    for like in (None, one_device(shardings.spec, 1).put(tree(0.0))):
        found = checkpoint.restore(folder, like)
        jax.tree.map(np.testing.assert_array_equal, found, tree(2.0))
        assert found["step"].dtype == np.int32


def test_a_step_already_saved_is_left_alone(tmp_path):
    checkpoint.save(tmp_path, 3, tree(1.0), {"first": True})
    checkpoint.save(tmp_path, 3, tree(2.0), {"first": False})
    assert checkpoint.about(tmp_path) == {"first": True}
    assert checkpoint.restore(tmp_path)["params"]["a/kernel"][0, 0] == 1.0


def test_a_save_that_a_kill_cut_short_does_not_count(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 3, tree(1.0), {"step": 3})
    with monkeypatch.context() as patched:
        patched.setattr("os.rename", lambda *_, **__: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(BaseException):  # noqa: B017 (whatever the dying save raises)
            checkpoint.save(tmp_path, 4, tree(2.0), {"step": 4})
    assert len(list(tmp_path.iterdir())) == 2  # it had begun to write
    assert checkpoint.latest(tmp_path) == 3
    checkpoint.save(tmp_path, 4, tree(5.0), {"step": 4})
    assert checkpoint.restore(tmp_path)["params"]["a/kernel"][0, 0] == 5.0


def test_another_tree_is_refused(tmp_path):
    checkpoint.save(tmp_path, 3, tree(1.0), {})
    other = {"params": {"b/kernel": jnp.zeros((2, 3))}, "step": jnp.int32(0)}
    with pytest.raises(ValueError, match="b/kernel"):
        checkpoint.restore(tmp_path, other)


def test_metrics_are_cut_back_to_the_resumed_step(tmp_path):
    log = metrics.Writer(tmp_path, 0)
    for step in (2, 4, 6):
        log(step, {"train/loss": step / 2, "bad": float("nan"), "worse": float("inf")})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "trai')
    log = metrics.Writer(tmp_path, 4)
    log(6, {"train/loss": 9.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(x["step"], x["train/loss"]) for x in lines] == [(2, 1.0), (4, 2.0), (6, 9.0)]
    assert lines[0]["bad"] is None and lines[0]["worse"] is None
    assert metrics.read(tmp_path) == lines
