"""Weights of likelihood against their definitions, and what the candidates that are not there change: nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rmjax.rl import weights

RNG = np.random.default_rng(0)
REWARDS = RNG.normal(size=(4, 5))
SAMPLED = RNG.normal(-9, 3, (4, 5))
MASK = RNG.uniform(size=(4, 5)) < 0.7
MASK[0], MASK[3] = True, False
GIVEN = jnp.asarray(np.where(MASK, REWARDS, np.nan), jnp.float32)
THERE = jnp.asarray(MASK)


def test_exp_weights_are_capped_in_log_space():
    rewards = jnp.asarray([-1000.0, -1.0, 0.5, 3.0, 1000.0])
    got = weights.exp_weights(rewards, beta=0.5, baseline=0.5, cap=20.0)
    np.testing.assert_allclose(got, [0, np.exp(-3), 1, 20, 20], rtol=1e-5)
    assert not np.any(jax.grad(lambda r: jnp.sum(weights.exp_weights(r, beta=1.0)))(rewards))
    for options in ({"beta": 0.0}, {"beta": 1.0, "cap": 0.0}):
        with pytest.raises(ValueError, match="beta and cap must be positive"):
            weights.exp_weights(rewards, **options)


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_boltzmann_weights_are_a_distribution_over_each_prompts_candidates(temperature):
    for sampled in (None, SAMPLED):
        level = REWARDS / temperature - (0 if sampled is None else sampled)
        want = np.zeros_like(level)
        for row, there, to in zip(level[:3], MASK[:3], want[:3], strict=True):  # the last has none
            to[there] = special.softmax(row[there])
        if sampled is None:
            got = weights.boltzmann_weights(GIVEN, THERE, temperature=temperature)
        else:
            proposal = jnp.asarray(sampled, jnp.float32)
            got = weights.raml_weights(GIVEN, THERE, proposal, temperature=temperature)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(got.sum(axis=1), [1, 1, 1, 0], rtol=1e-5)
    with pytest.raises(ValueError, match="temperature must be positive"):
        weights.boltzmann_weights(GIVEN, THERE, temperature=0.0)


def test_raml_recovers_its_target_from_any_proposal():
    """Enumerated: each text counts as often as it is proposed, so weights of exp(R) / s average to softmax(R)."""
    rewards, log_s = REWARDS[0], special.log_softmax(SAMPLED[0])
    drawn = RNG.choice(5, size=20_000, p=np.exp(log_s))
    pick = lambda x: jnp.asarray(x[drawn][None], jnp.float32)
    every = jnp.ones((1, drawn.size), bool)
    got = weights.raml_weights(pick(rewards), every, pick(log_s), temperature=1.0)[0]
    seen = np.bincount(drawn, got, minlength=5)
    np.testing.assert_allclose(seen, special.softmax(rewards), atol=0.05)
    without = np.bincount(
        drawn, weights.boltzmann_weights(pick(rewards), every, temperature=1.0)[0], 5
    )
    np.testing.assert_allclose(without, special.softmax(rewards + log_s), atol=0.02)


def test_the_best_is_one_candidate_of_each_prompt():
    best = np.asarray(weights.keep_best(GIVEN, THERE))
    assert best.sum(axis=1).tolist() == [1, 1, 1, 0]
    for row, there, to in zip(REWARDS[:3], MASK[:3], best[:3], strict=True):
        assert row[to == 1] == row[there].max()
    tied = jnp.asarray([[1.0, 2.0, 2.0]])
    np.testing.assert_array_equal(weights.keep_best(tied, jnp.ones_like(tied, bool)), [[0, 1, 0]])


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9])
def test_a_quantile_is_over_all_that_is_there(quantile):
    least = np.quantile(REWARDS[MASK], quantile)
    got = weights.keep_above(GIVEN, THERE, quantile=quantile)
    np.testing.assert_array_equal(got, MASK & np.greater_equal(REWARDS, least - 1e-6))
    if quantile == 0:
        np.testing.assert_array_equal(got, MASK)


def test_a_quantile_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match=r"quantile must be in \[0, 1\), got 1.0"):
        weights.keep_above(GIVEN, THERE, quantile=1.0)
