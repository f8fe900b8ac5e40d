"""Update rules, schedules and per-parameter rates, by name; optax does the work."""

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax


def adamw(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-5) -> optax.GradientTransformation:
    """Adam's direction (Kingma & Ba 2015); decay is the chain's (Loshchilov & Hutter 2019).

    eps: 1e-5 as in the reference RLHF systems; 1e-8 magnifies noise where the true gradient is 0.
    """
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


def lion(*, b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
    """Sign of an interpolated momentum (Chen et al. 2023)."""
    return optax.scale_by_lion(b1=b1, b2=b2)


def adafactor(*, min_dim_size_to_factor: int = 128) -> optax.GradientTransformation:
    """Factored second moments, clipped by block (Shazeer & Stern 2018)."""
    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=min_dim_size_to_factor),
        optax.clip_by_block_rms(1.0),
    )


def sgd(*, momentum: float = 0.0) -> optax.GradientTransformation:
    """The gradient, with momentum if asked."""
    return optax.trace(decay=momentum) if momentum else optax.identity()


def constant(steps: int, *, peak: float, warmup: float = 0.0) -> optax.Schedule:
    """Linear warm-up over the share `warmup` of `steps`, then `peak`."""
    return _warmed(optax.constant_schedule(peak), peak, steps, warmup)


def linear(steps: int, *, peak: float, warmup: float = 0.06, end: float = 0.0) -> optax.Schedule:
    """Linear warm-up, then linear decay to `end` at `steps`."""
    rest = max(steps - _warm_steps(steps, warmup), 1)
    return _warmed(optax.linear_schedule(peak, end, rest), peak, steps, warmup)


def cosine(steps: int, *, peak: float, warmup: float = 0.06, end: float = 0.0) -> optax.Schedule:
    """Linear warm-up, then half a cosine down to `end` at `steps` (Loshchilov & Hutter 2017)."""
    rest = max(steps - _warm_steps(steps, warmup), 1)
    fall = optax.cosine_decay_schedule(1.0, rest)
    return _warmed(lambda step: end + (peak - end) * fall(step), peak, steps, warmup)


def _warm_steps(steps: int, warmup: float) -> int:
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of the steps, in [0, 1), got {warmup}")
    return int(round(warmup * steps))


def _warmed(schedule: optax.Schedule, peak: float, steps: int, warmup: float) -> optax.Schedule:
    warm = _warm_steps(steps, warmup)
    if not warm:
        return schedule
    rise = optax.linear_schedule(
        peak / warm, peak, max(warm - 1, 1)
    )  # the first step already moves
    return optax.join_schedules([rise, schedule], [warm])


RULES: Mapping[str, Callable] = {f.__name__: f for f in (adamw, lion, adafactor, sgd)}
SCHEDULES: Mapping[str, Callable] = {f.__name__: f for f in (constant, linear, cosine)}


def decays(path: str) -> bool:
    """Whether weight decay applies: to kernels and embeddings, not to biases, norms and scalars."""
    return not re.search(r"(bias|scale|gaps|tie_width)$", path)


def chain(
    rule: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    clip_norm: float,
    weight_decay: float,
    rates: Mapping[str, float],
) -> optax.GradientTransformation:
    """clip -> rule -> decay -> rates -> schedule.

    clip_norm: largest global gradient norm; 0 for no limit.
    rates: {regular expression of paths: factor on the learning rate}; the first match counts.
    Raises: ValueError on negative numbers, and at init on a pattern that matches no parameter.
    """
    if clip_norm < 0 or weight_decay < 0 or any(r < 0 for r in rates.values()):
        raise ValueError("clip_norm, weight_decay and rates must not be negative")
    parts = [_clip_by_global_norm(clip_norm)] if clip_norm else []
    parts.append(rule)
    if weight_decay:
        mask = lambda params: {path: decays(path) for path in params}
        parts.append(optax.add_decayed_weights(weight_decay, mask))
    if rates:
        parts.append(_scale_by_path(rates))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """As optax's, by one factor: its division per element is kept in memory, one more pass over all gradients."""

    def update(updates, state, params=None):
        del params
        factor = jnp.minimum(1.0, limit / jnp.maximum(optax.tree.norm(updates), 1e-30))
        return jax.tree.map(lambda u: u * factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _scale_by_path(rates: Mapping[str, float]) -> optax.GradientTransformation:
    def factor(path: str) -> float:
        return next((rate for pattern, rate in rates.items() if re.search(pattern, path)), 1.0)

    def init(params):
        for pattern in rates:
            if not any(re.search(pattern, path) for path in params):
                raise ValueError(f"rates: {pattern!r} matches no trained parameter")
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        return {path: update * factor(path) for path, update in updates.items()}, state

    return optax.GradientTransformation(init, update)
