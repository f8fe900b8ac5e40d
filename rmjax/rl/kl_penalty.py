"""How far a policy is from its reference, in nats, and the KL coefficient.

Legend: *B any axes, N texts. Nothing here has a gradient; `rmjax.losses.policy` has the losses.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Tokens = Float[Array, "*B"]
Scalar = Float[Array, ""]


def k1(log_probs: Tokens, reference_log_probs: Tokens) -> Tokens:
    """d = log p - log p_ref: unbiased for KL(policy || reference) on the policy's samples, of either sign.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return jax.lax.stop_gradient(log_probs - reference_log_probs)


def k2(log_probs: Tokens, reference_log_probs: Tokens) -> Tokens:
    """d^2 / 2: biased, small where the two are near.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return jnp.square(k1(log_probs, reference_log_probs)) / 2


def k3(log_probs: Tokens, reference_log_probs: Tokens) -> Tokens:
    """exp(-d) - 1 + d >= 0: unbiased, of less variance than k1 where the two are near.

    Source: Schulman 2020, "Approximating KL divergence". exp(-d) is at most e^80, which float32 holds.
    """
    d = k1(log_probs, reference_log_probs)
    return jnp.expm1(jnp.minimum(-d, 80.0)) + d


def adapt_beta(
    beta: float | Scalar,
    kl: float | Scalar,
    *,
    episodes: int,
    target: float = 6.0,
    horizon: int = 10_000,
) -> float | Scalar:
    """beta (1 + episodes / horizon clip(kl / target - 1, -0.2, 0.2)): the KL coefficient after an update.

    beta: before, > 0; 0.15 to start with.
    kl: mean over completions of the sum of k1, in nats; sampling may make it negative.
    episodes: completions of the update, over all devices, in (0, 5 horizon).
    target: the divergence aimed at, in nats, > 0.
    Raises: ValueError on numbers outside their range.
    Source: Ziegler et al. 2019 (arXiv:1909.08593) section 2.2; horizon as released, for their K_beta = 0.1.
    """
    if not target > 0:
        raise ValueError(f"target must be positive, got {target}")
    if not 0 < episodes < 5 * horizon:
        raise ValueError(f"episodes must be in (0, 5 horizon = {5 * horizon}), got {episodes}")
    error = jnp.clip(kl / target - 1.0, -0.2, 0.2)
    return beta * (1.0 + error * (episodes / horizon))


def kto_point(log_ratios: Float[Array, " N"]) -> Scalar:
    """max(0, mean of log p - log p_ref): KTO's reference point, in nats.

    log_ratios: of mismatched pairs, each prompt with the completion of another one.
    Raises: ValueError if there are fewer than 2.
    Source: Ethayarajh et al. 2024 (arXiv:2402.01306) section 4.
    """
    if len(log_ratios) < 2:
        raise ValueError(f"mismatched pairs need at least 2 texts, got {len(log_ratios)}")
    return jax.lax.stop_gradient(jnp.maximum(0.0, jnp.mean(jnp.asarray(log_ratios, jnp.float32))))
