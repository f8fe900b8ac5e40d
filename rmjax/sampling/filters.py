"""What may be drawn: functions of logits that set those of refused tokens to -inf, and the settings that choose them.

Legend: B any leading axes, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Logits = Float[Array, "*B V"]


class Settings(NamedTuple):
    """How completions are drawn; by default from the policy itself. Hashable, so static under jit.

    max_new_tokens: of each completion, its stop token included, >= 1.
    temperature: divides the logits, >= 0; 0 takes the likeliest token.
    top_k, top_p, min_p, repetition_penalty: as the functions of these names; 0, 1, 0 and 1 switch them off.
    stop_tokens: any of them ends a completion.
    min_new_tokens: no stop token is drawn before so many other tokens.
    pad_token: stands after the end.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_tokens: tuple[int, ...] = ()
    min_new_tokens: int = 0
    pad_token: int = 0


def check(settings: Settings) -> None:
    """Raises: ValueError on a value outside its range."""
    s = settings
    if s.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {s.max_new_tokens}")
    if not 0 <= s.min_new_tokens <= s.max_new_tokens:
        raise ValueError(
            f"min_new_tokens must be in [0, max_new_tokens {s.max_new_tokens}], got {s.min_new_tokens}"
        )
    if s.temperature != 0:
        _positive(temperature=s.temperature)
    if s.top_k < 0:
        raise ValueError(f"top_k must be positive, or 0 for off, got {s.top_k}")
    if not 0.0 <= s.min_p <= 1.0:
        raise ValueError(f"min_p must be in [0, 1], 0 for off, got {s.min_p}")
    _share(top_p=s.top_p)
    _positive(repetition_penalty=s.repetition_penalty)


def inexact(settings: Settings) -> list[str]:
    """Why log-probabilities of samples are not those of the distribution that they were drawn from; [] if they are.

    They are the policy's own at the settings' temperature; each reason names the setting that draws otherwise.
    """
    s = settings
    reasons = {
        "temperature=0 takes the likeliest token and draws nothing": s.temperature == 0,
        f"top_k={s.top_k} never draws tokens outside of the likeliest": s.top_k > 0,
        f"top_p={s.top_p} never draws tokens of the tail": s.top_p < 1,
        f"min_p={s.min_p} never draws tokens far less likely than the likeliest": s.min_p > 0,
        f"repetition_penalty={s.repetition_penalty} changes the logits of tokens that are there": (
            s.repetition_penalty != 1
        ),
        f"min_new_tokens={s.min_new_tokens} forbids to stop early": (
            s.min_new_tokens > 0 and bool(s.stop_tokens)
        ),
    }
    return [reason for reason, holds in reasons.items() if holds]


def exact(settings: Settings) -> bool:
    """Whether samples are drawn from the policy itself, at the settings' temperature."""
    return not inexact(settings)


def require_exact(settings: Settings) -> None:
    """Raises: ValueError, naming the settings, where samples are not drawn from the policy at their temperature."""
    if reasons := inexact(settings):
        raise ValueError(
            "log-probabilities of samples must be the policy's own, but " + "; ".join(reasons)
        )


def temperature(logits: Logits, *, value: float) -> Logits:
    """logits / value; below 1 sharpens.

    Raises: ValueError unless value > 0.
    Source: Ackley, Hinton & Sejnowski 1985.
    """
    _positive(temperature=value)
    return logits / value


def top_k(logits: Logits, *, k: int) -> Logits:
    """Keeps the k largest, and what ties with the least of them; all if there are no more.

    Raises: ValueError if k < 1.
    Source: Fan et al. 2018 (arXiv:1805.04833) section 5.1.
    """
    if k < 1:
        raise ValueError(f"top_k must be at least 1, got {k}")
    if k >= logits.shape[-1]:
        return logits
    least = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits >= least, logits, -jnp.inf)


def top_p(logits: Logits, *, p: float) -> Logits:
    """Keeps the fewest likeliest tokens of total probability p or more, and what ties with the least of them.

    p: in (0, 1].
    Raises: ValueError if it is outside.
    Source: Holtzman et al. 2020 (arXiv:1904.09751) section 3.1.
    """
    _share(top_p=p)
    down = -jnp.sort(-logits, axis=-1)
    shares = jax.nn.softmax(down, axis=-1)
    before = jnp.cumsum(shares, axis=-1) - shares  # of what is likelier
    least = jnp.min(jnp.where(before < p, down, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


def min_p(logits: Logits, *, p: float) -> Logits:
    """Keeps tokens at least p times as likely as the likeliest.

    p: in (0, 1].
    Raises: ValueError if it is outside.
    Source: Nguyen et al. 2024 (arXiv:2407.01082) section 3.
    """
    _share(min_p=p)
    least = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where(logits >= least, logits, -jnp.inf)


def repetition_penalty(logits: Logits, present: Bool[Array, "*B V"], *, penalty: float) -> Logits:
    """Divides positive logits of present tokens by `penalty`, and multiplies negative ones.

    present: tokens of the prompt and of the completion so far.
    penalty: > 0; above 1 makes repetition rarer.
    Raises: ValueError if it is not positive.
    Source: Keskar et al. 2019 (arXiv:1909.05858) section 4.1, which divides negative logits too: that would favor
      them; all common implementations multiply.
    """
    _positive(repetition_penalty=penalty)
    return jnp.where(present, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def without_stops(
    logits: Logits, count: Int[Array, "*B"], stop_tokens: tuple[int, ...], minimum: int
) -> Logits:
    """Refuses stop tokens where fewer than `minimum` tokens were drawn so far."""
    if not stop_tokens:
        return logits
    stop = is_stop(jnp.arange(logits.shape[-1]), stop_tokens)
    stop = stop.reshape((1,) * count.ndim + (-1,))
    return jnp.where(stop & (count < minimum)[..., None], -jnp.inf, logits)


def is_stop(tokens: Int[Array, "*B"], stop_tokens: tuple[int, ...]) -> Bool[Array, "*B"]:
    """Which tokens end a completion."""
    stops = jnp.array(stop_tokens, jnp.int32).reshape((1,) * tokens.ndim + (-1,))
    return jnp.any(tokens[..., None] == stops, axis=-1)


def apply(
    logits: Logits, count: Int[Array, "*B"], present: Bool[Array, "*B V"] | None, settings: Settings
) -> Logits:
    """The logits to draw from, in the customary order: penalty, stop tokens, temperature, top-k, top-p, min-p.

    count: tokens drawn so far. present: None without repetition penalty. Temperature 0 leaves the logits' scale.
    """
    s = settings
    if present is not None:
        logits = repetition_penalty(logits, present, penalty=s.repetition_penalty)
    if s.min_new_tokens:
        logits = without_stops(logits, count, s.stop_tokens, s.min_new_tokens)
    if s.temperature not in (0, 1):
        logits = temperature(logits, value=s.temperature)
    if s.top_k:
        logits = top_k(logits, k=s.top_k)
    if s.top_p < 1:
        logits = top_p(logits, p=s.top_p)
    if s.min_p:
        logits = min_p(logits, p=s.min_p)
    return logits


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value <= 1.0:
            raise ValueError(f"{name} must be in (0, 1], got {value}")
