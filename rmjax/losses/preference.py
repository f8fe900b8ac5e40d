"""Losses of a policy on pairs of completions, or on single ones called good or bad; one value a pair or text, in nats.

A policy's log-probability, less the reference's, is a reward up to a function of the prompt, so most of these are the
losses of `pairwise` on it. Legend: *B any axes, pairs [R, Q] or texts [R, P] as each loss says. chosen_log_probs,
rejected_log_probs: log p of the whole completion, a sum over its tokens; chosen_reference, rejected_reference:
the same under the reference, without gradient; chosen_lengths, rejected_lengths: their tokens, at least 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmjax.losses import pairwise, ranges, shapes

Pairs = Float[Array, "*B"]
Texts = Float[Array, "*B"]


def dpo(
    chosen_log_probs: Pairs,
    rejected_log_probs: Pairs,
    chosen_reference: Pairs,
    rejected_reference: Pairs,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Pairs:
    """`bradley_terry` of the rewards beta * (log p - log p_ref); log 2 where the policy is the reference.

    beta: weight of the KL to the reference in the problem whose optimum this is, > 0.
    label_smoothing: probability that a label is flipped, in [0, 0.5).
    Raises: ValueError on hyperparameters outside their range.
    Source: Rafailov et al. 2023 (arXiv:2305.18290) eq. 7; smoothing: Mitchell 2023.
    """
    ranges.positive(beta=beta)
    chosen = beta * _log_ratio(chosen_log_probs, chosen_reference)
    rejected = beta * _log_ratio(rejected_log_probs, rejected_reference)
    return pairwise.bradley_terry(chosen, rejected, label_smoothing=label_smoothing)


def ipo(
    chosen_log_probs: Pairs,
    rejected_log_probs: Pairs,
    chosen_reference: Pairs,
    rejected_reference: Pairs,
    chosen_lengths: Pairs,
    rejected_lengths: Pairs,
    *,
    beta: float = 0.1,
) -> Pairs:
    """(gap - 1 / (2 beta))^2, the gap in log p - log p_ref a token, in squared nats a token.

    beta: > 0; the lead aimed at is 1 / (2 beta).
    Raises: ValueError if beta is not positive.
    Source: Azar et al. 2023 (arXiv:2310.12036) eq. 17, with means over tokens as its authors recommend.
    """
    ranges.positive(beta=beta)
    chosen = _per_token(_log_ratio(chosen_log_probs, chosen_reference), chosen_lengths)
    rejected = _per_token(_log_ratio(rejected_log_probs, rejected_reference), rejected_lengths)
    return pairwise.squared_margin(chosen, rejected, margin=1 / (2 * beta))


def hinge_norm(
    chosen_log_probs: Pairs,
    rejected_log_probs: Pairs,
    chosen_reference: Pairs,
    rejected_reference: Pairs,
    *,
    beta: float = 0.1,
) -> Pairs:
    """`hinge` of the rewards beta * (log p - log p_ref) at margin 1.

    beta: > 0; the lead aimed at is 1 / beta nats.
    Raises: ValueError if beta is not positive.
    Source: Liu et al. 2023 (RSO, arXiv:2309.06657).
    """
    ranges.positive(beta=beta)
    chosen = beta * _log_ratio(chosen_log_probs, chosen_reference)
    rejected = beta * _log_ratio(rejected_log_probs, rejected_reference)
    return pairwise.hinge(chosen, rejected)


def slic(chosen_log_probs: Pairs, rejected_log_probs: Pairs, *, delta: float = 1.0) -> Pairs:
    """max(0, delta - (log p(chosen) - log p(rejected))), without a reference.

    The published loss adds the likelihood of target texts, a term of its own: "slic() + 0.5 * mle()".
    delta: lead that costs nothing, in nats, > 0.
    Raises: ValueError if delta is not positive.
    Source: Zhao et al. 2023 (SLiC-HF, arXiv:2305.10425).
    """
    ranges.positive(delta=delta)
    return pairwise.hinge(chosen_log_probs, rejected_log_probs, margin=delta)


def kto(
    sequence_log_probs: Texts,
    reference_sequence_log_probs: Texts,
    desirable: Texts,
    kto_point: Texts,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Texts:
    """w (1 - sigmoid(beta (r - z))) of a good text, w' (1 - sigmoid(beta (z - r))) of a bad one, r = log p - log p_ref.

    desirable: 1 for a good text, 0 for a bad one.
    kto_point: z, the same for the whole batch (`kto_point` of `rmjax.rl.kl_penalty`); no gradient.
    beta: > 0.
    desirable_weight, undesirable_weight: w and w', >= 0; the authors want w times the number of good texts to be 1 to
      4/3 of w' times the number of bad ones.
    Raises: ValueError on hyperparameters outside their range.
    Source: Ethayarajh et al. 2024 (arXiv:2402.01306), without its constant.
    """
    ranges.positive(beta=beta)
    ranges.not_negative(desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    shapes.same(sequence_log_probs=sequence_log_probs, desirable=desirable, kto_point=kto_point)
    reward = _log_ratio(sequence_log_probs, reference_sequence_log_probs)
    lead = beta * (reward - jax.lax.stop_gradient(kto_point))
    good, bad = jax.nn.sigmoid(-lead), jax.nn.sigmoid(lead)
    return desirable_weight * desirable * good + undesirable_weight * (1 - desirable) * bad


def orpo(
    chosen_log_probs: Pairs,
    rejected_log_probs: Pairs,
    chosen_lengths: Pairs,
    rejected_lengths: Pairs,
) -> Pairs:
    """-log sigmoid(log odds(chosen) - log odds(rejected)), odds p / (1 - p) of the geometric mean p over tokens.

    It is the odds-ratio part; the published loss is "mle() + 0.1 * orpo()", mle over the chosen completions.
    Source: Hong et al. 2024 (arXiv:2403.07691) eq. 7. p is at most exp(-1e-6), which is ours.
    """
    chosen = _log_odds(_per_token(chosen_log_probs, chosen_lengths))
    rejected = _log_odds(_per_token(rejected_log_probs, rejected_lengths))
    return pairwise.bradley_terry(chosen, rejected)


def simpo(
    chosen_log_probs: Pairs,
    rejected_log_probs: Pairs,
    chosen_lengths: Pairs,
    rejected_lengths: Pairs,
    *,
    beta: float = 2.5,
    gamma: float = 1.375,
) -> Pairs:
    """-log sigmoid(beta (log p a token of chosen - of rejected) - gamma), without a reference.

    beta: > 0.
    gamma: lead aimed at, >= 0.
    Raises: ValueError on hyperparameters outside their range.
    Source: Meng et al. 2024 (arXiv:2405.14734) eq. 6.
    """
    ranges.positive(beta=beta)
    ranges.not_negative(gamma=gamma)
    chosen = beta * _per_token(chosen_log_probs, chosen_lengths)
    rejected = beta * _per_token(rejected_log_probs, rejected_lengths)
    return pairwise.bradley_terry(chosen, rejected, margins=jnp.full_like(chosen, gamma))


def cpo(
    chosen_log_probs: Pairs, rejected_log_probs: Pairs, *, beta: float = 0.1, alpha: float = 1.0
) -> Pairs:
    """-log sigmoid(beta (log p(chosen) - log p(rejected))) - alpha log p(chosen), without a reference.

    beta: > 0.
    alpha: weight of the chosen completion's likelihood, a sum over its tokens, >= 0.
    Raises: ValueError on hyperparameters outside their range.
    Source: Xu et al. 2024 (arXiv:2401.08417).
    """
    ranges.positive(beta=beta)
    ranges.not_negative(alpha=alpha)
    preferred = pairwise.bradley_terry(beta * chosen_log_probs, beta * rejected_log_probs)
    return preferred - alpha * chosen_log_probs


def _log_ratio(log_probs: Pairs, reference: Pairs) -> Pairs:
    shapes.same(log_probs=log_probs, reference=reference)
    return log_probs - jax.lax.stop_gradient(reference)


def _per_token(log_probs: Pairs, lengths: Pairs) -> Pairs:
    shapes.same(log_probs=log_probs, lengths=lengths)
    return log_probs / jnp.maximum(lengths, 1.0)


def _log_odds(log_prob: Pairs) -> Pairs:
    log_prob = jnp.minimum(log_prob, -1e-6)
    return log_prob - jnp.log(-jnp.expm1(log_prob))
