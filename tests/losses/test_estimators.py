"""Policy-gradient estimators against gradients that are known by enumeration, of a bandit and of a two-step chain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.losses import likelihood, policy
from rmjax.rl import baselines, returns

RNG = np.random.default_rng(0)
as32 = lambda *arrays: [jnp.asarray(x, jnp.float32) for x in arrays]

# A bandit: one token, four arms; K pulls of one prompt are enumerated, each with its chance.
ARMS = jnp.asarray([0.3, -0.5, 0.9, 0.0])
PAY = jnp.asarray([3.0, 2.0, 4.5, 2.5])
K = 3
PULLS = jnp.asarray(list(itertools.product(range(4), repeat=K)))  # [4^K, K]
TRUE = jax.grad(lambda x: jax.nn.softmax(x) @ PAY)(ARMS)
BEHAVIOR = jnp.asarray([0.1, 0.4, 0.2, 0.3])


def moments(loss, chance):
    """Mean and summed variance of the ascent direction that `loss` of K pulls gives."""
    direction = jax.grad(lambda x, pulls: -jnp.mean(loss(x, pulls)))
    directions = jax.jit(jax.vmap(direction, (None, 0)))(ARMS, PULLS)
    weight = jnp.prod(chance[PULLS], axis=1)
    assert float(jnp.sum(weight)) == pytest.approx(1, rel=1e-5)
    mean = weight @ directions
    return mean, float(weight @ jnp.sum(jnp.square(directions - mean[None]), axis=1))


def reinforced(baseline):
    def loss(logits, pulls):
        advantage = baseline(PAY[pulls][None])[0]
        return policy.reinforce(jax.nn.log_softmax(logits)[pulls], advantage)

    return moments(loss, jax.nn.softmax(ARMS))


@pytest.mark.parametrize(
    ("baseline", "factor"),
    [
        (baselines.no_baseline, 1),
        (baselines.leave_one_out, 1),
        (lambda rewards: baselines.moving_average(rewards, 2.8), 1),
        (baselines.batch_mean, 1 - 1 / K),
        (baselines.group_centered, 1 - 1 / K),
    ],
)
def test_each_baseline_keeps_the_true_gradient_of_a_bandit(baseline, factor):
    mean, _ = reinforced(baseline)
    np.testing.assert_allclose(mean, factor * TRUE, rtol=1e-4, atol=1e-6)


def test_baselines_order_the_variance():
    none, left_out = (reinforced(b)[1] for b in (baselines.no_baseline, baselines.leave_one_out))
    expected = float(jax.nn.softmax(ARMS) @ PAY)
    best = reinforced(lambda r: baselines.moving_average(r, expected))[1]
    assert none > 2 * left_out > 2 * best


@pytest.mark.parametrize("cap", [1e9, 1.0])
def test_importance_ratios_undo_another_policy_unless_truncated(cap):
    def loss(logits, pulls):
        now, old = jax.nn.log_softmax(logits)[pulls], jnp.log(BEHAVIOR)[pulls]
        return likelihood.off_policy(now, old, PAY[pulls], cap=cap)

    mean, _ = moments(loss, BEHAVIOR)
    held = jnp.minimum(jax.nn.softmax(ARMS), cap * BEHAVIOR)  # chance that is left of each arm
    want = held * PAY - jax.nn.softmax(ARMS) * (held @ PAY)
    np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-6)
    assert np.allclose(mean, TRUE, rtol=1e-4, atol=1e-6) == (cap > 1)


# A chain of two tokens: the second state is the first token; all nine texts are enumerated.
FIRST, SECOND = as32(RNG.normal(size=3), RNG.normal(size=(3, 3)))
EARLY, LATE = as32(RNG.normal(size=3) + 2, RNG.normal(size=(3, 3)))
TEXTS = jnp.asarray(list(itertools.product(range(3), repeat=2)))


def log_probs(params, text):
    first, second = params
    return jnp.stack([
        jax.nn.log_softmax(first)[text[0]],
        jax.nn.log_softmax(second[text[0]])[text[1]],
    ])  # fmt: skip


def chain(advantage_of):
    """Mean and summed variance of the policy gradient over all texts, and the true gradient."""
    params = FIRST, SECOND
    pay = lambda text: jnp.stack([EARLY[text[0]], LATE[text[0], text[1]]])
    chance = lambda params: jnp.exp(jax.vmap(lambda t: jnp.sum(log_probs(params, t)))(TEXTS))
    goal = lambda params: chance(params) @ jax.vmap(lambda t: jnp.sum(pay(t)))(TEXTS)
    late = jnp.sum(jax.nn.softmax(SECOND, axis=1) * LATE, axis=1)
    start = jax.nn.softmax(FIRST) @ (EARLY + late)

    def direction(text):
        rewards, values = pay(text), jnp.stack([start, late[text[0]]])
        advantages = advantage_of(rewards[None], values[None], jnp.ones((1, 2)))[0]
        return jax.grad(lambda p: -jnp.sum(policy.policy_gradient(log_probs(p, text), advantages)))(
            params
        )

    flat = lambda tree: jnp.concatenate([x.reshape(*x.shape[:1], -1) for x in tree], axis=1)
    found, weight = flat(jax.jit(jax.vmap(direction))(TEXTS)), chance(params)
    mean = weight @ found
    want = jnp.concatenate([x.ravel() for x in jax.grad(goal)(params)])
    return mean, float(weight @ jnp.sum(jnp.square(found - mean[None]), axis=1)), want


def estimator(decay, values=lambda v: v):
    return lambda rewards, v, mask: returns.gae(rewards, values(v), mask, discount=1.0, decay=decay)


@pytest.mark.parametrize(
    "advantage_of",
    [estimator(decay) for decay in (0.0, 0.5, 1.0)]
    + [estimator(1.0, lambda v: 0 * v), estimator(1.0, lambda v: 0 * v - 3)],
)
def test_gae_keeps_the_true_gradient_of_a_chain(advantage_of):
    """With the true values at every decay, with any values at decay 1."""
    mean, _, want = chain(advantage_of)
    np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-6)


def test_values_order_the_variance_and_wrong_ones_bias_short_traces():
    none, critic = (chain(estimator(1.0, f))[1] for f in (lambda v: 0 * v, lambda v: v))
    short = chain(estimator(0.0))[1]
    assert none > critic > short
    mean, _, want = chain(estimator(0.0, lambda v: 0 * v))
    assert not np.allclose(mean, want, atol=1e-2)
