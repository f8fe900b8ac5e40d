"""Beam search: the likeliest completions that a bounded search finds.

Legend: B prompts, P prompt tokens, W beams, C new tokens, N candidates, V vocabulary.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from rmjax.models.transformer import LanguageModel
from rmjax.sampling import filters, generate


class Beams(NamedTuple):
    """The best completions of each prompt, best first; one that was not found has score -inf and length 0.

    tokens: int32 [B, W, C], a stop token included, 0 after the end.
    log_probs: float32 [B, W], of the whole completion, nats.
    scores: float32 [B, W], log_probs over the length penalty.
    lengths: int32 [B, W]. stopped: bool [B, W], by a stop token, not by length.
    """

    tokens: PyTree
    log_probs: PyTree
    scores: PyTree
    lengths: PyTree
    stopped: PyTree


class _Search(NamedTuple):
    count: Any  # [], tokens of every open beam
    last: Any  # [B W, 1], what each open beam reads next
    cache: Any  # of B W rows
    tokens: Any  # [B, W, C], of open beams
    log_probs: Any  # [B, W], of open beams
    found: Beams


@functools.partial(
    jax.jit, static_argnames=("model", "beams", "max_new_tokens", "stop_tokens", "length_penalty")
)
def search(
    model: LanguageModel,
    variables: PyTree,
    tokens: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    *,
    beams: int,
    max_new_tokens: int,
    stop_tokens: tuple[int, ...] = (),
    length_penalty: float = 0.0,
) -> Beams:
    """The best completions by log p / ((5 + length) / 6)^length_penalty.

    At each step the W likeliest ways to go on are kept; those of them that stop are set aside, and the next likeliest
    take their places. One beam without penalty is greedy decoding. Ends early where nothing open can get better than
    what was found.

    Args:
      model, variables, tokens, lengths: as of `generate.generate`.
      beams: W, >= 1.
      max_new_tokens: C, >= 1.
      stop_tokens: any of them ends a completion.
      length_penalty: >= 0; 0 ranks by probability, more favors longer completions.

    Raises: ValueError on a value outside its range, and as `generate.generate`.
    Source: Wu et al. 2016 (arXiv:1609.08144) section 7, without its coverage penalty.
    """
    vocabulary = model.transformer.config.vocab_size
    if beams < 1:
        raise ValueError(f"beams must be at least 1, got {beams}")
    if not length_penalty >= 0:
        raise ValueError(f"length_penalty must not be negative, got {length_penalty}")
    rows, wide = len(tokens), len(tokens) * beams
    settings = filters.Settings(max_new_tokens, temperature=0.0, stop_tokens=stop_tokens)
    unused = generate.sample_keys(jax.random.key(0), jnp.arange(rows), 1)
    weights = generate.layered(variables, model.transformer.dtype)
    begun = generate.start(model, weights, tokens, lengths, unused, settings)
    each = lambda x: jnp.repeat(x, beams, axis=0) if x.ndim else x
    prompt, penalty = each(begun.prompt)[:, None], lambda n: ((5 + n) / 6) ** length_penalty

    def step(now: _Search) -> _Search:
        ones = jnp.ones((wide, 1), jnp.int32)
        places = prompt - 1 + now.count, ones
        logits, cache = generate.read(model, weights, now.cache, now.last, *places, branches=ones)
        further = jax.nn.log_softmax(logits[:, 0]).reshape(rows, beams, vocabulary)
        total = (now.log_probs[..., None] + further).reshape(rows, -1)
        # Of so many candidates at least W do not stop.
        most = min(beams * (1 + len(stop_tokens)), beams * vocabulary)
        best, at = jax.lax.top_k(total, most)
        parent, drawn = at // vocabulary, (at % vocabulary).astype(jnp.int32)
        grown = jnp.take_along_axis(now.tokens, parent[..., None], axis=1)
        grown = grown.at[:, :, now.count].set(drawn)
        stops = filters.is_stop(drawn, stop_tokens)
        length = now.count + 1
        among = (jnp.arange(most) < beams)[None]
        ends = (stops & among) | ((length == max_new_tokens) & among)
        candidates = _rank(grown, jnp.where(ends, best, -jnp.inf), length, stops, penalty)
        found = _best(now.found, candidates, beams)
        log_probs, pick = jax.lax.top_k(jnp.where(stops, -jnp.inf, best), beams)
        take = lambda x: jnp.take_along_axis(x, pick.reshape(*pick.shape, *(1,) * (x.ndim - 2)), 1)
        source = (take(parent) + beams * jnp.arange(rows)[:, None]).reshape(-1)
        cache = jax.tree.map(lambda x: x[source] if x.ndim else x, cache)
        return _Search(length, take(drawn).reshape(-1, 1), cache, take(grown), log_probs, found)

    def open_to_better(now: _Search):
        # Sums only fall, and the penalty is largest at the end.
        reach = jnp.max(now.log_probs, axis=1) / penalty(max_new_tokens)
        return (now.count < max_new_tokens) & jnp.any(reach > jnp.min(now.found.scores, axis=1))

    nothing = jnp.full((rows, beams), -jnp.inf, jnp.float32)
    none = jnp.zeros((rows, beams, max_new_tokens), jnp.int32)
    zero = jnp.zeros((rows, beams), jnp.int32)
    begin = _Search(
        count=jnp.zeros((), jnp.int32),
        last=each(begun.last),
        cache=jax.tree.map(each, begun.cache),
        tokens=none,
        log_probs=nothing.at[:, 0].set(0.0),  # all beams begin alike: one counts
        found=Beams(none, nothing, nothing, zero, zero > 0),
    )
    return jax.lax.while_loop(open_to_better, step, begin).found


def _rank(
    tokens: Int[Array, "B N C"],
    log_probs: Float[Array, "B N"],
    length: Array,
    stopped: Array,
    penalty,
) -> Beams:
    """Completions of one length as `Beams`; those of log-probability -inf are none."""
    real = log_probs > -jnp.inf
    return Beams(
        tokens, log_probs, log_probs / penalty(length), jnp.where(real, length, 0), stopped & real
    )


def _best(found: Beams, more: Beams, count: int) -> Beams:
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), found, more)
    _, at = jax.lax.top_k(both.scores, count)
    pick = lambda x: jnp.take_along_axis(x, at.reshape(*at.shape, *(1,) * (x.ndim - 2)), axis=1)
    best = jax.tree.map(pick, both)
    return best._replace(tokens=jnp.where(best.lengths[..., None] > 0, best.tokens, 0))
