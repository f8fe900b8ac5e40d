"""Rewards of whole completions, less a baseline, as advantages; whitening.

Legend: N prompts, K completions of each, *B any axes. All statistics are over the whole array: give the global batch.
Nothing here has a gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Rewards = Float[Array, "N K"]
Scalar = Float[Array, ""]


def no_baseline(rewards: Rewards) -> Rewards:
    """The rewards themselves.

    Source: Williams 1992.
    """
    return jax.lax.stop_gradient(rewards)


def batch_mean(rewards: Rewards) -> Rewards:
    """R less the mean of all N K rewards, the sample's own among them: the gradient is 1 - 1 / (N K) of the true one.

    Source: Williams 1992; the factor is that of `group_centered` with one group.
    """
    rewards = jax.lax.stop_gradient(rewards)
    return rewards - jnp.mean(rewards)


def leave_one_out(rewards: Rewards) -> Rewards:
    """R less the mean of the other completions of its prompt: K / (K - 1) (R - mean); unbiased.

    Raises: ValueError if K < 2.
    Source: Kool et al. 2019; Ahmadian et al. 2024 (RLOO, arXiv:2402.14740).
    """
    k = _several(rewards)
    return _centered(rewards) * (k / (k - 1))


def group_normalized(rewards: Rewards) -> Rewards:
    """(R - mean) / (s + 1e-4) in each group, s the deviation with K - 1 below; 0 where all rewards are equal.

    Raises: ValueError if K < 2.
    Source: Shao et al. 2024 (GRPO, arXiv:2402.03300); K - 1 and 1e-4 as in common implementations.
    """
    _several(rewards)
    deviation = jnp.std(jax.lax.stop_gradient(rewards), axis=1, ddof=1, keepdims=True)
    return _centered(rewards) / (deviation + 1e-4)


def group_centered(rewards: Rewards) -> Rewards:
    """R less the mean of its group, itself among them: (K - 1) / K of `leave_one_out`.

    Raises: ValueError if K < 2.
    Source: Liu et al. 2025 (Dr. GRPO, arXiv:2503.20783).
    """
    _several(rewards)
    return _centered(rewards)


def moving_average(rewards: Rewards, average: float | Scalar) -> Rewards:
    """R less the average of earlier batches, as `update_average` keeps it; unbiased.

    Source: Williams 1992 (reinforcement comparison); Ranzato et al. 2016 (arXiv:1511.06732).
    """
    return jax.lax.stop_gradient(rewards) - average


def update_average(
    average: float | Scalar, rewards: Float[Array, "*B"], *, decay: float = 0.9
) -> Scalar:
    """decay * average + (1 - decay) * mean(rewards): after the batch has been used.

    average: before the first batch, a guess such as the mean reward of the reference policy.
    decay: in [0, 1).
    Raises: ValueError if decay is outside.
    Source: exponential smoothing, Brown 1956.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    return decay * average + (1 - decay) * jnp.mean(jax.lax.stop_gradient(rewards))


def whiten(
    values: Float[Array, "*B"], mask: Float[Array, "*B"], *, shift_mean: bool = True
) -> Float[Array, "*B"]:
    """(x - mean) / sqrt(variance + 1e-8) over the entries of mask 1, the variance biased; 0 elsewhere.

    shift_mean: False keeps the mean as it was (for rewards, whose sign matters).
    Source: Ziegler et al. 2019 (arXiv:1909.08593), released code.
    """
    seen = mask > 0
    values = jnp.where(seen, jax.lax.stop_gradient(values), 0.0)
    count = jnp.maximum(jnp.sum(seen, dtype=jnp.float32), 1.0)
    mean = jnp.sum(values) / count
    centered = jnp.where(seen, values - mean, 0.0)
    scaled = centered * jax.lax.rsqrt(jnp.sum(jnp.square(centered)) / count + 1e-8)
    return scaled if shift_mean else jnp.where(seen, scaled + mean, 0.0)


def standardize(rewards: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Rewards with mean 0 and biased variance 1 over the batch; 0 where all are equal.

    Source: Peng et al. 2019 (arXiv:1910.00177) for weights of likelihood.
    """
    return whiten(rewards, jnp.ones_like(rewards))


def _several(rewards: Rewards) -> int:
    k = rewards.shape[1]
    if k < 2:
        raise ValueError(f"a group needs at least 2 completions of a prompt, got {k}")
    return k


def _centered(rewards: Rewards) -> Rewards:
    """Less the group's mean; exactly 0 where all are equal, which rounding of the mean would not give."""
    rewards = jax.lax.stop_gradient(rewards)
    equal = jnp.max(rewards, axis=1, keepdims=True) == jnp.min(rewards, axis=1, keepdims=True)
    return jnp.where(equal, 0.0, rewards - jnp.mean(rewards, axis=1, keepdims=True))
