"""Logs from the policy that writes them to the one that learns from them, and replay of logged data on resuming."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.assembly import policy as assembly
from rmjax.data import language, pipeline
from rmjax.data.encode import Reader
from rmjax.data.records import Text
from rmjax.errors import UserError
from rmjax.inference import backbones, completer
from rmjax.rl import off_policy
from rmjax.runs import generate, optimize_policy
from rmjax.train import checkpoint, forward, metrics
from tests.runs.conftest import write_jsonl

SMALL = {
    "policy": "tiny_decoder(width=16, layers=1)", "data": "synthetic_logs(count=40)", "parallel": "one_device()",
    "dtype": "float32", "batch_size": 4, "max_length": 64, "log_every": 1,
}  # fmt: skip


def config(name, **lines):
    c = get_config(name)
    c.update({**SMALL, **lines})
    return c


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """The folder of a policy that has learned to write letters."""
    home = tmp_path_factory.mktemp("writer") / "run"
    lines = {"epochs": 6.0, "schedule": "linear(peak=3e-2)", "validations": 1}
    optimize_policy.run(config=config("tiny", **lines), workdir=str(home))
    return str(home)


@pytest.fixture(scope="module")
def written(writer, rated, tmp_path_factory):
    """A file of logs by that policy, rewarded, and its lines."""
    home = tmp_path_factory.mktemp("logs")
    rows = [{"prompt": f"Review {i}: ", "id": i, "seen": 1} for i in range(12)]
    asked = write_jsonl(home / "prompts.jsonl", rows)
    target = home / "logs.jsonl"
    done = generate.run(
        policy=writer, input=str(asked), output=str(target), logs=True, samples=4, max_new_tokens=6, temperature=0.7,
        reward_model=str(rated[0]), batch_size=12,
    )  # fmt: skip
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert done == {"lines": len(lines)} and len(lines) >= 10
    return f"file(path={str(target)!r}, validation={str(target)!r}, test={str(target)!r})", lines


def test_logs_hold_what_a_run_reads(written):
    _, lines = written
    for line in lines:
        assert {*line} == {"id", "prompt", "completion", "log_prob", "stopped", "reward"}
    assert len({line["stopped"] for line in lines}) >= 1 and len({line["id"] for line in lines}) > 4


def test_the_writer_itself_finds_a_ratio_of_one(writer, written):
    data, lines = written
    own = {"policy": f"trained(workdir={writer!r})", "batch_size": len(lines)}
    chosen = config("tiny_logged", data=data, temperature=0.7, **own)
    plan = assembly.plan(chosen)
    loaded = plan.records()
    known = off_policy.rewards(chosen, plan.terms, loaded.train)
    np.testing.assert_allclose(known, [line["reward"] for line in lines], rtol=1e-6)
    found, reads = assembly.backbone(chosen, plan, loaded)
    parts = assembly.assemble(chosen, plan, loaded, found, reads, "float32", known)
    batch = parts.layout.put_batch(parts.batches[0])
    run = forward.language(parts.module.apply, temperature=0.7)
    now = run(parts.state.params, {}, batch, None)["sequence_log_probs"]
    real = np.asarray(batch["text_weight"]) > 0
    assert real.sum() == len(lines)
    np.testing.assert_allclose(now[real], batch["old_sequence_log_probs"][real], atol=1e-3)
    state, means = parts.step(parts.state, parts.frozen, batch)
    assert int(state.bad_step) == -1 and np.isfinite(float(means["off_policy"].value))


def test_text_that_is_read_as_other_tokens_is_left_out():
    tokenizer = backbones.tiny_decoder().tokenizer
    reads = language.Reads(Reader(tokenizer, None, 99, False), (2,))
    yes = [int(i) for i in tokenizer.encode(["yes"], 99)[0][1:-1]]
    high = [int(i) for i in tokenizer.encode(["é"], 99)[0][1:2]]  # half a character
    for own, stopped, good in (
        ([*yes, 2], True, True),
        (yes, False, True),
        ([*high, 2], True, False),
        ([*yes, 2], False, False),
        ([2], True, True),
    ):
        for prompt in ("Q?", (("user", "Q?"),)):
            assert completer.read_back(np.array(own), stopped, prompt, reads) == good, own


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"top_p": 0.9}, "flags of sampling: .*top_p=0.9 never draws tokens of the tail"),
        ({"temperature": 0.0}, "flags of sampling: .*temperature=0 takes the likeliest"),
        ({"stop": "x"}, "--logs: needs --input, and no --stop"),
        ({"input": ""}, "--logs: needs --input, and no --stop"),
    ],
)
def test_draws_from_another_distribution_are_no_logs(flags, message):
    with pytest.raises(UserError, match=message):
        generate.run(policy="nowhere", logs=True, **{"input": "a.jsonl", **flags})


def test_a_stopped_run_replays_its_log_to_the_same_end(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    lines = config("tiny_logged", epochs=2.0, dropout=0.1, save_every=4, schedule="linear(peak=2e-2)")  # fmt: skip
    wanted = optimize_policy.run(config=lines, workdir=str(whole))
    iterate = pipeline.iterate

    def stop(batches, start):
        for k, batch in enumerate(iterate(batches, start)):
            if k == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "iterate", stop)
        assert optimize_policy.run(config=lines, workdir=str(broken)) == {"finished": False}
    assert checkpoint.latest(broken / "checkpoints/last") == 3
    found = optimize_policy.run(config=lines, workdir=str(broken))
    assert found["metrics"] == wanted["metrics"]
    names = {f"{who}synthetic/logged_reward" for who in ("", "reference/")}
    assert names <= {*found["metrics"]}
    best = checkpoint.about(whole / "checkpoints/best")
    assert best["metric"] == "validation/logged_reward"
    ends = [checkpoint.restore(home / "checkpoints/last") for home in (whole, broken)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    told = lambda home: [x.get("train/off_policy") for x in metrics.read(home)]
    values = told(whole), told(broken)
    assert values[0] == values[1] and any(values[0])


def test_a_reward_line_goes_before_the_rewards_of_the_data(tmp_path):
    own = Text("0", "d", "0", "fine", "Q?", reward=5.0, log_prob=-1.0)
    chosen = config("tiny_logged", reward="keywords(words=['fine'])")
    assert off_policy.rewards(chosen, assembly.plan(chosen).terms, [own]) is None
    chosen = config("tiny_logged")
    assert off_policy.rewards(chosen, assembly.plan(chosen).terms, [own]) == 5.0
    chosen = config("tiny_logged", loss="mle()")
    assert off_policy.rewards(chosen, assembly.plan(chosen).terms, [own]) is None
