"""Likelihood of texts, plain and weighted by their rewards, in nats: the readings of L_MLE - lambda R.

Legend: *B any axes, tokens [R, L] or texts [R, P] as each loss says; K completions of a prompt. A reward of this
page is any number of which more is better. `mixed` is the sum "mle() + 0.1 * reinforce()" of a config.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmjax.losses import ranges, shapes

Tokens = Float[Array, "*B"]
Texts = Float[Array, "*B"]


def mle(log_probs: Tokens, data_weight: Tokens) -> Tokens:
    """-log p of each token, in nats a token; its mean over `data_weight` is the negative log-likelihood.

    data_weight: 1 on the tokens of dataset texts; averages the values.
    Source: Fisher 1922; the token mean of language models, Bengio et al. 2003.
    """
    shapes.same(log_probs=log_probs, data_weight=data_weight)
    return -log_probs


def reward_weighted(log_probs: Tokens, reward_weight: Tokens) -> Tokens:
    """-log p of each token; its mean over `reward_weight` is sum_i w_i S_i / sum_i w_i n_i, S_i nats in n_i tokens.

    The weight makes it one reading or another; `rmjax.rl.weights` has them. Each is `mle` at a limit:
    exp_weights: exponentiated rewards, the optimum of E[R] - beta KL to the data; `mle` at beta -> infinity.
    raml_weights: RAML, whose target is softmax(R / temperature) over all texts; `mle` at temperature -> 0 where the
      dataset's text is the one best.
    boltzmann_weights: the optimum of E[R] - temperature KL to what sampled; at temperature -> infinity, `mle`
      of all that was sampled.
    keep_best, keep_above: filtering (RAFT, ReST); `mle` where everything is kept.
    reward_weight: weight of the token's text, 0 on padding; averages the values.
    Source: Peters & Schaal 2007; Peng et al. 2019 (arXiv:1910.00177), without their division by the summed weight;
      Norouzi et al. 2016 (arXiv:1609.00150); Dong et al. 2023 (arXiv:2304.06767); Gulcehre et al. 2023
      (arXiv:2308.08998).
    """
    shapes.same(log_probs=log_probs, reward_weight=reward_weight)
    return -log_probs


def linear_weighted(log_probs: Tokens, standard_rewards: Tokens, *, coef: float = 1.0) -> Tokens:
    """-max(0, 1 + coef R) log p of each token, in nats; a text is never pushed away.

    standard_rewards: R, the reward of the token's text (of a sample less the KL penalty), standardized
      over the batch.
    coef: weight of the reward, >= 0; 0 is the likelihood of all texts. Texts with R <= -1 / coef count nothing.
    Raises: ValueError if coef is negative.
    Source: the likelihood weighted by the reward model's score, read directly; the clipping is ours.
    """
    ranges.not_negative(coef=coef)
    shapes.same(log_probs=log_probs, standard_rewards=standard_rewards)
    weight = jnp.maximum(0.0, 1.0 + coef * jax.lax.stop_gradient(standard_rewards))
    return -weight * log_probs


def off_policy(
    sequence_log_probs: Texts, old_sequence_log_probs: Texts, advantage: Texts, *, cap: float = 1.0
) -> Texts:
    """-min(rho, cap) A log p of a text that another policy wrote, rho = p / p_old; the ratio has no gradient.

    Of samples from before the last updates, or of logs: then texts that the writer would not write are never learned
    of, and rho is tiny where the policy is far from it, so a log teaches next to nothing until `mle` came near.
    old_sequence_log_probs: log-probability under the policy that wrote it, at the temperature it was drawn at; not of
      the survivors of top-k, top-p and the like, which the policy's own log p is not of.
    advantage: reward less its baseline; of logs without a KL penalty, for `kl` is paid on own samples alone.
    cap: largest ratio, > 0; an infinite one makes the gradient unbiased and its variance unbounded.
    Raises: ValueError if cap is not positive.
    Source: truncated importance sampling, Ionides 2008; Espeholt et al. 2018 (arXiv:1802.01561).
    """
    ranges.positive(cap=cap)
    shapes.same(
        sequence_log_probs=sequence_log_probs,
        old_sequence_log_probs=old_sequence_log_probs,
        advantage=advantage,
    )
    log_ratio = jnp.minimum(sequence_log_probs - old_sequence_log_probs, jnp.log(cap))
    return -jax.lax.stop_gradient(jnp.exp(log_ratio) * advantage) * sequence_log_probs


def relaxed(relaxed_reward: Texts) -> Texts:
    """-R of a text that the policy drew, as a frozen reward model of its vocabulary scores it, in reward units.

    The only reading here whose gradient goes through the reward: R is that of the tokens as drawn, and backward each
    is a softmax of the logits that it was drawn from with the Gumbel noise that drew it (`rmjax.models.relaxation`).
    Low in variance, and biased: a reward model is no linear function of its tokens.
    relaxed_reward: of texts drawn from the policy as it is, so of one update a rollout.
    Source: Jang et al. 2017 (arXiv:1611.01144); Bengio et al. 2013 (arXiv:1308.3432).
    """
    return -relaxed_reward


def minimum_risk(
    group_log_probs: Float[Array, "*B K"],
    group_rewards: Float[Array, "*B K"],
    group_mask: Bool[Array, "*B K"],
    *,
    alpha: float = 5e-3,
) -> Float[Array, "*B"]:
    """-sum_k q_k R_k, q = softmax(alpha log p) over the distinct completions of a prompt, in reward units.

    The gradient goes through q. A group without completions costs 0.
    group_log_probs: log-probability of each whole completion.
    group_rewards: of samples less the KL penalty.
    alpha: sharpness of q, > 0; at 1, q is the policy restricted to these completions.
    Raises: ValueError if alpha is not positive.
    Source: Shen et al. 2016 (arXiv:1512.02433).
    """
    ranges.positive(alpha=alpha)
    shapes.same(group_log_probs=group_log_probs, group_rewards=group_rewards, group_mask=group_mask)
    among = lambda x: jnp.where(group_mask, x, 0.0)
    share = jax.nn.softmax(alpha * among(group_log_probs), axis=-1, where=group_mask)
    rewards = jax.lax.stop_gradient(among(group_rewards))
    return -jnp.sum(among(share) * rewards, axis=-1)
