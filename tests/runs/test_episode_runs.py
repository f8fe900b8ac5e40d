"""Whole runs in an environment: what is learned and told, that they go on bit for bit, and a critic's step."""

import json
import math
import string

import gymnasium
import jax
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.assembly import policy as assembly
from rmjax.rl import episode_evaluation, policy_evaluation, rollout
from rmjax.runs import optimize_policy
from rmjax.train import checkpoint, metrics
from tests.runs.stopping import stopped_and_gone_on

NAME = "rmjax_tests/Typist-v0"


class Typist(gymnasium.Env):
    """Pays each action that its space holds: some characters that can be typed."""

    observation_space = gymnasium.spaces.Text(8, charset=string.printable)
    action_space = gymnasium.spaces.Text(4, min_length=1, charset=string.printable)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.key = string.ascii_lowercase[self.np_random.integers(3)]
        return f"type {self.key}", {}

    def step(self, action):
        return "more", 1.0, False, False, {}


def config(**lines):
    c = get_config("tiny_game")
    c.update(
        {"parallel": "one_device()", "environment": f"gym(id={NAME!r})", "max_new_tokens": 2, "train_seeds": 128,
         "samples": 4, "schedule": "constant(peak=2e-2)", "log_every": 1, "save_every": 100, **lines}
    )  # fmt: skip
    return c.lock()


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register(NAME, Typist, max_episode_steps=2)
    yield
    del gymnasium.registry[NAME]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a finished run, and what it returned."""
    home = tmp_path_factory.mktemp("typist") / "run"
    return home, optimize_policy.run(config=config(), workdir=str(home))


def test_the_return_on_held_out_seeds_rises(done):
    home, results = done
    figures = results["metrics"]
    assert results["steps"] == results["updates"] == 16
    assert figures["reward"]["n"] == 20 and figures["reward"]["low"] is not None
    assert figures["gain/reward"]["low"] > 0 and figures["reward"]["value"] > 1.2
    assert figures["reference/kl"]["value"] == pytest.approx(0, abs=1e-5) and figures["kl"]["value"] > 0  # fmt: skip
    assert not any("nats_per_token" in name for name in figures)  # there are no texts to predict
    told = [line for line in metrics.read(home) if "rollout/reward" in line]
    assert len(told) == 16 and told[-1]["rollout/reward"] > told[0]["rollout/reward"]
    for line in told:  # what sampling said of every turn is what training says
        assert line["train/log_prob"] == pytest.approx(line["rollout/log_prob"], abs=1e-4)
        assert math.isfinite(line["train/loss"])
        assert 2 <= line["rollout/length"] <= 4
    assert abs(told[0]["rollout/kl"]) < 1e-4


def test_transcripts_are_kept_and_shown(done):
    home, _ = done
    lines = [json.loads(line) for line in (home / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 20
    for line in lines:
        assert line["prompt"].startswith("type ") and line["policy"].startswith("> ")
        assert line["policy"].count("> ") >= 2 and {*line["rewards"]} == {"reward"}
    assert any("\nmore\n> " in line["policy"] for line in lines)
    page = (home / "report.html").read_text()
    assert "training raised reward by" in page and "&gt; " in page


def test_a_stopped_run_ends_as_the_unbroken_one(done, tmp_path, monkeypatch):
    whole, wanted = done
    found = stopped_and_gone_on(config(), tmp_path, monkeypatch, at=5)
    assert found["metrics"] == wanted["metrics"]
    ends = [checkpoint.restore(home / "checkpoints/last") for home in (whole, tmp_path)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    for name in ("samples.jsonl", policy_evaluation.BY_STEP):
        assert (whole / name).read_text() == (tmp_path / name).read_text()


def test_a_critic_learns_from_every_turn():
    chosen = config(
        loss="ppo() + 0.1 * clipped_value()", critic="value()", rollout_epochs=2, minibatches=2,
        baseline="none()", kl="fixed(beta=0.05)",
    )  # fmt: skip
    plan = assembly.plan(chosen)
    loaded = assembly.prompted(plan, plan.records())
    found, reads = assembly.backbone(chosen, plan, loaded)
    parts = assembly.assemble(chosen, plan, loaded, found, reads, "float32")
    does = policy_evaluation.functions(chosen, parts, optimize_policy.no_reward)
    play = episode_evaluation.player(chosen, parts, plan.environment)
    prepare = rollout.prepare(does, plan.credit, parts.rollouts.bounds, play, seed=0, max_kl=9.0)
    made, carry, told = prepare(parts.state.params, plan.credit.start, parts.rollouts.item(0))
    assert len(made) == 4 and carry["seen"] == 32 and told["rollout/sampler_difference"] < 1e-4
    counted = sum(int((part["token_weight"] > 0).sum()) for part in made[:2])
    assert counted == round(told["rollout/length"] * 32)
    assert {*made[0]} == {*rollout.blank(parts.rollouts, plan.credit, plan.critic.offers)}
    state = parts.state
    for part in made:
        state, means = parts.step(state, parts.frozen, parts.layout.put_batch(part))
    assert int(state.bad_step) == -1 and float(means["clipped_value"].value) > 0
