"""Losses of a preferred and a rejected text, one value a pair, in nats unless said.

One rule for all but `robust` and `rao_kupper`: with a loss l of the gap d = chosen - rejected, a target p (the share
that prefers `chosen`, default 1) and label smoothing e, p' = e + (1 - 2e) p and the value is p' l(d) + (1 - p') l(-d).
So a pair may be presented either way round. A margin lives inside l. Any margin above 0, and `focal`, are not
proper: sigmoid(d) is then no probability.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from rmjax.losses import ranges, shapes

Pairs = Float[Array, "*B"]


def bradley_terry(
    chosen: Pairs,
    rejected: Pairs,
    margins: Pairs | None = None,
    target: Pairs | None = None,
    *,
    label_smoothing: float = 0.0,
    center: float = 0.0,
) -> Pairs:
    """Negative log-likelihood that `chosen` beats `rejected`: l(d) = -log sigmoid(d - margin).

    Args:
      chosen: score of the preferred text, in nats.
      rejected: score of the other.
      margins: by how much the preferred text should lead, >= 0.
      target: share of votes for `chosen`, in [0, 1].
      label_smoothing: probability that a label is flipped, in [0, 0.5).
      center: weight of (chosen + rejected)^2, which pins the level of scores; 0.01 is recommended.

    Returns: nats a pair, >= 0; log 2 where scores tie.
    Raises: ValueError on hyperparameters outside their range, or `target` together with `margins`.
    Source: Bradley & Terry 1952; Ouyang et al. 2022 (arXiv:2203.02155) eq. 1; margins: Touvron et al. 2023
      (arXiv:2307.09288) eq. 2; center: Eisenstein et al. 2023 (arXiv:2312.09244) eq. 2.
    """
    if target is not None and margins is not None:
        raise ValueError("target and margins both say how strong a preference is; give one")
    shapes.same(chosen=chosen, margins=margins)
    margin = 0.0 if margins is None else margins
    loss = lambda gap: -jax.nn.log_sigmoid(gap - margin)
    return _both_ways(loss, chosen, rejected, target, label_smoothing, center)


def hinge(
    chosen: Pairs,
    rejected: Pairs,
    target: Pairs | None = None,
    *,
    margin: float = 1.0,
    label_smoothing: float = 0.0,
    center: float = 0.0,
) -> Pairs:
    """l(d) = max(0, margin - d), in score units.

    margin: lead that costs nothing, > 0. Other arguments as in `bradley_terry`.
    Raises: ValueError on hyperparameters outside their range.
    Source: Joachims 2002.
    """
    ranges.positive(margin=margin)
    loss = lambda gap: jnp.maximum(0.0, margin - gap)
    return _both_ways(loss, chosen, rejected, target, label_smoothing, center)


def exponential(
    chosen: Pairs,
    rejected: Pairs,
    target: Pairs | None = None,
    *,
    cap: float = 10.0,
    label_smoothing: float = 0.0,
    center: float = 0.0,
) -> Pairs:
    """l(d) = exp(-d) for d >= -cap, and its tangent beyond, so that no gap overflows.

    cap: largest exponent, > 0. Other arguments as in `bradley_terry`.
    Raises: ValueError on hyperparameters outside their range.
    Source: Freund et al. 2003 (RankBoost); the tangent is ours.
    """
    ranges.positive(cap=cap)

    def loss(gap):
        inside = jnp.maximum(gap, -cap)
        return jnp.exp(-inside) * (1.0 - jnp.minimum(gap + cap, 0.0))

    return _both_ways(loss, chosen, rejected, target, label_smoothing, center)


def squared_margin(
    chosen: Pairs,
    rejected: Pairs,
    target: Pairs | None = None,
    *,
    margin: float = 1.0,
    label_smoothing: float = 0.0,
    center: float = 0.0,
) -> Pairs:
    """l(d) = (d - margin)^2, in squared score units; with target p its optimum is (2p - 1) margin.

    margin: the lead aimed at, > 0. Other arguments as in `bradley_terry`.
    Raises: ValueError on hyperparameters outside their range.
    Source: least-squares ranking; the reward form of IPO (Azar et al. 2023, arXiv:2310.12036).
    """
    ranges.positive(margin=margin)
    loss = lambda gap: jnp.square(gap - margin)
    return _both_ways(loss, chosen, rejected, target, label_smoothing, center)


def thurstone(
    chosen: Pairs,
    rejected: Pairs,
    target: Pairs | None = None,
    *,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    center: float = 0.0,
) -> Pairs:
    """l(d) = -log Phi(d / (sqrt 2 scale)): scores seen with normal noise.

    scale: deviation of one score's noise, > 0. Other arguments as in `bradley_terry`.
    Raises: ValueError on hyperparameters outside their range.
    Source: Thurstone 1927, Case V.
    """
    ranges.positive(scale=scale)
    loss = lambda gap: -norm.logcdf(gap / (2.0**0.5 * scale))
    return _both_ways(loss, chosen, rejected, target, label_smoothing, center)


def focal(
    chosen: Pairs,
    rejected: Pairs,
    target: Pairs | None = None,
    *,
    gamma: float = 2.0,
    barrier: float = 0.0,
    label_smoothing: float = 0.0,
    center: float = 0.0,
) -> Pairs:
    """l(d) = -(1 - 2 max(0, sigmoid(d) - 1/2))^gamma log sigmoid(d): easy pairs count less.

    gamma: how much less, >= 0. The slope jumps at d = 0.
    barrier: weight of -log(x + 5) - log(5 - x) on each score x, which keeps scores inside (-5, 5); beyond 4.99 it
      goes on along its tangent. Other arguments as in `bradley_terry`.
    Raises: ValueError on hyperparameters outside their range.
    Source: Cai et al. 2024 (InternLM2, arXiv:2403.17297) section 4.3; the tangent is ours.
    """
    ranges.not_negative(gamma=gamma, barrier=barrier)

    def loss(gap):
        log_weight = gamma * jnp.minimum(0.0, jnp.log(2.0) + jax.nn.log_sigmoid(-gap))
        return -jnp.exp(log_weight) * jax.nn.log_sigmoid(gap)

    value = _both_ways(loss, chosen, rejected, target, label_smoothing, center)
    return value + barrier * (_barrier(chosen) + _barrier(rejected)) if barrier else value


def robust(chosen: Pairs, rejected: Pairs, *, flip_rate: float = 0.1) -> Pairs:
    """[(1 - e) l(d) - e l(-d)] / (1 - 2e), l = -log sigmoid: unbiased if labels flip at rate e; unbounded below.

    flip_rate: e, in [0, 0.5).
    Raises: ValueError if it is outside.
    Source: Natarajan et al. 2013; Chowdhury et al. 2024 (arXiv:2403.00409) eq. 11.
    """
    _share(flip_rate=flip_rate)
    gap = _gap(chosen, rejected)
    right, wrong = -jax.nn.log_sigmoid(gap), -jax.nn.log_sigmoid(-gap)
    return ((1 - flip_rate) * right - flip_rate * wrong) / (1 - 2 * flip_rate)


def rao_kupper(
    chosen: Pairs, rejected: Pairs, tie_width: Float[Array, ""], tie: Pairs | None = None
) -> Pairs:
    """Wins and ties: with h = softplus(tie_width), a win costs -log sigmoid(d - h), a tie
    -log expm1(2h) - log sigmoid(d - h) - log sigmoid(-d - h).

    tie_width: the head's parameter before its softplus; nu = exp(h), P(tie | d = 0) = (nu - 1) / (nu + 1).
    tie: 1 where raters saw no difference, else 0; of given pairs the share of votes that did.
    Source: Rao & Kupper 1967; for reward models Liu, Ge & Zhu 2024.
    """
    shapes.same(chosen=chosen, tie=tie)
    gap = _gap(chosen, rejected)
    width = jax.nn.softplus(tie_width)
    win = -jax.nn.log_sigmoid(gap - width)
    if tie is None:
        return win
    # log expm1(2h) = 2h + log(1 - exp(-2h)), finite for wide and for narrow widths
    log_odds = 2 * width + jnp.log(-jnp.expm1(-2 * width))
    return win + tie * (-jax.nn.log_sigmoid(-gap - width) - log_odds)


def _both_ways(
    loss: Callable[[Pairs], Pairs],
    chosen: Pairs,
    rejected: Pairs,
    target: Pairs | None,
    label_smoothing: float,
    center: float,
) -> Pairs:
    _share(label_smoothing=label_smoothing)
    ranges.not_negative(center=center)
    shapes.same(chosen=chosen, target=target)
    gap = _gap(chosen, rejected)
    if target is None and not label_smoothing:
        value = loss(gap)
    else:
        share = label_smoothing + (1 - 2 * label_smoothing) * (1.0 if target is None else target)
        value = share * loss(gap) + (1 - share) * loss(-gap)
    return value + center * jnp.square(chosen + rejected) if center else value


def _gap(chosen: Pairs, rejected: Pairs) -> Pairs:
    shapes.same(chosen=chosen, rejected=rejected)
    return jnp.asarray(chosen, jnp.float32) - rejected


def _barrier(score: Pairs) -> Pairs:
    inside = jnp.clip(score, -4.99, 4.99)
    slope = 1 / (5 - inside) - 1 / (inside + 5)
    return (
        -jnp.log(inside + 5) - jnp.log(5 - inside) + jax.lax.stop_gradient(slope) * (score - inside)
    )


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < 0.5:
            raise ValueError(f"{name} must be in [0, 0.5), got {value}")
