"""Answers of a log: their rewards and advantages, and that importance ratios make their gradient the policy's own."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.assembly import policy as assembly
from rmjax.errors import UserError
from rmjax.rl import off_policy

# A writer of one letter, not evenly, and what each letter earns.
LETTERS, WRITER, PAY = "abcd", np.array([0.1, 0.2, 0.3, 0.4]), np.array([3.0, -1.0, 0.5, 1.0])
SMALL = {
    "policy": "tiny_decoder(width=16, layers=1)", "data": "synthetic_logs(count=60)", "parallel": "one_device()",
    "dtype": "float32", "batch_size": 8, "max_length": 64,
}  # fmt: skip


def made(**lines):
    """Parts of a config, and its plan."""
    chosen = get_config("tiny_logged")
    chosen.update({**SMALL, **lines})
    plan = assembly.plan(chosen)
    loaded = plan.records()
    known = off_policy.rewards(chosen, plan.terms, loaded.train)
    found, reads = assembly.backbone(chosen, plan, loaded)
    return assembly.assemble(chosen, plan, loaded, found, reads, "float32", known), plan


def log(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"file(path={str(path)!r}, validation={str(path)!r}, test={str(path)!r})"


@functools.cache
def drawn():
    rng = np.random.default_rng(0)
    return rng.choice(len(LETTERS), size=400, p=WRITER)


def line(letter, **more):
    row = {"prompt": "x", "completion": LETTERS[letter], "log_prob": float(np.log(WRITER[letter]))}
    return row | {"reward": PAY[letter], **more}


@pytest.mark.parametrize("cap", [1e6, 3e-5])
def test_the_mean_over_a_log_is_the_policys_gradient_within_its_standard_error(tmp_path, cap):
    """Along the gradient itself, over all parameters; the policy's chance of each letter is known by enumeration."""
    data = log(tmp_path / "log.jsonl", [line(i) for i in drawn()])
    loss = f"off_policy(cap={cap})"
    parts, plan = made(data=data, loss=loss, batch_size=400, baseline="none()")
    run = assembly.forward.language(parts.module.apply)
    rng = np.random.default_rng(1)
    params = {k: x + 0.1 * rng.normal(size=x.shape).astype("f") for k, x in parts.state.params.items()}  # fmt: skip
    batch = {k: jnp.asarray(x) for k, x in parts.batches[0].items()}
    where = np.asarray(batch["text_weight"]) > 0
    record = np.asarray(batch["record"])[where]
    letters = np.array([LETTERS.index(parts.data.train[i].text) for i in record])

    def log_probs(params):
        return run(params, {}, batch, None)["sequence_log_probs"]

    now, pull = jax.vjp(log_probs, params)
    row, at = np.nonzero(where)
    slopes = []  # of each letter's log-probability
    for i in range(len(LETTERS)):
        one = np.flatnonzero(letters == i)[0]
        slopes.append(pull(jnp.zeros_like(now).at[row[one], at[one]].set(1.0))[0])
    chance = np.exp([np.asarray(now)[where][letters == i][0] for i in range(len(LETTERS))])
    ratio = np.minimum(chance / WRITER, cap)
    weight = -WRITER * ratio * PAY  # of the texts that the writer can write
    wanted = jax.tree.map(lambda *x: sum(w * s for w, s in zip(weight, x, strict=True)), *slopes)
    along = lambda tree: float(sum(jnp.vdot(tree[k], wanted[k]) for k in wanted))
    want, score = along(wanted), np.array([along(s) for s in slopes])
    each = (-ratio * PAY * score)[letters]
    error = each.std(ddof=1) / np.sqrt(len(each))

    def total(params):
        known = batch["old_sequence_log_probs"], batch["advantage"]
        return jnp.sum(plan.terms[0].function(log_probs(params), *known)[where])

    got = along(jax.grad(total)(params)) / len(letters)
    assert got == pytest.approx(each.mean(), rel=1e-3)  # the loss differentiates log p alone
    assert abs(got - want) < 3 * error < 0.5 * abs(want)
    whole = -np.sum(chance * PAY * score)
    assert np.isclose(want, whole, rtol=1e-5, atol=0.0) == (cap > 1)


def test_the_batch_holds_log_probs_and_advantages_over_the_data_set():
    parts, _ = made(loss="mle() + off_policy()", baseline="batch_mean()")
    earned = np.array([r.reward for r in parts.data.train])
    batch = parts.batches[0]
    texts = np.nonzero(batch["text_weight"] > 0)
    record = batch["record"][texts]
    want = (earned - earned.mean())[record]
    np.testing.assert_allclose(batch["advantage"][texts], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch["old_sequence_log_probs"][texts], -2 * np.log(14), rtol=1e-6)
    none, _ = made(loss="mle() + off_policy()", baseline="none()")
    batch = none.batches[0]
    np.testing.assert_allclose(batch["advantage"][texts], earned[record], rtol=1e-6)


@pytest.mark.parametrize("loss", ["reward_weighted()", "linear_weighted()"])
def test_weighted_likelihoods_take_rewards_of_the_data(loss):
    parts, _ = made(loss=loss, weights="exp_weights(beta=0.5)")
    earned = np.array([r.reward for r in parts.data.train])
    batch = parts.batches[0]
    row, at = np.nonzero(batch["text_of"] < batch["score_at"].shape[1])
    record = batch["record"][row, batch["text_of"][row, at]]
    name, want = "reward_weight", np.exp(earned / 0.5)
    if loss.startswith("linear"):
        name, want = "standard_rewards", (earned - earned.mean()) / earned.std()
    np.testing.assert_allclose(batch[name][row, at], np.minimum(want, 20)[record], rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "lines", "message"),
    [
        ([{"log_prob": None}], {}, "'data': 1 of 5 training answers have no log_prob, their log-probability under"),
        ([{"reward": None}], {}, "'reward': 1 of 5 training answers have no reward; give each line one"),
        ([{"reward": None}] * 5, {}, "'reward': 5 of 5 training answers have no reward"),
        ([{"reward": None}], {"loss": "reward_weighted()", "weights": "exp_weights(beta=1.0)"}, "1 of 5 training"),
        ([{"reward": None}] * 5, {"loss": "linear_weighted()"}, "needs standard_rewards, which a reward offers"),
        ([], {"baseline": "moving_average()"}, "'baseline': moving_average() is of earlier rollouts"),
        ([], {"loss": "reinforce()"}, "'loss': needs advantage, which samples offer"),
        ([{"completion": "a" * 30}], {"max_length": 16}, "'max_length': 1 logged texts do not fit in 16 tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_weighed_is_refused(tmp_path, rows, lines, message):
    full = [line(i % 4) for i in range(5)]
    for at, own in enumerate(rows):
        full[at] |= own
    with pytest.raises(UserError) as error:
        made(data=log(tmp_path / "log.jsonl", full), **lines)
    assert message in str(error.value)
