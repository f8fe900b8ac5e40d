"""Completions of prompts: prefill, then cached decoding in one compiled loop.

The K samples of a prompt share what the cache holds of it, which is all but the prompt's last token: each sample
begins by reading that one for itself, so that every step is the same. After the prompt's slots the cache is a ring of
as many steps as a completion has tokens. So rows may begin at different steps, and one that has ended can be replaced.
Legend: B prompts (rows), P prompt tokens, K samples of a prompt, C new tokens, S slots, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from rmjax.models.transformer import LanguageModel, Source, empty_cache
from rmjax.sampling import draw, filters
from rmjax.sampling.filters import Settings


class Samples(NamedTuple):
    """Completions; what stands after an end is padding, of log-probability 0.

    tokens: int32 [B, K, C], a stop token included.
    log_probs: float32 [B, K, C], nats, of the policy at the settings' temperature (at 1 if that is 0), unfiltered.
    lengths: int32 [B, K], tokens of each.
    stopped: bool [B, K], ended by a stop token, not by length.
    """

    tokens: PyTree
    log_probs: PyTree
    lengths: PyTree
    stopped: PyTree


class State(NamedTuple):
    """Where decoding stands. All but the cache's "length" have rows as their first axis.

    cache: that of the model, the keys and values of each layer an array of its own, written in place.
    last: int32 [B, K], tokens to be read next. prompt: int32 [B], tokens of the prompt.
    present: bool [B, K, V], tokens of the prompt and so far, or None without repetition penalty.
    keys: [B, K], of each sample's randomness.
    """

    cache: PyTree
    last: PyTree
    prompt: PyTree
    present: PyTree
    keys: PyTree
    samples: Samples


def sample_keys(key: Key[Array, ""], ids: Int[Array, " B"], samples: int) -> Key[Array, "B K"]:
    """Keys that depend on a prompt's id and a sample's number alone, so on no batch, row or neighbor."""
    fold = jax.random.fold_in
    of_prompt = jax.vmap(fold, (None, 0))(key, ids)
    return jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(of_prompt, jnp.arange(samples))


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def generate(
    model: LanguageModel,
    variables: PyTree,
    tokens: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    keys: Key[Array, "B K"],
    settings: Settings,
) -> Samples:
    """K completions of each prompt.

    Args:
      model: a decoder, or an encoder–decoder, whose encoder then reads the prompt. Fastest on CPU with
        unroll=layers, which lets the cache be written in place.
      variables: its collections.
      tokens: prompts, padded on the left.
      lengths: tokens of each, in [1, P].
      keys: of `sample_keys`.
      settings: as `Settings` says.

    Raises: ValueError on settings outside their range, an encoder, or more tokens than learned positions.
    """
    weights = layered(variables, model.transformer.dtype)
    state = start(model, weights, tokens, lengths, keys, settings)
    return decode(model, weights, state, settings).samples


def padded(prompts: Sequence[np.ndarray], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Prompts as `generate` takes them: "tokens" [B, P], padded on the left, and "lengths" [B]."""
    tokens = np.full((len(prompts), length), pad_id, np.int32)
    for row, ids in zip(tokens, prompts, strict=True):
        row[length - len(ids) :] = ids
    return {"tokens": tokens, "lengths": np.array([len(p) for p in prompts], np.int32)}


def start(
    model: LanguageModel,
    weights: PyTree,
    tokens: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    keys: Key[Array, "B K"],
    settings: Settings,
) -> State:
    """Reads the prompts, all but their last tokens. weights: of `layered`; other arguments as of `generate`."""
    filters.check(settings)
    config, dtype = model.transformer.config, model.transformer.dtype
    rows, longest = tokens.shape
    samples, new = keys.shape[1], settings.max_new_tokens
    _fits(config, longest + new)
    at = jnp.maximum(jnp.arange(longest)[None] - (longest - lengths)[:, None], 0)
    segments = (jnp.arange(longest)[None] >= (longest - lengths)[:, None]).astype(jnp.int32)
    prompt, last, options = lengths, tokens[:, -1], {}
    trunk = tokens[:, :-1], at[:, :-1], segments[:, :-1]
    if config.kind == "encoder_decoder":
        options = {"source": Source(tokens, at, segments)}
        prompt, last = jnp.ones_like(lengths), jnp.zeros_like(last)  # the decoder begins with a 0
        trunk = (jnp.zeros((rows, 1), jnp.int32),) * 3  # a token of padding
    shared = trunk[0].shape[1]
    # Where no heads share keys, XLA on CPU would convert all of a bfloat16 cache at every step.
    converts = jax.default_backend() == "cpu" and config.kv_heads == config.heads
    kept = "float32" if converts else dtype
    cache = empty_cache(config, rows, shared + new * samples, kept)
    cache |= {name: _cut(cache[name]) for name in ("key", "value")}
    if shared:
        _, cache = read(model, weights, cache, *trunk, **options)
    present = None
    if settings.repetition_penalty != 1:
        counts = (segments > 0) & (config.kind == "decoder")
        present = jnp.zeros((rows, config.vocab_size), bool)
        present = present.at[jnp.arange(rows)[:, None], tokens].max(counts)
        present = jnp.repeat(present[:, None], samples, axis=1)
    none = Samples(
        tokens=jnp.full((rows, samples, new), settings.pad_token, jnp.int32),
        log_probs=jnp.zeros((rows, samples, new), jnp.float32),
        lengths=jnp.zeros((rows, samples), jnp.int32),
        stopped=jnp.zeros((rows, samples), bool),
    )
    last = jnp.repeat(last[:, None], samples, axis=1).astype(jnp.int32)
    return State(cache, last, prompt.astype(jnp.int32), present, keys, none)


