"""Where tokens are, which of them see each other, and what their distance does to attention.

Legend: R rows, T query tokens, S key tokens, H heads, E head width.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Places(NamedTuple):
    """Of each token of packed rows.

    positions: in its own text, from 0.
    segments: 1, 2, ... for the texts (or groups with a shared prompt) of a row, 0 for padding.
    branches: 0 in a prompt that several completions share, 1, 2, ... in those; all 0 where nothing is shared.
    """

    positions: Int[Array, "R T"]
    segments: Int[Array, "R T"]
    branches: Int[Array, "R T"]


class Sight(NamedTuple):
    """Which query sees which key, at which bias on the logit; `back` is how far behind the key lies."""

    mask: Bool[Array, "R T S"]
    back: Int[Array, "R T S"]
    bias: Float[Array, "R H T S"] | None


def sight(query: Places, key: Places, *, causal: bool, bias: Array | None = None) -> Sight:
    """A token sees its own text: its segment, and there its branch and the prompt; with causal, up to itself.

    Order is by positions, so each completion follows the shared prompt as if it were alone with it.
    """
    across = lambda name: (getattr(query, name)[:, :, None], getattr(key, name)[:, None, :])
    (own, other), (branch, trunk), (here, there) = map(
        across, ("segments", "branches", "positions")
    )
    mask = (own == other) & (other > 0) & ((branch == trunk) | (trunk == 0))
    back = here - there
    return Sight(mask & (back >= 0) if causal else mask, back, bias)


def within(seen: Sight, window: Int[Array, ""] | None) -> Bool[Array, "R 1 T S"]:
    """The mask, cut to each query's `window` latest tokens (Beltagy et al. 2020); 0 or None: all."""
    if window is None:
        return seen.mask[:, None]
    return (seen.mask & ((seen.back < window) | (window == 0)))[:, None]


def append(cached: Places, new: Places, length: Int[Array, ""]) -> Places:
    """The places of a cache's slots once `new` tokens stand from slot `length` on."""
    put = lambda slots, x: jax.lax.dynamic_update_slice(slots, x, (0, length))
    return Places(*map(put, cached, new))


def frequencies(base: float, width: int, scaling: Sequence[float]) -> np.ndarray:
    """Rotations in radians per position of each pair of a head's [E / 2] channels (Su et al. 2021, eq. 15).

    scaling: () none; (factor,) positions divided by it (Chen et al. 2023); (factor, low, high, original length):
      only wavelengths above original / low are, those below original / high are kept, a blend between (Llama 3).
    """
    rates = base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    if len(scaling) == 1:
        rates = rates / scaling[0]
    elif scaling:
        factor, low, high, original = scaling
        turns = original * rates / (2 * np.pi)  # within the original length
        keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
        rates = keep * rates + (1 - keep) * rates / factor
    return rates.astype(np.float32)


Turn = tuple[Float[Array, "R T E2"], Float[Array, "R T E2"]]


def rotations(
    positions: Int[Array, "R T"],
    width: int,
    base: float,
    scaling: Sequence[float],
    local_base: float,
) -> Callable[[Int[Array, ""] | None], Turn]:
    """Returns turn(window) -> (cos, sin) [R, T, E / 2], of a layer with that window.

    local_base: base of layers with a window, which are not scaled; 0: the same as of the others.
    """
    made = [_turn(positions, frequencies(base, width, scaling))]
    if local_base:
        made.append(_turn(positions, frequencies(local_base, width, ())))

    def turn(window):
        if window is None or len(made) == 1:
            return made[0]
        return jax.tree.map(lambda whole, local: jnp.where(window > 0, local, whole), *made)

    return turn


def _turn(positions: Array, rates: np.ndarray) -> Turn:
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(rates)[None, None]
    # XLA on CPU would fuse cosines into all that reads them, and compute them anew for each head of each layer. It does
    # not fuse a product; this one is exact.
    same = jnp.eye(len(rates))
    made = lambda x: jnp.matmul(x, same, precision="highest")
    return made(jnp.cos(angles)), made(jnp.sin(angles))


def rotate(x: Float[Array, "R T H E"], turn: Turn) -> Float[Array, "R T H E"]:
    """Turns channel i against channel i + E / 2 of each head, so that products depend on distance alone."""
    cos, sin = (t[:, :, None] for t in turn)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def relative_bias(
    table: Float[Array, "N H"], back: Int[Array, "R T S"], farthest: int, *, causal: bool
) -> Float[Array, "R H T S"]:
    """A learned bias by bucket of distance (Raffel et al. 2020, section 2.1).

    Half of the buckets are exact, the others widen logarithmically up to `farthest`; without causal, half are for
    keys that lie ahead.
    """
    buckets = table.shape[0]
    if causal:
        distance, offset = jnp.maximum(back, 0), 0
    else:
        buckets //= 2
        distance, offset = jnp.abs(back), jnp.where(back < 0, buckets, 0)
    exact = buckets // 2
    scale = (buckets - exact) / np.log(farthest / exact)
    far = exact + jnp.log(jnp.maximum(distance, exact).astype(jnp.float32) / exact) * scale
    bucket = jnp.where(distance < exact, distance, jnp.minimum(far.astype(jnp.int32), buckets - 1))
    return jnp.moveaxis(table[bucket + offset], -1, 1)
