"""Losses of all completions of one prompt together, one value a group, in nats.

Legend: *B any axes, K completions of a prompt. `group_ratings`: higher is better. `group_mask`: which of the K there
are, so that lists of unequal length share an array. A group of one, or one whose ratings are all equal, has no order to
learn and costs 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmjax.losses import ranges, shapes

Lists = Float[Array, "*B K"]
Masks = Bool[Array, "*B K"]
Groups = Float[Array, "*B"]


def plackett_luce(
    group_scores: Lists, group_ratings: Lists, group_mask: Masks, *, top_k: int = 0
) -> Groups:
    """-sum_i log [exp(s_i) / (exp(s_i) + sum over those rated below i of exp(s_j))]: the best is drawn, then the next.

    Tied completions are masked from each other: neither is drawn against the other, both against all below.
    top_k: places that count, >= 0; 0: all. 1 is the best-of-K softmax of Ziegler et al.
    Raises: ValueError if top_k is negative.
    Source: Plackett 1975; Luce 1959; Xia et al. 2008 (ListMLE); top_k=1: Ziegler et al. 2019 (arXiv:1909.08593) eq. 1.
    """
    if top_k < 0:
        raise ValueError(f"top_k must not be negative, got {top_k}")
    shapes.same(group_scores=group_scores, group_ratings=group_ratings, group_mask=group_mask)
    drawn = _against_those_below(group_scores, group_ratings, group_mask)
    if top_k:
        above = jnp.sum(_above(group_ratings, group_mask), axis=-1)
        drawn = jnp.where(above < top_k, drawn, 0.0)
    return jnp.sum(drawn, axis=-1)


def listnet(
    group_scores: Lists, group_ratings: Lists, group_mask: Masks, *, temperature: float = 1.0
) -> Groups:
    """-sum softmax(ratings / temperature) log softmax(scores); its minimum is the entropy of the first.

    temperature: in rating units, > 0.
    Raises: ValueError if it is not.
    Source: Cao et al. 2007 (ListNet, top one).
    """
    ranges.positive(temperature=temperature)
    shapes.same(group_scores=group_scores, group_ratings=group_ratings, group_mask=group_mask)
    among = lambda x: jnp.where(group_mask, x, 0.0)
    share = jax.nn.softmax(among(group_ratings) / temperature, axis=-1, where=group_mask)
    log_probs = jax.nn.log_softmax(among(group_scores), axis=-1, where=group_mask)
    value = -jnp.sum(among(share) * among(log_probs), axis=-1)
    told = jnp.any(_above(group_ratings, group_mask), axis=(-1, -2))
    return jnp.where(told, value, 0.0)


def info_nce(
    group_scores: Lists, group_ratings: Lists, group_mask: Masks, *, temperature: float = 1.0
) -> Groups:
    """-log softmax(scores / temperature) of the best-rated completion among itself and those rated below it.

    With one other it is Bradley-Terry at gap / temperature. Of several best ones, the mean; the negatives are the same
    prompt's own, never another prompt's.
    temperature: in score units, > 0.
    Raises: ValueError if it is not.
    Source: van den Oord et al. 2018 (arXiv:1807.03748) eq. 4.
    """
    ranges.positive(temperature=temperature)
    shapes.same(group_scores=group_scores, group_ratings=group_ratings, group_mask=group_mask)
    drawn = _against_those_below(group_scores / temperature, group_ratings, group_mask)
    best = group_mask & ~jnp.any(_above(group_ratings, group_mask), axis=-1)
    count = jnp.maximum(jnp.sum(best, axis=-1), 1)
    return jnp.sum(jnp.where(best, drawn, 0.0), axis=-1) / count


def _above(ratings: Lists, mask: Masks) -> Bool[Array, "*B K K"]:
    """Whether j is rated above i, both there: [..., i, j]."""
    both = mask[..., :, None] & mask[..., None, :]
    return both & (ratings[..., None, :] > ratings[..., :, None])


def _against_those_below(scores: Lists, ratings: Lists, mask: Masks) -> Lists:
    """-log softmax of each completion's score among its own and those of completions rated below; 0 off the mask."""
    scores = jnp.where(mask, jnp.asarray(scores, jnp.float32), 0.0)  # nothing off the mask counts
    below = jnp.swapaxes(_above(ratings, mask), -1, -2)
    itself = jnp.broadcast_to(jnp.eye(scores.shape[-1], dtype=bool), below.shape)
    gap = scores[..., None, :] - scores[..., :, None]
    return jax.nn.logsumexp(jnp.where(below | itself, gap, -jnp.inf), axis=-1)
