"""Policy losses against their formulas text by text, and the gradients that divergences have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.losses import policy

RNG = np.random.default_rng(0)
# Two rows of seven tokens hold up to three texts; one text is empty, text 3 is padding.
TEXT_OF = np.array([[0, 0, 0, 1, 2, 2, 3], [1, 1, 0, 0, 3, 3, 3]], np.int32)
R, L, P = 2, 7, 3
OLD, REFERENCE = RNG.normal(-2, 0.5, (2, R, L))
NOW = OLD + RNG.normal(0, 0.3, (R, L))
ADVANTAGE = RNG.normal(size=(R, P))
LENGTHS = np.array([[np.sum(row == p) for p in range(P)] for row in TEXT_OF], float)
as32 = lambda *arrays: [jnp.asarray(x, jnp.float32) for x in arrays]


def surrogate(now, old, advantage, clip):
    ratio = np.exp(now - old)
    return np.maximum(-advantage * ratio, -advantage * np.clip(ratio, 1 - clip, 1 + clip))


def slopes(reference, x):
    """Central differences of a sum, entry by entry."""
    steps = np.eye(x.size).reshape(x.size, *x.shape) * 1e-6
    found = [(np.sum(reference(x + s)) - np.sum(reference(x - s))) / 2e-6 for s in steps]
    return np.reshape(found, x.shape)


def check(loss, reference, x, rtol=1e-4):
    """Value and gradient in x."""
    given = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(loss(given), reference(x), rtol=rtol, atol=1e-6)
    grad = jax.grad(lambda x: jnp.sum(loss(x)))(given)
    np.testing.assert_allclose(grad, slopes(reference, x), rtol=2e-3, atol=1e-5)


def no_gradient(loss, *arrays):
    """All arrays but the first are constants to the loss."""
    others = tuple(range(1, len(arrays)))
    grads = jax.grad(lambda *x: jnp.sum(loss(*x)), argnums=others)(*as32(*arrays))
    assert not any(np.any(g) for g in grads)


@pytest.mark.parametrize("loss", [policy.reinforce, policy.policy_gradient])
def test_the_advantage_weighs_the_log_probability(loss):
    advantage = RNG.normal(size=(R, L))
    check(lambda x: loss(x, *as32(advantage)), lambda x: -advantage * x, NOW)
    no_gradient(loss, NOW, advantage)


def test_ppo_clips_gains_and_not_losses():
    advantage = RNG.normal(size=(R, L))
    wide = OLD + RNG.normal(0, 0.8, (R, L))
    check(
        lambda x: policy.ppo(x, *as32(OLD, advantage), clip=0.3),
        lambda x: surrogate(x, OLD, advantage, 0.3),
        wide,
    )
    no_gradient(policy.ppo, wide, OLD, advantage)
    ratios = jnp.log(jnp.asarray([1.5, 0.5, 1.5, 0.5]))
    signs = jnp.asarray([1.0, 1.0, -1.0, -1.0])
    slope = jax.grad(lambda x: jnp.sum(policy.ppo(x, jnp.zeros(4), signs)))(ratios)
    np.testing.assert_allclose(slope, [0, -0.5, 1.5, 0], rtol=1e-6)


def test_ppo_on_its_own_samples_is_the_policy_gradient():
    now, advantage = as32(NOW, RNG.normal(size=(R, L)))
    got = jax.grad(lambda x: jnp.sum(policy.ppo(x, now, advantage)))(now)
    np.testing.assert_allclose(got, -advantage, rtol=1e-6)


def per_text(values, text_of):
    return np.array(
        [[v[t == p].sum() for p in range(P)] for v, t in zip(values, text_of, strict=True)]
    )


def grpo(now, clip, beta):
    d = now - REFERENCE
    wide = np.concatenate([ADVANTAGE, np.zeros((R, 1))], axis=1)
    advantage = np.take_along_axis(wide, TEXT_OF, axis=1)
    token = surrogate(now, OLD, advantage, clip) + beta * (np.exp(-d) - 1 + d)
    return per_text(token, TEXT_OF) / np.maximum(LENGTHS, 1)


@pytest.mark.parametrize(("clip", "beta"), [(0.2, 0.04), (0.1, 0.0), (0.3, 1.0)])
def test_grpo_is_a_mean_of_each_text(clip, beta):
    others = as32(OLD, REFERENCE, ADVANTAGE)
    tail = jnp.asarray(TEXT_OF), *as32(LENGTHS)
    loss = lambda x: policy.grpo(x, *others, *tail, clip=clip, beta=beta)
    check(loss, lambda x: grpo(x, clip, beta), NOW)
    assert loss(*as32(NOW))[1, 2] == 0  # a text without tokens


def test_dr_grpo_is_a_sum_of_each_text_over_a_constant():
    loss = lambda x: policy.dr_grpo(
        x, *as32(OLD, ADVANTAGE), jnp.asarray(TEXT_OF), max_length=10, clip=0.2
    )
    check(loss, lambda x: grpo(x, 0.2, 0.0) * LENGTHS / 10, NOW)


def test_what_pads_a_row_changes_neither_value_nor_gradient():
    pad = TEXT_OF == P
    tail = *as32(ADVANTAGE), jnp.asarray(TEXT_OF)

    def both(junk):
        old, reference, now = as32(OLD, REFERENCE, np.where(pad, junk, NOW))
        loss = lambda x: policy.grpo(x, old, reference, *tail, *as32(LENGTHS))
        return loss(now), jax.grad(lambda x: jnp.sum(loss(x)))(now)

    want = both(0.0)
    assert not np.any(want[1][pad])
    for junk in (-1000.0, 1000.0):
        jax.tree.map(np.testing.assert_array_equal, both(junk), want)


def test_a_ratio_out_of_range_pulls_the_policy_back_with_a_finite_gradient():
    far = jnp.asarray([1000.0, -1000.0])
    slope = lambda loss: jax.grad(lambda x: jnp.sum(loss(x)))(far)
    worse = slope(lambda x: policy.ppo(x, jnp.zeros(2), -jnp.ones(2)))
    assert np.all(np.isfinite(worse)) and worse[0] > 1e8 and worse[1] == 0
    apart = slope(lambda x: policy.kl_k3(x, jnp.zeros(2)))
    assert np.all(np.isfinite(apart)) and apart[0] == 1 and apart[1] < -1e8


def test_values_are_pulled_to_their_returns():
    values, old, target = RNG.normal(size=(3, R, L))
    check(lambda v: policy.squared_value(v, *as32(target)), lambda v: (v - target) ** 2 / 2, values)
    no_gradient(policy.squared_value, values, target)

    def clipped(v):
        near = old + np.clip(v - old, -0.3, 0.3)
        return np.maximum((v - target) ** 2, (near - target) ** 2) / 2

    check(lambda v: policy.clipped_value(v, *as32(old, target), clip=0.3), clipped, values)
    no_gradient(policy.clipped_value, values, old, target)
    check(lambda q: policy.q_error(q, *as32(target)), lambda q: (q - target) ** 2 / 2, values)
    no_gradient(policy.q_error, values, target)
    # Section 7's worked figure: R = 0.68 against an estimate of 0.70.
    at = as32(0.70, 0.68)
    np.testing.assert_allclose(policy.squared_value(*at), 2e-4, rtol=1e-4)


def test_entropy_is_negated():
    np.testing.assert_array_equal(policy.negative_entropy(jnp.asarray([0.5, 2.0])), [-0.5, -2.0])


LOGITS, OTHER = as32(*RNG.normal(size=(2, 5)))


def kl(p, q):
    return jnp.sum(jnp.exp(p) * (p - q))


@pytest.mark.parametrize(
    ("loss", "divergence"),
    [
        (policy.kl_k1, lambda p, q: 0.0 * jnp.sum(p)),
        (policy.kl_k2, kl),
        (policy.kl_k3, lambda p, q: kl(q, p)),
    ],
)
def test_expected_gradients_of_the_divergences(loss, divergence):
    reference = jax.nn.log_softmax(OTHER)
    chance = jax.nn.softmax(LOGITS)
    expected = lambda x: jnp.sum(chance * loss(jax.nn.log_softmax(x), reference))
    want = jax.grad(lambda x: divergence(jax.nn.log_softmax(x), reference))(LOGITS)
    np.testing.assert_allclose(jax.grad(expected)(LOGITS), want, rtol=1e-4, atol=1e-6)
    no_gradient(loss, np.asarray(LOGITS), np.asarray(OTHER))
    mean = float(expected(LOGITS))  # k1 and k3 estimate KL(policy || reference) itself
    near = mean == pytest.approx(float(kl(jax.nn.log_softmax(LOGITS), reference)), rel=1e-5)
    assert near == (loss is not policy.kl_k2)
