"""Losses of a policy on texts it sampled: policy gradients, value errors, entropy and divergences.

Legend: *B any axes, tokens [R, L] or texts [R, P] as each loss says; L tokens and P texts of a packed row. Advantages,
returns, targets and whatever an older policy or critic said have no gradient. All log-probabilities are in nats.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmjax.losses import ranges, shapes

Tokens = Float[Array, "*B"]
Texts = Float[Array, "*B"]
RowTokens = Float[Array, "*B L"]
RowTexts = Float[Array, "*B P"]

_FAR = 20.0  # log-ratio past which exp goes on along its tangent; a ratio of 5e8 is met by no run that works


def reinforce(sequence_log_probs: Texts, advantage: Texts) -> Texts:
    """-A log p of a whole text; with the leave-one-out baseline of `rmjax.rl.baselines` it is RLOO.

    advantage: A = R - beta sum of k1 - baseline, the baseline free of the text's own sample.
    Source: Williams 1992; RLOO: Ahmadian et al. 2024 (arXiv:2402.14740).
    """
    shapes.same(sequence_log_probs=sequence_log_probs, advantage=advantage)
    return -jax.lax.stop_gradient(advantage) * sequence_log_probs


def policy_gradient(log_probs: Tokens, advantages: Tokens) -> Tokens:
    """-A_t log p_t of each token: the actor's part of actor-critic.

    The whole loss is such as "policy_gradient() + 0.1 * squared_value() + 0.01 * negative_entropy()".
    Source: Sutton et al. 1999; Mnih et al. 2016 (arXiv:1602.01783).
    """
    shapes.same(log_probs=log_probs, advantages=advantages)
    return -jax.lax.stop_gradient(advantages) * log_probs


def squared_value(values: Tokens, returns: Tokens) -> Tokens:
    """(V - G)^2 / 2 of each token, in squared reward units.

    Source: Mnih et al. 2016 (arXiv:1602.01783).
    """
    shapes.same(values=values, returns=returns)
    return jnp.square(values - jax.lax.stop_gradient(returns)) / 2


def clipped_value(
    values: Tokens, old_values: Tokens, returns: Tokens, *, clip: float = 0.2
) -> Tokens:
    """max((V - G)^2, (V' - G)^2) / 2, V' = V_old + clip(V - V_old, -clip, clip), in squared reward units.

    old_values: of the critic that the advantages came from.
    clip: how far V may go from V_old and still gain by it, in reward units, > 0.
    Raises: ValueError if clip is not positive.
    Source: PPO's released code (Dhariwal et al. 2017); Ziegler et al. 2019 (arXiv:1909.08593).
    """
    ranges.positive(clip=clip)
    shapes.same(values=values, old_values=old_values, returns=returns)
    old_values, returns = jax.lax.stop_gradient((old_values, returns))
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    return jnp.maximum(jnp.square(values - returns), jnp.square(near - returns)) / 2


def negative_entropy(entropy: Tokens) -> Tokens:
    """-H of the next-token distribution, in nats; a positive coefficient in the objective keeps the policy random.

    Source: Williams & Peng 1991; Mnih et al. 2016 (arXiv:1602.01783).
    """
    return -entropy


def ppo(
    log_probs: Tokens, old_log_probs: Tokens, advantages: Tokens, *, clip: float = 0.2
) -> Tokens:
    """max(-A rho, -A clip(rho, 1 - clip, 1 + clip)) of each token, rho = p / p_old.

    The whole loss is "ppo() + 0.1 * clipped_value()" with whitened advantages.
    clip: > 0. Ratios above e^20 go on along the tangent, so that none overflows.
    Raises: ValueError if clip is not positive.
    Source: Schulman et al. 2017 (arXiv:1707.06347) eq. 7; the tangent is ours.
    """
    shapes.same(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages)
    return _surrogate(log_probs, old_log_probs, advantages, clip)


def grpo(
    log_probs: RowTokens,
    old_log_probs: RowTokens,
    reference_log_probs: RowTokens,
    advantage: RowTexts,
    text_of: Int[Array, "*B L"],
    lengths: RowTexts,
    *,
    clip: float = 0.2,
    beta: float = 0.04,
) -> RowTexts:
    """Mean over each text's tokens of PPO's clipped loss + beta k3; one value a text.

    advantage: of the text, normalized in its group (`group_normalized` of `rmjax.rl.baselines`).
    text_of: which of the row's P texts a token belongs to; P for padding.
    lengths: tokens of each text that count.
    beta: weight of the divergence from the reference, >= 0. k3's gradient is that of the forward KL: see `kl_k3`.
    Raises: ValueError if clip is not positive or beta negative.
    Source: Shao et al. 2024 (DeepSeekMath, arXiv:2402.03300) eq. 3.
    """
    ranges.not_negative(beta=beta)
    shapes.same(reference_log_probs=reference_log_probs, log_probs=log_probs)
    shapes.same(lengths=lengths, advantage=advantage)
    value = _row_surrogate(log_probs, old_log_probs, advantage, text_of, clip)
    value += beta * kl_k3(log_probs, reference_log_probs)
    return shapes.sum_per_text(value, text_of, advantage.shape[-1]) / jnp.maximum(lengths, 1.0)


def dr_grpo(
    log_probs: RowTokens,
    old_log_probs: RowTokens,
    advantage: RowTexts,
    text_of: Int[Array, "*B L"],
    *,
    max_length: int,
    clip: float = 0.2,
) -> RowTexts:
    """Sum over each text's tokens of PPO's clipped loss / max_length: long texts are not favored; one value a text.

    advantage: of the text, R - mean of its group (`group_centered` of `rmjax.rl.baselines`).
    text_of: as in `grpo`.
    max_length: most tokens that sampling lets a text have, >= 1; the same for all texts.
    Raises: ValueError if clip or max_length is not positive.
    Source: Liu et al. 2025 (arXiv:2503.20783) section 3.2.
    """
    ranges.positive(max_length=max_length)
    value = _row_surrogate(log_probs, old_log_probs, advantage, text_of, clip)
    return shapes.sum_per_text(value, text_of, advantage.shape[-1]) / max_length


def q_error(q: Tokens, q_target: Tokens) -> Tokens:
    """(Q(s_t, a_t) - y_t)^2 / 2 of each token, in squared reward units.

    q_target: y, such as `expected_sarsa` of `rmjax.rl.returns`.
    Source: van Seijen et al. 2009 (expected SARSA).
    """
    shapes.same(q=q, q_target=q_target)
    return jnp.square(q - jax.lax.stop_gradient(q_target)) / 2


def kl_k1(log_probs: Tokens, reference_log_probs: Tokens) -> Tokens:
    """d = log p - log p_ref of each token, whose mean over the policy's own samples is KL(policy || reference).

    As a loss it does nothing but add noise: its gradient is grad log p, whose mean over the policy's own samples is 0.
    It belongs in the reward (`token_rewards` of `rmjax.rl.returns`).
    Source: Schulman 2020, "Approximating KL divergence".
    """
    return _log_ratio(log_probs, reference_log_probs)


def kl_k2(log_probs: Tokens, reference_log_probs: Tokens) -> Tokens:
    """d^2 / 2, d = log p - log p_ref of each token; a biased estimate of the KL.

    As a loss its gradient is d grad log p, whose mean over the policy's own samples is the gradient of
    KL(policy || reference): biased in value, right in gradient.
    Source: Schulman 2020, "Approximating KL divergence".
    """
    return jnp.square(_log_ratio(log_probs, reference_log_probs)) / 2


def kl_k3(log_probs: Tokens, reference_log_probs: Tokens) -> Tokens:
    """exp(-d) - 1 + d >= 0, d = log p - log p_ref of each token; its mean is KL(policy || reference).

    As a loss its gradient is (1 - exp(-d)) grad log p, whose mean over the policy's own samples is the gradient of the
    other one, KL(reference || policy), = -E_ref grad log p: right in value, and in gradient of another divergence.
    Source: Schulman 2020, "Approximating KL divergence"; GRPO (Shao et al. 2024) has it in the loss. Beyond d = -20 it
      goes on along its tangent, which is ours.
    """
    d = _log_ratio(log_probs, reference_log_probs)
    return _expm1(-d) + d


def _row_surrogate(
    log_probs: RowTokens,
    old_log_probs: RowTokens,
    advantage: RowTexts,
    text_of: Int[Array, "*B L"],
    clip: float,
) -> RowTokens:
    shapes.same(log_probs=log_probs, old_log_probs=old_log_probs, text_of=text_of)
    shapes.same(log_probs=log_probs[..., 0], advantage=advantage[..., 0])
    advantages = shapes.repeat_per_token(advantage, text_of)
    return _surrogate(log_probs, old_log_probs, advantages, clip)


def _surrogate(log_probs: Tokens, old_log_probs: Tokens, advantages: Tokens, clip: float) -> Tokens:
    ranges.positive(clip=clip)
    old_log_probs, advantages = jax.lax.stop_gradient((old_log_probs, advantages))
    ratio = 1.0 + _expm1(log_probs - old_log_probs)
    return jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, 1 - clip, 1 + clip))


def _log_ratio(log_probs: Tokens, reference_log_probs: Tokens) -> Tokens:
    shapes.same(log_probs=log_probs, reference_log_probs=reference_log_probs)
    return log_probs - jax.lax.stop_gradient(reference_log_probs)


def _expm1(x: Tokens) -> Tokens:
    """exp(x) - 1, beyond `_FAR` its tangent."""
    inside = jnp.minimum(x, _FAR)
    return jnp.expm1(inside) + jnp.exp(inside) * (x - inside)
