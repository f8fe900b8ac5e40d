"""Readings of L_MLE - lambda R: their formulas in float64, and the limits at which each is plain likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rmjax.losses import likelihood
from rmjax.mean import Mean
from rmjax.rl import baselines, weights

RNG = np.random.default_rng(0)
N, K, T = 3, 4, 5  # prompts, completions, tokens
LOG_PROBS = jnp.asarray(RNG.normal(-2, 0.7, (N * K, T)), jnp.float32)
LENGTHS = RNG.integers(1, T + 1, N * K)
MASK = jnp.asarray(np.arange(T) < LENGTHS[:, None], jnp.float32)
REWARDS = jnp.asarray(RNG.normal(size=(N, K)), jnp.float32)
THERE = jnp.ones((N, K), bool)
NATS = np.sum(-np.asarray(LOG_PROBS, np.float64) * np.asarray(MASK), axis=1)  # S of each text


def on_tokens(per_text):
    """A number of each text, repeated on its tokens; 0 on padding."""
    return jnp.reshape(per_text, (N * K, 1)) * MASK


def mean(loss, weight, *arrays, **options):
    """The value that the step minimizes, and its gradient in the log-probabilities."""
    total = lambda log_probs: Mean.of(loss(log_probs, *arrays, **options), weight).value
    return jax.value_and_grad(total)(LOG_PROBS)


def plain(mask):
    return mean(likelihood.mle, mask, mask)


def weighted(per_text):
    weight = on_tokens(per_text)
    return mean(likelihood.reward_weighted, weight, weight)


def same(got, want, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, 1e-7), got, want)


def test_mle_is_the_token_mean():
    value, grad = plain(MASK)
    assert value == pytest.approx(NATS.sum() / LENGTHS.sum(), rel=1e-6)
    np.testing.assert_allclose(grad, -MASK / LENGTHS.sum(), rtol=1e-6)


@pytest.mark.parametrize("cap", [20.0, 1.5])
def test_reward_weighted_divides_weighted_nats_by_weighted_tokens(cap):
    w = np.minimum(np.exp((np.asarray(REWARDS, np.float64) - 0.3) / 0.5), cap).ravel()
    got = weighted(weights.exp_weights(REWARDS, beta=0.5, baseline=0.3, cap=cap))
    assert got[0] == pytest.approx((w @ NATS) / (w @ LENGTHS), rel=1e-5)


def test_reward_weighted_is_mle_at_infinite_temperature():
    same(weighted(weights.exp_weights(REWARDS, beta=1e9)), plain(MASK))


def test_raml_is_mle_of_the_dataset_where_its_text_is_uniquely_best_and_the_temperature_falls():
    q = special.softmax(np.asarray(REWARDS, np.float64) / 0.7, axis=1).ravel()
    got = weighted(weights.boltzmann_weights(REWARDS, THERE, temperature=0.7))
    assert got[0] == pytest.approx((q @ NATS) / (q @ LENGTHS), rel=1e-5)
    rewards = REWARDS.at[:, 1].set(5.0)  # the dataset's text
    sampled = jnp.asarray(RNG.normal(-9, 2, (N, K)), jnp.float32)
    dataset = on_tokens(jnp.zeros((N, K)).at[:, 1].set(1.0))
    for cold in (
        weights.boltzmann_weights(rewards, THERE, temperature=1e-2),
        weights.raml_weights(rewards, THERE, sampled, temperature=1e-2),
    ):
        same(weighted(cold), plain(dataset))
    same(weighted(weights.boltzmann_weights(rewards, THERE, temperature=1e9)), plain(MASK))


def test_filtered_is_mle_of_what_is_kept():
    best = np.asarray(REWARDS) == np.max(REWARDS, axis=1, keepdims=True)
    same(weighted(weights.keep_best(REWARDS, THERE)), plain(on_tokens(jnp.asarray(best))))
    same(weighted(weights.keep_above(REWARDS, THERE, quantile=0.0)), plain(MASK))
    one = jnp.reshape(REWARDS, (N * K, 1))  # the dataset's texts, each its prompt's only candidate
    same(weighted(weights.keep_best(one, jnp.ones_like(one, bool))), plain(MASK))


@pytest.mark.parametrize("coef", [0.0, 0.4, 3.0])
def test_linear_weights_never_push_a_text_away(coef):
    rewards = np.asarray(REWARDS, np.float64).ravel()
    standard = (rewards - rewards.mean()) / rewards.std()
    w = np.maximum(0, 1 + coef * standard)
    assert coef < 1 or np.any(w == 0)
    given = on_tokens(baselines.standardize(REWARDS))
    got = mean(likelihood.linear_weighted, MASK, given, coef=coef)
    assert got[0] == pytest.approx((w @ NATS) / LENGTHS.sum(), rel=1e-5)
    np.testing.assert_allclose(got[1], -w[:, None] * MASK / LENGTHS.sum(), rtol=1e-4, atol=1e-8)
    if coef == 0:
        same(got, plain(MASK))


def test_off_policy_truncates_the_ratio_and_does_not_differentiate_it():
    now, old = jnp.asarray([-5.0, -5.0, -5.0, -5.0]), jnp.asarray([-4.0, -6.0, -5.0, 995.0])
    advantage = jnp.asarray([2.0, 2.0, -1.0, 1.0])
    for cap, ratio in ((1.0, [np.exp(-1), 1, 1, 0]), (1e9, [np.exp(-1), np.e, 1, 0])):
        loss = lambda now, old, a, cap=cap: likelihood.off_policy(now, old, a, cap=cap)
        value = loss(now, old, advantage)
        np.testing.assert_allclose(value, -np.array(ratio) * advantage * now, rtol=1e-5)
        grads = jax.grad(lambda *x: jnp.sum(loss(*x)), argnums=(0, 1, 2))(now, old, advantage)  # noqa: B023
        np.testing.assert_allclose(grads[0], -np.array(ratio) * advantage, rtol=1e-5)
        assert not np.any(grads[1]) and not np.any(grads[2])


def test_minimum_risk_is_the_expected_reward_of_the_tempered_candidates():
    log_probs, mask = RNG.normal(-20, 9, (N, K)), RNG.uniform(size=(N, K)) < 0.7
    mask[0] = [True, True, False, True]
    mask[2] = False
    rewards = np.asarray(REWARDS, np.float64)

    def reference(log_probs, alpha):
        weight = np.where(mask, np.exp(alpha * log_probs), 0)
        share = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        return -np.sum(share * rewards, axis=1)

    for alpha in (5e-3, 1.0):
        spoiled = jnp.where(mask, REWARDS, jnp.nan)
        loss = lambda x, alpha=alpha, r=spoiled: likelihood.minimum_risk(
            x, r, jnp.asarray(mask), alpha=alpha
        )
        given = jnp.asarray(log_probs, jnp.float32)
        np.testing.assert_allclose(loss(given), reference(log_probs, alpha), rtol=2e-5, atol=1e-7)
        grad = jax.grad(lambda x: jnp.sum(loss(x)))(given)  # noqa: B023
        for i in range(N):
            for k in range(K):
                step = np.zeros((N, K))
                step[i, k] = 1e-4
                ahead, behind = (
                    reference(log_probs + step, alpha),
                    reference(log_probs - step, alpha),
                )
                want = np.sum(ahead - behind) / 2e-4
                np.testing.assert_allclose(grad[i, k], want, rtol=1e-3, atol=1e-6)
    assert np.allclose(reference(log_probs, 1.0)[2], 0)  # a prompt without candidates


def test_minimum_risk_needs_a_positive_sharpness():
    with pytest.raises(ValueError, match="alpha must be positive, got 0.0"):
        likelihood.minimum_risk(REWARDS, REWARDS, THERE, alpha=0.0)
