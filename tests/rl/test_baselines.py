"""Baselines and whitening against their definitions in float64, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.rl import baselines

RNG = np.random.default_rng(0)
REWARDS = RNG.normal(2, 3, (5, 6))
REWARDS[1] = 2.3  # a group of equal rewards, whose mean rounds
GIVEN = jnp.asarray(REWARDS, jnp.float32)
N, K = REWARDS.shape


def normalized(rewards):
    centered = rewards - rewards.mean(axis=1, keepdims=True)
    return centered / (np.sqrt((centered**2).sum(axis=1, keepdims=True) / (K - 1)) + 1e-4)


def others(rewards):
    return np.array([
        [row[k] - np.mean([row[j] for j in range(K) if j != k]) for k in range(K)] for row in rewards
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("baseline", "want"),
    [
        (baselines.no_baseline, REWARDS),
        (baselines.batch_mean, REWARDS - REWARDS.mean()),
        (baselines.leave_one_out, others(REWARDS)),
        (baselines.group_normalized, normalized(REWARDS)),
        (baselines.group_centered, REWARDS - REWARDS.mean(axis=1, keepdims=True)),
        (lambda rewards: baselines.moving_average(rewards, 1.5), REWARDS - 1.5),
    ],
)
def test_each_baseline_is_its_definition_and_a_constant(baseline, want):
    np.testing.assert_allclose(baseline(GIVEN), want, rtol=1e-4, atol=1e-6)
    assert not np.any(jax.grad(lambda r: jnp.sum(baseline(r) ** 2))(GIVEN))


GROUPED = (baselines.leave_one_out, baselines.group_normalized, baselines.group_centered)


@pytest.mark.parametrize("baseline", GROUPED)
def test_groups_do_not_see_each_other_and_equal_rewards_teach_nothing(baseline):
    got = baseline(GIVEN)
    assert not np.any(got[1])
    np.testing.assert_array_equal(baseline(GIVEN.at[0].set(99.0))[2:], got[2:])
    with pytest.raises(ValueError, match="at least 2 completions of a prompt, got 1"):
        baseline(GIVEN[:, :1])


def test_dr_grpo_is_a_share_of_rloo():
    want = (K - 1) / K * baselines.leave_one_out(GIVEN)
    np.testing.assert_allclose(baselines.group_centered(GIVEN), want, rtol=1e-5)


def test_the_average_moves_after_a_batch():
    average = baselines.update_average(0.0, GIVEN, decay=0.8)
    average = baselines.update_average(average, GIVEN + 1, decay=0.8)
    want = 0.8 * 0.2 * REWARDS.mean() + 0.2 * (REWARDS.mean() + 1)
    assert float(average) == pytest.approx(want, rel=1e-5)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
        baselines.update_average(0.0, GIVEN, decay=1.0)


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_is_over_the_mask_with_a_biased_variance(shift_mean):
    mask = RNG.uniform(size=(N, K)) < 0.6
    seen = REWARDS[mask]
    want = (REWARDS - seen.mean()) / np.sqrt(seen.var() + 1e-8) + (0 if shift_mean else seen.mean())
    spoiled = jnp.where(mask, GIVEN, jnp.nan)
    got = baselines.whiten(spoiled, jnp.asarray(mask, jnp.float32), shift_mean=shift_mean)
    np.testing.assert_allclose(got, np.where(mask, want, 0), rtol=1e-5, atol=1e-6)
    assert not np.any(baselines.whiten(spoiled, jnp.zeros((N, K)), shift_mean=shift_mean))


def test_standardized_rewards_have_mean_zero_and_variance_one():
    want = (REWARDS - REWARDS.mean()) / REWARDS.std()
    np.testing.assert_allclose(baselines.standardize(GIVEN), want, rtol=1e-5, atol=1e-6)
    assert not np.any(baselines.standardize(jnp.full(8, 3.0)))
