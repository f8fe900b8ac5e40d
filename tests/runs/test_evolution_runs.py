"""Evolution as a run: what its population answers, that it earns more, goes on bit for bit, and refuses."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.assembly import policy as assembly
from rmjax.errors import UserError
from rmjax.rl import policy_evaluation, reward_functions, rollout
from rmjax.runs import optimize_policy
from rmjax.train import checkpoint, metrics
from tests.runs.stopping import stopped_and_gone_on

B, M = 8, 16
SMALL = {
    "data": "synthetic_ratings(count=80)", "parallel": "one_device()", "dtype": "float32", "batch_size": B,
    "max_length": 64, "max_new_tokens": 8, "validation_prompts": 8, "test_prompts": 20, "log_every": 1,
}  # fmt: skip
FRESH = "tiny_decoder(width=16, layers=1)"


def config(name="tiny_evolution", **lines):
    c = get_config(name)
    c.update(
        {**SMALL, "policy": FRESH, "samples": M, **lines}
        | ({"samples": 0} if name == "tiny" else {})
    )
    return c.lock()


@pytest.fixture(scope="session")
def evolved(tmp_path_factory):
    """The lines of a run from a policy that has learned to spell a little, its folder, and what it returned."""
    start, home = (tmp_path_factory.mktemp("evolved") / name for name in ("start", "run"))
    optimize_policy.run(config=config("tiny", epochs=20.0), workdir=str(start))
    lines = config(
        policy=f"trained(workdir={str(start)!r})", epochs=6.0, save_every=4, validations=2
    )
    return lines, home, optimize_policy.run(config=lines, workdir=str(home))


def test_a_population_raises_the_reward(evolved):
    _, home, results = evolved
    told = [line["rollout/reward"] for line in metrics.read(home) if "rollout/reward" in line]
    assert len(told) == results["steps"] == results["updates"] == 36
    assert np.mean(told[-6:]) > np.mean(told[:6]) + 0.15
    assert results["metrics"]["gain/reward"]["value"] > 0.15
    assert results["metrics"]["kl"]["value"] > 0.05


def test_results_and_report_are_those_of_any_policy_run(evolved):
    _, home, results = evolved
    assert json.loads((home / "results.json").read_text()) == results
    own = {"reward", "gold", "kl", "length", "missing_stop", "distinct_1", "distinct_2"}
    names = own | {f"reference/{n}" for n in own} | {"gain/reward", "gain/gold"}
    assert names | {"synthetic/nats_per_token", "reference/synthetic/bits_per_byte"} <= {
        *results["metrics"]
    }
    assert results["metrics"]["reference/kl"]["value"] == pytest.approx(0, abs=1e-5)
    told = [line for line in metrics.read(home) if "train/fitness" in line]
    for line in told:
        paid = line["rollout/reward"] - line["rollout/beta"] * line["rollout/kl"]
        assert line["train/fitness"] == pytest.approx(paid, abs=1e-5)
        assert math.isfinite(line["train/update_norm"]) and "rollout/sampler_difference" not in line
    page = (home / "report.html").read_text(encoding="utf-8")
    assert "deviation of fitness within the population" in page and "norm of the update" in page


def test_a_stopped_run_ends_as_the_unbroken_one(evolved, tmp_path, monkeypatch):
    lines, whole, wanted = evolved
    found = stopped_and_gone_on(lines, tmp_path, monkeypatch, at=2)
    assert found["metrics"] == wanted["metrics"] and found["best_step"] == wanted["best_step"]
    ends = [checkpoint.restore(home / "checkpoints/last") for home in (whole, tmp_path)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    kept = lambda line: {k: v for k, v in line.items() if k != "tokens_per_second"}
    assert list(map(kept, metrics.read(whole))) == list(map(kept, metrics.read(tmp_path)))
    for name in ("samples.jsonl", policy_evaluation.BY_STEP):
        assert (whole / name).read_text() == (tmp_path / name).read_text()


def assembled(chosen):
    plan = assembly.plan(chosen)
    loaded = assembly.prompted(plan, plan.records())
    found, reads = assembly.backbone(chosen, plan, loaded)
    parts = assembly.assemble(chosen, plan, loaded, found, reads, "float32")
    reward = reward_functions.make(chosen, "reward", {}, whole=True)
    does = policy_evaluation.functions(chosen, parts, reward)
    return plan, parts, does, policy_evaluation.of_population(chosen, parts, does)


def test_each_member_answers_for_itself_and_all_with_the_same_keys():
    _, parts, does, population = assembled(config(samples=4))
    prompts, params = parts.rollouts.item(1).prompts, parts.state.params
    made = population.sample(params, prompts, 1, 4)
    assert made.tokens.shape == (B, 4, 8)
    members = parts.members(params, 1)
    for k in range(4):
        alone = does.sample({path: x[k] for path, x in members.items()}, prompts, 1, 1)
        np.testing.assert_array_equal(made.tokens[:, k], alone.tokens[:, 0])
        np.testing.assert_allclose(made.log_probs[:, k], alone.log_probs[:, 0], atol=1e-5)
    assert np.any(made.log_probs[:, :1] != made.log_probs[:, 1:])


def test_a_generation_is_the_same_on_several_devices():
    told, after = [], []
    for layout in ("one_device()", "pmap()"):
        plan, parts, _, population = assembled(config(samples=4, parallel=layout))
        prepare = rollout.prepare(
            population, plan.credit, parts.rollouts.bounds,
            rollout.answering(population, parts.reads), seed=0, max_kl=9.0,
            measured=False,
        )  # fmt: skip
        made, _, own = prepare(parts.state.params, plan.credit.start, parts.rollouts.item(0))
        now, _ = parts.step(parts.state, parts.frozen, parts.layout.put_batch(made[0]))
        told.append(own)
        after.append(jax.tree.map(np.asarray, parts.layout.get(now).params))
    assert told[0] == pytest.approx(told[1], abs=1e-4)
    for path, x in after[0].items():
        np.testing.assert_allclose(x, after[1][path], atol=1e-5)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"evolution": "open_ea()"}, "'evolution': there is no 'open_ea'; did you mean 'open_es'"),
        ({"evolution": "open_es(deviation=0.0)"}, "'evolution', 'samples': deviation must be positive"),
        ({"samples": 7}, "'evolution', 'samples': a population is of mirrored pairs: an even number of members, not 7"),
        ({"samples": 0}, "not 0"),
        ({"reward": "none()"}, "'reward': samples are learned from by their reward"),
        ({"loss": "reinforce()"}, "'loss': evolution ranks the members of a population by their reward, and has no use "
         "for 'reinforce()'; set loss='none()'"),
        ({"baseline": "leave_one_out()"}, "set baseline='none()'"),
        ({"critic": "value()"}, "set critic='none()'"),
        ({"dropout": 0.1}, "set dropout=0.0"),
        ({"minibatches": 2}, "set minibatches=1"),
        ({"adapter": "none()"}, "'adapter': evolution perturbs an adapter"),
        ({"adapter": "lora(dropout=0.1)"}, "'adapter': evolution perturbs an adapter, which drops nothing"),
        ({"evolution": "none()"}, "config key 'loss': 'none()' learns nothing"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_key(tmp_path: Path, lines, message):
    with pytest.raises(UserError) as error:
        optimize_policy.run(config=config(**lines), workdir=str(tmp_path / "run"))
    assert message in str(error.value) and "\n" not in str(error.value)
