"""One draw a row from a categorical distribution, without a random number for every token of the vocabulary.

Legend: B any leading axes, V vocabulary, N lanes, U = ceil(V / N) tokens of a lane.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

LANES = 128


class Weights(NamedTuple):
    """exp(logits - peak) with the vocabulary in lanes, token v in lane v mod N; lane sums run along the other axis."""

    each: Float[Array, "*B U N"]
    lane: Float[Array, "*B N"]
    peak: Float[Array, "*B"]


def weigh(logits: Float[Array, "*B V"]) -> Weights:
    """The weights of all tokens; those of logits -inf are 0."""
    pad = [(0, 0)] * (logits.ndim - 1) + [(0, -logits.shape[-1] % LANES)]
    split = jnp.pad(logits, pad, constant_values=-jnp.inf)
    split = split.reshape(*logits.shape[:-1], -1, LANES)
    # Down the lanes first: sums and maxima over an outer axis are those that a CPU does many at a time.
    peak = jnp.max(jnp.max(split, axis=-2), axis=-1)
    each = jnp.exp(split - peak[..., None, None])
    return Weights(each, jnp.sum(each, axis=-2), peak)


def log_total(weights: Weights) -> Float[Array, "*B"]:
    """log sum exp of the logits."""
    return weights.peak + jnp.log(jnp.sum(weights.lane, axis=-1))


def categorical(keys: Key[Array, "*B"], weights: Weights) -> Int[Array, "*B"]:
    """A token by its weight: first a lane, then one of its tokens, each by the largest log weight + Gumbel noise.

    Source: Gumbel 1954; Maddison, Tarlow & Minka 2014 (arXiv:1411.0030).
    """
    lanes, units = weights.lane.shape[-1], weights.each.shape[-2]
    flat = keys.reshape(-1)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (lanes + units,)))(flat)
    noise = noise.reshape(*keys.shape, -1)
    lane = jnp.argmax(jnp.log(weights.lane) + noise[..., :lanes], axis=-1)
    own = jnp.take_along_axis(weights.each, lane[..., None, None], axis=-1)[..., 0]
    unit = jnp.argmax(jnp.log(own) + noise[..., lanes:], axis=-1)
    return (unit * lanes + lane).astype(jnp.int32)


def likeliest(logits: Float[Array, "*B V"]) -> Int[Array, "*B"]:
    """The first of the largest. As two plain reductions, which a CPU does many at a time, unlike argmax."""
    count = logits.shape[-1]
    place = jnp.arange(count, dtype=jnp.int32).reshape((1,) * (logits.ndim - 1) + (-1,))
    largest = jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(logits == largest, place, count - 1), axis=-1)
