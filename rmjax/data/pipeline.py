"""Packed batches with static shapes, each a pure function of (seed, k).

Legend: R rows, T tokens, P scored texts in a row, Q pairs in a row.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import grain.python as grain
import numpy as np

from rmjax.data.examples import Examples
from rmjax.data.packing import balanced_batches, best_row_length, first_fit, pack

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static bounds of every batch of a run."""

    rows: int
    row_length: int
    texts: int  # per row
    pairs: int  # per row, 0 for single texts


@dataclasses.dataclass(frozen=True)
class Batches:
    """`batches[k]` for k in range(len(batches)): tokens, segments, positions [R, T], score_at, text_weight and
    the texts' arrays [R, P], chosen, rejected, pair_weight and the pairs' arrays [R, Q], row [R].
    """

    examples: Examples
    plans: list[list[list[np.ndarray]]]  # epoch -> batch -> group -> indices of texts
    shape: Shape
    steps: int
    offer: tuple[str, ...]
    rows_multiple: int
    pad_id: int

    def __len__(self) -> int:
        """Steps of the run."""
        return self.steps

    def __getitem__(self, k: int) -> Batch:
        """The batch of step k."""
        if not 0 <= k < self.steps:
            raise IndexError(f"step {k} of {self.steps}")
        epoch, place = divmod(k, len(self.plans[0]))
        return assemble(
            self.examples, self.plans[epoch][place], self.shape, self.offer, self.pad_id
        )

    @property
    def padding(self) -> float:
        """The share of token slots that hold padding, over the run's full-sized batches."""
        full = [b for plan in self.plans for b in plan if len(b) == len(self.plans[0][0])]
        used = sum(int(_group_lengths(self.examples, b).sum()) for b in full)
        return 1 - used / (len(full) * self.shape.rows * self.shape.row_length)


def batches(
    examples: Examples,
    *,
    seed: int,
    epochs: float,
    batch_size: int,
    group_size: int = 1,
    offer: Sequence[str] = (),
    rows_multiple: int = 1,
    pad_id: int = 0,
) -> Batches:
    """Draws groups, then batches of exactly `batch_size` groups (an epoch's last may be smaller), then rows.

    rows_multiple: the number of rows is rounded up to a multiple of it (devices, micro-batches); which texts
      meet in which batch and row does not depend on it.
    """

    def plan_epoch(rng: np.random.Generator) -> list[list[np.ndarray]]:
        groups = examples.groups(rng, group_size)
        lengths = _group_lengths(examples, groups)
        return [[groups[i] for i in b] for b in balanced_batches(lengths, batch_size, rng)]

    plans = [plan_epoch(np.random.default_rng([seed, e])) for e in range(math.ceil(epochs))]
    steps = max(round(epochs * len(plans[0])), 1)
    shape = _bounds(examples, plans, rows_multiple)
    return Batches(examples, plans, shape, steps, tuple(offer), rows_multiple, pad_id)


def assemble(
    examples: Examples,
    groups: Sequence[np.ndarray],
    shape: Shape,
    offer: Sequence[str],
    pad_id: int,
) -> Batch:
    """Lays groups into rows; everything beyond them has weight 0."""
    r, t, p, q = shape.rows, shape.row_length, shape.texts, shape.pairs
    batch, used, texts = _empty(shape, pad_id)
    batch["text_weight"] = np.zeros((r, p), np.float32)
    batch["row"] = np.arange(r, dtype=np.int32)
    for name, values in examples.per_text.items():
        batch[name] = np.zeros((r, p, *values.shape[1:]), values.dtype)
    if q:
        for name in ("chosen", "rejected"):
            batch[name] = np.zeros((r, q), np.int32)
        for name in ("pair_weight", *offer):
            batch[name] = np.zeros((r, q), np.float32)
    pairs = np.zeros(r, np.int64)
    # Rows of one text are the padded layout that benchmarks compare with.
    alone = p == 1 and len(groups) <= r
    rows = (
        range(len(groups)) if alone else pack(_group_lengths(examples, groups)[None], t)[0].tolist()
    )
    for row, group in zip(rows, groups, strict=True):
        if q:
            formed = examples.pairs(group, offer)
            place = slice(pairs[row], pairs[row] + len(formed["chosen"]))
            for name, values in formed.items():
                batch[name][row, place] = values + (
                    texts[row] if name in ("chosen", "rejected") else 0
                )
            pairs[row] = place.stop
        for text in group:
            batch["text_weight"][row, texts[row]] = examples.weight[text]
            for name, values in examples.per_text.items():
                batch[name][row, texts[row]] = values[text]
            _lay_text(batch, examples.tokens[text], row, used, texts)
    return batch


