"""Which texts share a row: first-fit by length, and batches of equal length profile.

Only lengths come in, so a plan is cheap to draw for every epoch of a run before it starts.
"""

import numpy as np


def first_fit(lengths: np.ndarray, row_length: int, most: int | None = None) -> np.ndarray:
    """The row of each item [G]: longest first, into the first row with room (Johnson 1974).

    most: items that a row may hold; None for any number.
    Raises: ValueError if an item is longer than a row.
    """
    if len(lengths) and lengths.max() > row_length:
        raise ValueError(f"an item of {lengths.max()} tokens does not fit a row of {row_length}")
    rows = np.zeros(len(lengths), np.int64)
    room = np.full(len(lengths), row_length)
    held = np.zeros(len(lengths), np.int64)
    for item in np.argsort(-lengths, kind="stable"):
        row = int(np.argmax(room >= lengths[item]))
        rows[item] = row
        room[row] -= lengths[item]
        held[row] += 1
        if held[row] == most:
            room[row] = -1
    return rows


def balanced_batches(
    lengths: np.ndarray, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """A random partition of the items into batches of exactly `batch_size`, the last perhaps smaller.

    Every full batch holds one item of each of `batch_size` length strata, the longer ones going where fewer
    tokens lie, so that all need about the same number of rows. Items of about one length fall at random.
    """
    order = rng.permutation(len(lengths))
    full = len(lengths) // batch_size
    rest = order[full * batch_size :]
    strata = order[: full * batch_size]
    strata = strata[np.argsort(-lengths[strata], kind="stable")].reshape(batch_size, full)
    batches = np.zeros((full, batch_size), np.int64)
    totals = np.zeros(full, np.int64)
    for column, stratum in enumerate(strata):
        emptiest = np.argsort(totals + rng.random(full), kind="stable")
        batches[emptiest, column] = stratum
        totals[emptiest] += lengths[stratum]
    found = [batches[i] for i in rng.permutation(full)]
    return [*found, rest] if len(rest) else found


def best_row_length(batches: list[np.ndarray], limit: int) -> int:
    """The row length that pads least: a multiple of 8 that holds the longest item, up to `limit`.

    batches: lengths of each batch's items. Attention costs more in longer rows, so the search ends at
    twice the longest item, and the shortest of equals wins.
    """
    longest = max(int(b.max()) for b in batches)
    first = min(-(-longest // 8) * 8, limit)
    sample = batches[:: max(len(batches) // 32, 1)]
    candidates = range(first, min(max(2 * first, 64), limit) + 1, 8)
    area = {t: t * max(int(first_fit(b, t).max()) + 1 for b in sample) for t in candidates}
    return min(area, key=lambda t: (area[t], t))