def decode(
    model: LanguageModel,
    weights: PyTree,
    state: State,
    settings: Settings,
    enough: int | Int[Array, ""] | None = None,
) -> State:
    """The state once `enough` rows have ended, all if None: every sample of theirs. Ended ones stay as they are."""
    most = len(state.prompt) if enough is None else enough

    def unfinished(now):
        return jnp.sum(jnp.all(ended(now, settings), axis=1)) < most

    return jax.lax.while_loop(unfinished, lambda now: _step(model, weights, now, settings), state)


def ended(state: State, settings: Settings) -> Bool[Array, "B K"]:
    """Which samples have ended, by a stop token or by length."""
    return state.samples.stopped | (state.samples.lengths >= settings.max_new_tokens)


def _step(model: LanguageModel, weights: PyTree, state: State, settings: Settings) -> State:
    """Reads each sample's last token and draws its next."""
    made, live = state.samples, ~ended(state, settings)
    samples, count = made.lengths.shape[1], made.lengths
    branches = jnp.broadcast_to(jnp.arange(1, samples + 1)[None], count.shape)
    places = state.prompt[:, None] - 1 + count, live.astype(jnp.int32)
    logits, cache = read(model, weights, state.cache, state.last, *places, branches=branches)
    drawn, log_probs = _choose(logits, state, settings)
    drawn = jnp.where(live, drawn, settings.pad_token)
    here = (jnp.arange(made.tokens.shape[2])[None, None] == count[..., None]) & live[..., None]
    grown = Samples(
        tokens=jnp.where(here, drawn[..., None], made.tokens),
        log_probs=jnp.where(here, log_probs[..., None], made.log_probs),
        lengths=count + live,
        stopped=made.stopped | (live & filters.is_stop(drawn, settings.stop_tokens)),
    )
    present = state.present
    if present is not None:
        row, sample = jnp.indices(count.shape)
        present = present.at[row, sample, drawn].max(live)
    return State(
        _wrap(cache, samples * settings.max_new_tokens),
        drawn,
        state.prompt,
        present,
        state.keys,
        grown,
    )


def _choose(
    logits: Float[Array, "B K V"], state: State, settings: Settings
) -> tuple[Int[Array, "B K"], Float[Array, "B K"]]:
    """The next tokens, and the policy's log-probabilities of them."""
    count, scale = state.samples.lengths, settings.temperature or 1.0
    policy = draw.weigh(logits / scale)
    allowed = filters.apply(logits, count, state.present, settings)
    if settings.temperature == 0:
        drawn = draw.likeliest(allowed)
    else:
        keys = jax.vmap(jax.vmap(jax.random.fold_in))(state.keys, count)
        exact = filters.exact(settings)
        drawn = draw.categorical(keys, policy if exact else draw.weigh(allowed))
    own = jnp.take_along_axis(logits, drawn[..., None], axis=-1)[..., 0]
    return drawn, own / scale - draw.log_total(policy)


def _fits(config: Any, total: int) -> None:
    if config.kind == "encoder":
        raise ValueError("an encoder cannot generate; give a decoder or an encoder–decoder")
    most = config.max_positions - config.first_position
    if config.positions == "learned" and total > most:
        raise ValueError(
            f"prompts and new tokens are {total} tokens together; the model has {most} positions"
        )


def layered(variables: PyTree, dtype: str) -> PyTree:
    """The weights as decoding reads them fastest: each layer's an array of its own, and kernels either of the products'
    type or, where that is float32, transposed."""
    found = {}
    for path, x in flatten_dict(variables).items():
        if path[-1] == "kernel" and dtype == "float32":
            path, x = (*path[:-1], "transposed"), jnp.swapaxes(jnp.asarray(x), -1, -2)
        found[path] = _cut(x) if "blocks" in path else x
    return unflatten_dict(found)


def read(
    model: LanguageModel, weights: PyTree, cache: PyTree, *inputs: Array, **options: Any
) -> tuple[Float[Array, "B T V"], PyTree]:
    """The model's logits, and the grown cache, where weights and cache have their layers apart.

    XLA then reads weights where they are and writes the cache in place: layers that are stacked up here and that an
    unrolled model slices again are the same arrays. One array of all layers would be copied every step.
    """
    found: dict[Any, Any] = dict(flatten_dict(weights))
    for path, x in found.items():
        found[path] = jnp.stack(x) if "blocks" in path else x
    whole = cache | {name: jnp.stack(cache[name]) for name in ("key", "value")}
    made: Any = model.apply(unflatten_dict(found), *inputs, cache=whole, **options)
    return made[0], made[1] | {name: _cut(made[1][name]) for name in ("key", "value")}


def _cut(layers: Any) -> tuple[Array, ...]:
    return tuple(layers[i] for i in range(len(layers)))


def _wrap(cache: dict[str, Any], ring: int) -> dict[str, Any]:
    """Back to the ring's first slot after its last."""
    slots = cache["places"][0].shape[1]
    length = cache["length"]
    return cache | {"length": jnp.where(length == slots, slots - ring, length)}