def iterate(source: Batches, start: int) -> Iterator[Batch]:
    """The batches from step `start` on, assembled ahead of their use."""
    steps = grain.MapDataset.range(start, len(source)).map(lambda k: source[int(k)])
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def score_batches(
    tokens: Sequence[np.ndarray], *, pad_id: int, rows_multiple: int = 1, budget: int = 2048
) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
    """Packs texts for scoring: (batch, indices of its texts [M], their places in [R * P]) until all are in.

    Few shapes serve any texts: a row length is a power of two from 64 up, and rows fill `budget` tokens.
    """
    lengths = np.array([len(t) for t in tokens], np.int64)
    bucket = 2 ** np.ceil(np.log2(np.maximum(lengths, 64))).astype(np.int64)
    for row_length in np.unique(bucket):
        members = np.flatnonzero(bucket == row_length)
        per_row = int(row_length) // 8  # a text takes at least 8
        row = first_fit(np.maximum(lengths[members], 8)[None], int(row_length))[0]
        rows = max(budget // int(row_length) // rows_multiple, 1) * rows_multiple
        shape = Shape(rows, int(row_length), per_row, 0)
        for start in range(0, int(row.max()) + 1, rows):
            yield _lay_rows(tokens, members, row - start, shape, pad_id)


def _lay_rows(
    tokens: Sequence[np.ndarray], members: np.ndarray, row: np.ndarray, shape: Shape, pad_id: int
) -> tuple[Batch, np.ndarray, np.ndarray]:
    batch, used, texts = _empty(shape, pad_id)
    inside = (row >= 0) & (row < shape.rows)
    places = []
    for text, r in zip(members[inside], row[inside].tolist(), strict=True):
        places.append(r * shape.texts + texts[r])
        _lay_text(batch, tokens[text], r, used, texts)
    return batch, members[inside], np.array(places, np.int64)


def _empty(shape: Shape, pad_id: int) -> tuple[Batch, np.ndarray, np.ndarray]:
    """A batch of padding, and the tokens and texts that each row holds so far."""
    r, t, p = shape.rows, shape.row_length, shape.texts
    batch: Batch = {
        "tokens": np.full((r, t), pad_id, np.int32),
        "segments": np.zeros((r, t), np.int32),
        "positions": np.zeros((r, t), np.int32),
        "score_at": np.zeros((r, p), np.int32),
    }
    return batch, np.zeros(r, np.int64), np.zeros(r, np.int64)


def _lay_text(
    batch: Batch, tokens: np.ndarray, row: int, used: np.ndarray, texts: np.ndarray
) -> None:
    span = slice(used[row], used[row] + len(tokens))
    batch["tokens"][row, span] = tokens
    batch["segments"][row, span] = texts[row] + 1
    batch["positions"][row, span] = np.arange(len(tokens))
    batch["score_at"][row, texts[row]] = span.stop - 1
    used[row], texts[row] = span.stop, texts[row] + 1


def stack(parts: Sequence[Batches]) -> list[Batches]:
    """The batches of several seeds brought to common bounds, so that they stack on a leading axis."""
    first, plans = parts[0], [plan for part in parts for plan in part.plans]
    shape = _bounds(first.examples, plans, first.rows_multiple)
    return [dataclasses.replace(part, shape=shape) for part in parts]


def _bounds(
    examples: Examples, plans: Sequence[list[list[np.ndarray]]], rows_multiple: int
) -> Shape:
    """The bounds that hold every batch of the plans with least padding."""
    batches = [batch for plan in plans for batch in plan]
    lengths = np.zeros((len(batches), max(map(len, batches))), np.int64)
    sizes = np.zeros_like(lengths)
    for i, batch in enumerate(batches):
        lengths[i, : len(batch)] = _group_lengths(examples, batch)
        sizes[i, : len(batch)] = [len(group) for group in batch]
    row_length = best_row_length(lengths)
    rows = pack(lengths, row_length)
    place = (rows + np.arange(len(rows))[:, None] * rows.shape[1]).ravel()
    most = lambda counts: int(np.bincount(place, counts.ravel()).max())
    count = -(-(int(rows.max()) + 1) // rows_multiple) * rows_multiple
    return Shape(count, row_length, most(sizes), most(sizes * (sizes - 1) // 2))


def _group_lengths(examples: Examples, groups: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([examples.lengths[group].sum() for group in groups], np.int64)
