"""Kills and SIGTERM in real processes, and divergence: the same command goes on, bit for bit."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.reward import get_config
from rmjax.data.synthetic import rated_texts
from rmjax.errors import UserError
from rmjax.runs import train_reward
from rmjax.train import checkpoint, metrics

HOME = Path(__file__).parents[2]
LINES = {
    "model": "tiny_encoder(width=16, layers=1)", "data": "synthetic_ratings(count=60)", "dropout": 0.2, "seeds": 2,
    "parallel": "one_device()", "dtype": "float32", "batch_size": 4, "epochs": 16.0,
    "save_every": 6, "log_every": 2, "validations": 2,
}  # fmt: skip
STEPS = 144


def start(home):
    flags = [f"--config.{key}={value}" for key, value in LINES.items()]
    command = [sys.executable, "-m", "experiments.train_reward", "--config=configs/reward.py:tiny"]
    return subprocess.Popen(
        [*command, *flags, f"--workdir={home}"], cwd=HOME, stderr=subprocess.PIPE, text=True
    )


def wait_for(process, seen):
    while process.poll() is None and not seen():
        time.sleep(0.005)
    assert process.poll() is None, process.stderr.read()


def step(home):
    return max((x["step"] for x in metrics.read(home)), default=0)


def final(home):
    return checkpoint.restore(home / "checkpoints/last")


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_killed_and_stopped_run_ends_as_the_unbroken_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    lines = get_config("tiny")
    lines.update(LINES)
    train_reward.run(config=lines, workdir=str(whole))

    saves = broken / "checkpoints/last"
    amid_a_save = lambda: any("tmp" in p.name for p in saves.glob("*"))
    points = sorted(random.sample(range(2, STEPS // 4), 2))
    for moment in (amid_a_save, *(lambda at=at: step(broken) >= at for at in points)):
        process = start(broken)
        wait_for(process, moment)
        process.kill()
        assert process.wait() == -signal.SIGKILL, points
    process = start(broken)
    wait_for(process, lambda: step(broken) > STEPS // 3)
    process.terminate()
    printed = " ".join(process.communicate()[1].split())  # the console folds long lines
    assert process.returncode == 0
    found = re.search(rf"stopped by SIGTERM after step (\d+) of {STEPS}; saved; the same", printed)
    assert checkpoint.latest(saves) == int(found[1])

    process = start(broken)
    printed = process.communicate()[1]
    assert process.returncode == 0, printed
    assert f"going on from step {found[1]} of {STEPS}" in " ".join(printed.split())
    same(final(broken), final(whole))
    same(*(checkpoint.restore(home / "checkpoints/best") for home in (broken, whole)))
    assert (broken / "predictions.jsonl").read_text() == (whole / "predictions.jsonl").read_text()
    steps = [x["step"] for x in metrics.read(broken) if "train/loss" in x]
    wanted = {x["step"] for x in metrics.read(whole)} | {int(found[1])}
    assert steps == sorted(wanted)  # none twice, none missing


def poisoned(tmp_path, **more):
    """A config whose training data hold one rating that no float32 can square."""
    rows = [{"id": r.id, "text": r.text, "rating": r.rating} for r in rated_texts(32)]
    rows[17] |= {"id": "poison", "rating": 3e38}
    for name, part in {"train": rows, "test": rows[:8]}.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{name}.jsonl").write_text(text)
    train, test = (str(tmp_path / f"{name}.jsonl") for name in ("train", "test"))
    c = get_config("tiny")
    c.data = f"file(path={train!r}, validation={test!r}, test={test!r})"
    c.model, c.dtype, c.parallel = "tiny_encoder(width=16, layers=1)", "float32", "one_device()"
    c.epochs, c.batch_size = 2.0, 4
    c.update(more)
    return c


@pytest.mark.parametrize(("seeds", "every"), [(1, 1), (2, 1000)])
def test_divergence_names_step_and_texts_and_keeps_the_last_good_state(tmp_path, seeds, every):
    home = tmp_path / "run"
    lines = poisoned(tmp_path, seeds=seeds, save_every=every, log_every=3)
    messages = []
    for _ in range(2):  # the same command again meets the same step
        with pytest.raises(UserError) as error:
            train_reward.run(config=lines, workdir=str(home))
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    step = int(re.search(r"not finite at step (\d+)", messages[0])[1])
    assert "poison" in messages[0] and "epoch 0" in messages[0] and "\n" not in messages[0]
    assert ("of seed" in messages[0]) == (seeds > 1)
    last = home / "checkpoints/last"
    if every == 1:
        assert step > 0 and checkpoint.latest(last) == step
        assert f"that of step {step} is the last good checkpoint" in messages[0]
        assert all(np.isfinite(x).all() for x in final(home)["params"].values())
    else:
        assert "no checkpoint was saved yet" in messages[0] and checkpoint.latest(last) is None
