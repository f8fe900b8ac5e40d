"""Continuous batching: rows whose samples have all ended are handed out and go on with prompts that wait.

Three programs whatever comes: one reads a few prompts, one writes them over ended rows, one decodes until enough rows
have ended.
Legend: B rows that decode together, N rows replaced at a time, P prompt tokens, K samples of a prompt.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from rmjax.models.transformer import LanguageModel
from rmjax.sampling.filters import Settings
from rmjax.sampling.generate import Samples, State, decode, ended, layered, padded, start

MULTIPLE = 32  # of tokens: so few lengths of prompts are compiled for


class Waiting(NamedTuple):
    """A prompt that waits: its tokens, and the key data uint32 [K, 2] of its samples."""

    ids: Int[np.ndarray, " P"]
    keys: Int[np.ndarray, "K 2"]


def stream(
    model: LanguageModel,
    variables: PyTree,
    prompts: Iterable[Waiting],
    settings: Settings,
    *,
    longest: int,
    rows: int,
    replaced: int = 0,
) -> Iterator[Samples]:
    """The samples [K, C] of each prompt, in the order of prompts; they do not depend on `rows` or on neighbors.

    Prompts are taken as rows become free for them, none ahead, so they may be endless or asked for one by one.

    Args:
      model, variables: as of `generate.generate`.
      prompts: all of one K. One longer than all before it waits until these have ended, for there is no room for it.
      settings: as `Settings` says.
      longest: tokens of a prompt, at most.
      rows: B, >= 1.
      replaced: N, in [1, B]: so many rows must have ended before they are replaced; 0: an eighth of B.

    Raises: ValueError on numbers outside their range, a prompt longer than `longest`, and as `generate.generate`.
    """
    few = replaced or max(rows // 8, 1)
    if not 1 <= few <= rows:
        raise ValueError(f"rows {rows} and replaced {replaced} must be in 1 <= replaced <= rows")
    weights = jax.jit(layered, static_argnums=1)(variables, model.transformer.dtype)
    waiting, room = iter(prompts), 0
    first = next(waiting, None)

    def fitting() -> Iterator[Waiting]:
        nonlocal first
        while first is not None and len(first.ids) <= room:
            yield first
            first = next(waiting, None)

    while first is not None:
        if len(first.ids) > longest:
            raise ValueError(f"a prompt has {len(first.ids)} tokens, more than longest={longest}")
        room = min(-(-len(first.ids) // MULTIPLE) * MULTIPLE, longest)
        yield from _answered(model, weights, fitting(), settings, rows, few, room)


def _answered(
    model: LanguageModel,
    weights: PyTree,
    prompts: Iterator[Waiting],
    settings: Settings,
    rows: int,
    few: int,
    room: int,
) -> Iterator[Samples]:
    """`stream` of prompts of at most `room` tokens, of which there are some."""
    state, more = None, True
    begun, given = 0, 0  # prompts that have a row or had one, and those handed out
    holds = np.full(rows, -1)  # the number of the prompt that a row answers; -1: none
    done: dict[int, Samples] = {}
    while more or np.any(holds >= 0):
        while more and np.sum(holds < 0) >= few:
            own = list(itertools.islice(prompts, few))
            more = len(own) == few
            if own:
                into = np.flatnonzero(holds < 0)[: len(own)]
                holds[into] = begun + np.arange(len(own))
                begun += len(own)
                # The last is read again where there are fewer.
                full = own + own[-1:] * (few - len(own))
                batch = padded([one.ids for one in full], room, settings.pad_token)
                keys = np.stack([one.keys for one in full])
                new = _read(model, weights, batch["tokens"], batch["lengths"], keys, settings)
                state = _blank(new, rows) if state is None else state
                # Rows past the last are of no prompt: nothing is written for them.
                state = refill(state, new, np.append(into, np.full(few - len(own), rows)))
        state, over = _decode(model, weights, state, settings, few if more else rows)
        made = jax.tree.map(np.asarray, state.samples)
        for row in np.flatnonzero(np.asarray(over) & (holds >= 0)):
            done[int(holds[row])] = Samples(*(x[row].copy() for x in made))
            holds[row] = -1
        while given in done:
            yield done.pop(given)
            given += 1


@functools.partial(jax.jit, donate_argnames=("state",))
def refill(state: State, new: State, rows: Int[Array, " N"]) -> State:
    """The state with `rows` of it replaced by those of a state that just began; numbers past its last row: none.

    The ring stands at the same slot for all rows, so a new one begins there and not at its start.
    """
    put = lambda old, own: old.at[rows].set(own, mode="drop") if old.ndim else old
    return jax.tree.map(put, state, new)


def _blank(new: State, rows: int) -> State:
    """A state of `rows` rows that hold no prompt: all have ended."""
    state = jax.tree.map(lambda x: jnp.repeat(x[:1], rows, axis=0) if x.ndim else x, new)
    none = jnp.ones_like(state.samples.stopped)
    return state._replace(samples=state.samples._replace(stopped=none))


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _read(
    model: LanguageModel,
    weights: PyTree,
    tokens: Array,
    lengths: Array,
    keys: Array,
    settings: Settings,
) -> State:
    return start(model, weights, tokens, lengths, jax.random.wrap_key_data(keys), settings)


@functools.partial(jax.jit, static_argnames=("model", "settings"), donate_argnames=("state",))
def _decode(
    model: LanguageModel, weights: PyTree, state: State, settings: Settings, enough: Array
) -> tuple[State, Array]:
    """The state once `enough` rows have ended, and which have."""
    state = decode(model, weights, state, settings, enough=enough)
    return state, jnp.all(ended(state, settings), axis=1)
