"""Lines of returns: by hand, against each other, and on a chain whose values and gradient are known exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax import lookup
from rmjax.errors import UserError
from rmjax.rl.estimators import RETURNS

RNG = np.random.default_rng(0)
MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
REWARDS, VALUES, Q, RATIOS = (RNG.normal(size=(4, *MASK.shape)) * MASK).astype(np.float32)


def estimate(line, **arrays):
    bound = lookup.bind(line, RETURNS, key="returns")
    known = {
        "rewards": REWARDS,
        "values": VALUES,
        "q": Q,
        "log_ratios": RATIOS,
        "mask": MASK,
        "ends": np.zeros(len(MASK), np.float32),
    } | arrays
    found = bound(**{name: jnp.asarray(known[name]) for name in lookup.arrays(bound)})
    assert not np.any(np.asarray(found.advantages)[MASK == 0])
    return np.asarray(found.advantages), {k: np.asarray(x) for k, x in found.targets.items()}


def after(x):
    return np.concatenate([x[:, 1:], 0 * x[:, :1]], axis=1) * MASK


def test_lambda_returns_and_on_policy_vtrace_are_gae():
    advantages, targets = estimate("gae(discount=0.9, decay=0.7)")
    np.testing.assert_allclose(targets["returns"], advantages + VALUES, rtol=1e-5, atol=1e-6)
    others = estimate("lambda_returns(discount=0.9, decay=0.7)")
    np.testing.assert_allclose(others[0], advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(others[1]["returns"], targets["returns"], rtol=1e-5, atol=1e-6)
    whole, _ = estimate("gae(discount=0.9, decay=1.0)")
    drawn_now, _ = estimate("vtrace(discount=0.9)", log_ratios=0 * RATIOS)
    np.testing.assert_allclose(drawn_now, whole, rtol=1e-5, atol=1e-6)
    drawn_before, _ = estimate("vtrace(discount=0.9)")
    assert np.max(np.abs(drawn_before - whole)) > 0.1


def test_one_step_is_td_and_many_are_all_that_comes():
    advantages, targets = estimate("n_step(steps=1, discount=0.9)")
    want = REWARDS + 0.9 * after(VALUES)
    np.testing.assert_allclose(targets["returns"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(advantages, want - VALUES, rtol=1e-5, atol=1e-6)
    _, targets = estimate("n_step(steps=9)")
    want = np.cumsum(REWARDS[:, ::-1], axis=1)[:, ::-1] * MASK
    np.testing.assert_allclose(targets["returns"], want, rtol=1e-5, atol=1e-6)


def test_the_target_of_an_action_is_its_reward_and_the_value_of_what_follows():
    advantages, targets = estimate("expected_sarsa(discount=0.9)")
    assert {*targets} == {"q_target"}
    want = REWARDS + 0.9 * after(VALUES)
    np.testing.assert_allclose(targets["q_target"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(advantages, Q - VALUES, rtol=1e-6)


def test_the_number_of_steps_has_no_default():
    with pytest.raises(UserError, match=r"'returns': n_step\(\) needs steps"):
        lookup.bind("n_step()", RETURNS, key="returns")


STOP, LENGTH = 2, 3  # tokens 0, 1 and a stop token; texts end by it or at 3 tokens
TEXTS = [
    text
    for n in range(1, LENGTH + 1)
    for text in itertools.product(range(3), repeat=n)
    if STOP not in text[:-1] and (text[-1] == STOP or n == LENGTH)
]
STATES = [s for n in range(LENGTH) for s in itertools.product(range(2), repeat=n)]
WORTH = dict(zip(TEXTS, RNG.normal(size=len(TEXTS)).tolist(), strict=True))
TABLE = jnp.asarray(RNG.normal(size=(len(STATES), 3)))


def log_probs(table, text):
    rows = jnp.asarray([STATES.index(text[:t]) for t in range(len(text))])
    return jax.nn.log_softmax(table)[rows, jnp.asarray(text)]


def expected(table):
    return sum(jnp.exp(jnp.sum(log_probs(table, text))) * WORTH[text] for text in TEXTS)


def exact():
    """Q(s, a) by enumeration, and V(s)."""
    p, q, v = np.asarray(jax.nn.softmax(TABLE)), {}, {}
    for state in reversed(STATES):
        for a in range(3):
            longer = (*state, a)
            q[longer] = WORTH[longer] if longer in WORTH else v[longer]
        v[state] = sum(p[STATES.index(state), a] * q[*state, a] for a in range(3))
    return q, v


def test_exact_action_values_are_their_own_targets_and_give_the_exact_gradient():
    q, v = exact()
    assert float(expected(TABLE)) == pytest.approx(v[()], abs=1e-6)
    padded = lambda values: np.array([[*x, *[0.0] * (LENGTH - len(x))] for x in values], np.float32)
    steps = [range(len(text)) for text in TEXTS]
    arrays = {
        "rewards": padded([[WORTH[x] * (t == len(x) - 1) for t in ts] for x, ts in zip(TEXTS, steps, strict=True)]),
        "values": padded([[v[x[:t]] for t in ts] for x, ts in zip(TEXTS, steps, strict=True)]),
        "q": padded([[q[x[: t + 1]] for t in ts] for x, ts in zip(TEXTS, steps, strict=True)]),
        "mask": padded([[1.0] * len(x) for x in TEXTS]),
    }  # fmt: skip
    found = RETURNS["expected_sarsa"](**{name: jnp.asarray(x) for name, x in arrays.items()})
    np.testing.assert_allclose(found.targets["q_target"], arrays["q"], rtol=1e-5, atol=1e-6)

    def surrogate(table):
        total = 0.0
        for text, advantages in zip(TEXTS, found.advantages, strict=True):
            own = log_probs(table, text)
            chance = jax.lax.stop_gradient(jnp.exp(jnp.sum(own)))
            total += chance * jnp.sum(advantages[: len(text)] * own)
        return total

    want = jax.grad(expected)(TABLE)
    assert np.max(np.abs(want)) > 0.05
    np.testing.assert_allclose(jax.grad(surrogate)(TABLE), want, rtol=1e-4, atol=1e-6)
