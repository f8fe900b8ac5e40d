"""Losses of one text against its own rating, one value a text.

Legend: *B any axes, C classes, A attributes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmjax.losses import shapes

Texts = Float[Array, "*B"]


def mse(score: Texts, rating: Texts) -> Texts:
    """(score - rating)^2, in squared rating units.

    Source: Gauss 1809. Twice the half-squared error of the worked figures.
    """
    shapes.same(score=score, rating=rating)
    return jnp.square(score - rating)


def mae(score: Texts, rating: Texts) -> Texts:
    """|score - rating|, in rating units; its optimum is the median.

    Source: Laplace 1774.
    """
    shapes.same(score=score, rating=rating)
    return jnp.abs(score - rating)


def huber(score: Texts, rating: Texts, *, delta: float = 1.0) -> Texts:
    """e^2 / 2 for |e| <= delta, else delta (|e| - delta / 2), e = score - rating.

    delta: where it turns linear, in rating units, > 0.
    Raises: ValueError if delta is not positive.
    Source: Huber 1964.
    """
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")
    shapes.same(score=score, rating=rating)
    size = jnp.abs(score - rating)
    inside = jnp.minimum(size, delta)
    return inside * (size - inside / 2)


def binary_cross_entropy(score: Texts, probability: Texts) -> Texts:
    """-p log sigmoid(score) - (1 - p) log sigmoid(-score), in nats; the score is a logit.

    probability: the target, in [0, 1]: a label, or a rating on its scale.
    Source: Cox 1958.
    """
    shapes.same(score=score, probability=probability)
    return -(
        probability * jax.nn.log_sigmoid(score) + (1 - probability) * jax.nn.log_sigmoid(-score)
    )


def process(score: Texts, probability: Texts) -> Texts:
    """`binary_cross_entropy`, one value a step, in nats: the places scored are the ends of a solution's steps.

    The formula is the same; what differs is the data, in which one text has as many labels as steps, so that long
    solutions weigh more unless their weights say otherwise.
    probability: that the step is right, in [0, 1].
    Source: Lightman et al. 2023 (arXiv:2305.20050) section 2.6.
    """
    return binary_cross_entropy(score, probability)


def attributes_mse(
    attribute_scores: Float[Array, "*B A"],
    attribute_ratings: Float[Array, "*B A"],
    attribute_mask: Bool[Array, "*B A"],
) -> Texts:
    """Mean of (score - rating)^2 over the attributes that a text was rated on, in squared rating units; 0 if on none.

    attribute_mask: which attributes were rated.
    Source: Dong et al. 2023 (SteerLM, arXiv:2310.05344); as a regression, Wang et al. 2024 (arXiv:2406.08673).
    """
    shapes.same(
        attribute_scores=attribute_scores,
        attribute_ratings=attribute_ratings,
        attribute_mask=attribute_mask,
    )
    off = jnp.where(attribute_mask, attribute_scores - attribute_ratings, 0.0)
    count = jnp.maximum(jnp.sum(attribute_mask, axis=-1), 1)
    return jnp.sum(jnp.square(off), axis=-1) / count


def cross_entropy(
    logits: Float[Array, "*B C"], label: Int[Array, "*B"], *, label_smoothing: float = 0.0
) -> Texts:
    """Cross-entropy in nats against (1 - e) onehot + e / C.

    label: class of the text, from 0.
    label_smoothing: e, in [0, 1).
    Raises: ValueError if it is outside.
    Source: Szegedy et al. 2016 (arXiv:1512.00567) section 7.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    log_probs = jax.nn.log_softmax(logits)
    shapes.same(logits=logits[..., 0], label=label)
    own = jnp.take_along_axis(log_probs, label[..., None], axis=-1)[..., 0]
    return -(1 - label_smoothing) * own - label_smoothing * jnp.mean(log_probs, axis=-1)


def votes(logits: Float[Array, "*B C"], shares: Float[Array, "*B C"]) -> Texts:
    """Cross-entropy in nats against the shares of raters in each class; its minimum is the shares' entropy.

    shares: of each class among the raters, summing to 1.
    Source: Peterson et al. 2019 (arXiv:1908.07086) eq. 2.
    """
    shapes.same(logits=logits, shares=shares)
    return -jnp.sum(shares * jax.nn.log_softmax(logits), axis=-1)


def ordinal(score: Texts, thresholds: Float[Array, " C1"], label: Int[Array, "*B"]) -> Texts:
    """-log P(label), P(label <= k) = sigmoid(threshold_k - score), in nats.

    thresholds: increasing, one fewer than the classes.
    label: class of the text, from 0 to len(thresholds).
    Source: McCullagh 1980, proportional odds.
    """
    shapes.same(score=score, label=label)
    last = thresholds.shape[0]
    upper = thresholds[jnp.minimum(label, last - 1)]
    lower = thresholds[jnp.maximum(label - 1, 0)]
    has_upper, has_lower = label < last, label > 0
    inner = has_upper & has_lower
    width = jnp.where(inner, upper - lower, 1.0)  # 1 is any number with a finite gradient
    below = jnp.where(has_upper, jax.nn.log_sigmoid(upper - score), 0.0)
    above = jnp.where(has_lower, jax.nn.log_sigmoid(score - lower), 0.0)
    return -below - above - jnp.where(inner, jnp.log(-jnp.expm1(-width)), 0.0)


def gaussian_nll(
    score: Texts, log_variance: Texts, rating: Texts, *, low: float = -10.0, high: float = 10.0
) -> Texts:
    """(v + (rating - score)^2 exp(-v)) / 2, v the clamped log-variance, in nats without the constant.

    low, high: where v is clamped, low < high.
    Raises: ValueError if low >= high.
    Source: Nix & Weigend 1994.
    """
    if low >= high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    shapes.same(score=score, log_variance=log_variance, rating=rating)
    v = jnp.clip(log_variance, low, high)
    return (v + jnp.square(rating - score) * jnp.exp(-v)) / 2
