"""Which texts share a row, and batches of equal length profile.

Only lengths come in, so a plan is cheap to draw for every epoch of a run before it starts.
Legend: B batches, G items of a batch, R rows, T tokens.
"""

import heapq
import math
from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 512  # items that `pack_all` packs together


def first_fit(lengths: np.ndarray, row_length: int) -> np.ndarray:
    """The row of each item [B, G]: longest first, into the first row with room (Johnson 1974).

    Raises: ValueError if an item is longer than a row.
    """
    if lengths.size and lengths.max() > row_length:
        raise ValueError(f"an item of {lengths.max()} tokens does not fit a row of {row_length}")
    first = lambda room, length: np.argmax(room >= length[:, None], axis=1)
    return _place(lengths, np.full(lengths.shape, row_length), first)


def pack(lengths: np.ndarray, row_length: int) -> np.ndarray:
    """The row of each item [B, G]: by first fit, or one row fewer where the emptiest-row rule manages that.

    The latter pairs the longest items with the shortest, better where a row holds but two or three.
    Raises: ValueError if an item is longer than a row.
    """
    rows = first_fit(lengths, row_length)
    fewer = np.arange(lengths.shape[1]) < np.maximum(rows.max(axis=1, keepdims=True), 1)
    room = np.where(fewer, row_length, -1)
    level = _place(lengths, room, lambda room, _: np.argmax(room, axis=1))
    return np.where(np.all(~fewer | (room >= 0), axis=1, keepdims=True), level, rows)


def _place(lengths: np.ndarray, room: np.ndarray, choose: Callable) -> np.ndarray:
    """Rows by the rule `choose`, longest item first; `room` [B, rows] is used up."""
    rows = np.zeros(lengths.shape, np.int64)
    batch = np.arange(len(lengths))
    for item in np.argsort(-lengths, axis=1, kind="stable").T:
        length = lengths[batch, item]
        rows[batch, item] = row = choose(room, length)
        room[batch, row] -= length
    return rows


def balanced_batches(
    lengths: np.ndarray, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """A random partition of the items into batches of exactly `batch_size`, the last perhaps smaller.

    From the longest on, each item goes to the batch with fewest tokens that is not full, so that all need about
    the same number of rows. Items of about one length fall at random.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    full, left = divmod(len(lengths), batch_size)
    # The last is spread over all lengths as well, or it could need more rows than a full one.
    last = (
        [rng.choice(part) for part in np.array_split(np.arange(len(order)), left)] if left else []
    )
    batches: list[list[int]] = [[] for _ in range(full)]
    open_batches = [(0, i) for i in range(full)]
    for item in np.delete(order, last).tolist():
        tokens, i = heapq.heappop(open_batches)
        batches[i].append(item)
        if len(batches[i]) < batch_size:
            heapq.heappush(open_batches, (tokens + int(lengths[item]), i))
    found = [np.array(batches[i]) for i in rng.permutation(full)]
    return [*found, order[last]] if left else found


def visible_tiles(segments: np.ndarray, size: int, *, causal: bool) -> tuple[np.ndarray, ...]:
    """(row, query tile, key tile) of every pair of tiles that hold tokens of one segment; a tile is `size` tokens.

    segments: [R, T], 1, 2, ... in order and 0 behind them. causal: no key tile lies after its query tile.
    """
    rows, length = segments.shape
    padded = np.pad(segments, ((0, 0), (0, -length % size))).reshape(rows, -1, size)
    last = padded.max(axis=2)
    first = np.where(padded > 0, padded, np.iinfo(padded.dtype).max).min(axis=2)
    seen = (first[:, :, None] <= last[:, None, :]) & (first[:, None, :] <= last[:, :, None])
    return np.nonzero(np.tril(seen) if causal else seen)


def best_row_length(
    lengths: np.ndarray, padding: float = 0.05, choices: Sequence[int] | None = None
) -> int:
    """The shortest row length whose share of padding is at most `padding`; if none will do, the one that pads least.

    lengths: of each batch's items [B, G], 0 where there is none.
    choices: ascending, all of which hold the longest item; default: multiples of 8, up to four times the longest
      item because attention costs more in longer rows.
    """
    if choices is None:
        first = -(-max(int(lengths.max()), 8) // 8) * 8
        choices = range(first, max(4 * first, 64) + 1, 8)
    totals = lengths.sum(axis=1)
    enough = float(np.median(totals)) / (1 - padding)
    best = (math.inf, choices[0])
    for t in choices:
        at_least = t * -(-int(totals.max()) // t)  # no packing takes less
        if at_least < best[0]:
            best = min(best, (t * (int(pack(lengths, t).max()) + 1), t))
        if best[0] <= enough:
            break
    return best[1]


def pack_all(lengths: np.ndarray, longest_row: int) -> tuple[int, np.ndarray]:
    """One row length for all items, and the row of each [N]: whatever they are, few row lengths serve.

    It is a power of two from 64 up: the smallest that holds the longest item, or up to four times that where it pads
    less, though not beyond `longest_row`. Any number of items is quick: they are packed in blocks of like lengths.
    """
    order = np.argsort(-lengths, kind="stable")
    blocks = -(-len(order) // BLOCK)
    deep = -(-len(order) // blocks)
    table = np.append(lengths[order], np.zeros(blocks * deep - len(order), np.int64))
    table = table.reshape(deep, blocks).T
    first = max(64, 2 ** math.ceil(math.log2(max(int(lengths.max()), 1))))
    choices = [t for t in (first, 2 * first, 4 * first) if t <= max(first, longest_row)]
    row_length = best_row_length(table, choices=choices)
    rows = pack(table, row_length)
    rows += np.cumsum(np.append(0, rows[:-1].max(axis=1) + 1))[:, None]
    found = np.empty(len(order), np.int64)
    found[order] = rows.T.ravel()[: len(order)]
    return row_length, found
