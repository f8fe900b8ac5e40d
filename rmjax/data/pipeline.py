"""Packed batches with static shapes, each a pure function of (seed, k).

Legend: R rows, T tokens, P scored texts in a row, L tokens to predict in a row, Q pairs in a row, N pairs of tiles in
a row.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import grain.python as grain
import numpy as np

from rmjax.data.examples import Examples
from rmjax.data.packing import (
    balanced_batches,
    best_row_length,
    pack,
    pack_all,
    visible_tiles,
)

Batch = dict[str, np.ndarray]
TILES_PAY = 0.6  # share of all pairs of tiles above which whole rows are as cheap


class Tiling(NamedTuple):
    """How a model's attention is cut into square tiles."""

    size: int  # tokens
    causal: bool


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static bounds of every batch of a run."""

    rows: int
    row_length: int
    places: int  # scored, per row
    pairs: int  # per row, 0 for single texts
    groups: int  # per row
    group_size: int  # texts of the largest group
    tiles: int  # pairs of tiles that see each other, per row; 0: whole rows do
    targets: int = 0  # tokens to predict, per row, where texts are a language model's


@dataclasses.dataclass(frozen=True)
class Batches:
    """`batches[k]` for k in range(len(batches)): tokens, segments, positions [R, T], score_at, text_weight and
    the texts' arrays [R, P], chosen, rejected, pair_weight and the pairs' arrays [R, Q], row [R]; where prompts are
    shared also branches [R, T]; with lists also group_items, group_ratings, group_mask [R, G, K], group_weight [R, G];
    where rows are much longer than texts also tiles [R, N, 2], as `models.attention` reads them; of a language model's
    texts also target_at (tokens to predict), source_at (the tokens before them), text_of (their text's place; P where
    there is none) and the targets' arrays, all [R, L].
    """

    examples: Examples
    plans: list[list[list[np.ndarray]]]  # epoch -> batch -> group -> indices of texts
    shape: Shape
    steps: int
    offer: tuple[str, ...]
    lists: bool
    rows_multiple: int
    pad_id: int
    tiling: Tiling | None

    def __len__(self) -> int:
        """Steps of the run."""
        return self.steps

    def __getitem__(self, k: int) -> Batch:
        """The batch of step k."""
        if not 0 <= k < self.steps:
            raise IndexError(f"step {k} of {self.steps}")
        epoch, place = divmod(k, len(self.plans[0]))
        groups, shape = self.plans[epoch][place], self.shape
        batch = assemble(
            self.examples, groups, shape, self.offer, lists=self.lists, pad_id=self.pad_id
        )
        if self.tiling is not None and shape.tiles:
            batch["tiles"] = _tiles(batch["segments"], self.tiling, shape.tiles)
        return batch

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
    lists: bool = False,
    rows_multiple: int = 1,
    pad_id: int = 0,
    tiling: Tiling | None = None,
) -> Batches:
    """Draws groups, then batches of exactly `batch_size` groups (an epoch's last may be smaller), then rows.

    offer: the pairs' arrays to lay out. lists: whether to lay out each group as a list.
    rows_multiple: the number of rows is rounded up to a multiple of it (devices, micro-batches); which texts
      meet in which batch and row does not depend on it.
    tiling: lay out which tiles see each other, where that saves attention; None: never.
    """

    def plan_epoch(rng: np.random.Generator) -> list[list[np.ndarray]]:
        groups = examples.groups(rng, group_size)
        lengths = _group_lengths(examples, groups)
        return [[groups[i] for i in b] for b in balanced_batches(lengths, batch_size, rng)]

    plans = [plan_epoch(np.random.default_rng([seed, e])) for e in range(math.ceil(epochs))]
    steps = max(round(epochs * len(plans[0])), 1)
    shape = _bounds(examples, plans, rows_multiple, tiling)
    return Batches(
        examples, plans, shape, steps, tuple(offer), lists, rows_multiple, pad_id, tiling
    )


def assemble(
    examples: Examples,
    groups: Sequence[np.ndarray],
    shape: Shape,
    offer: Sequence[str],
    *,
    lists: bool = False,
    pad_id: int = 0,
    where: np.ndarray | None = None,
) -> Batch:
    """Lays groups into rows; everything beyond them has weight 0. where: the row of each group; None: by packing."""
    rows = _Rows.empty(examples, shape, pad_id)
    batch = rows.batch | _weightless(examples, shape, offer, lists)
    pairs, laid = np.zeros(shape.rows, np.int64), np.zeros(shape.rows, np.int64)
    # Rows of one text are the padded layout that benchmarks compare with.
    alone = shape.places == 1 and len(groups) <= shape.rows
    lengths = _group_lengths(examples, groups)
    packed = pack(lengths[None], shape.row_length)[0] if where is None and not alone else where
    into = np.arange(len(groups)) if packed is None else packed
    for row, group in zip(into.tolist(), groups, strict=True):
        first = rows.places[row]
        rows.lay(row, group)
        for text in group:
            own = slice(*examples.first_place[[text, text + 1]])
            there = slice(first, first := first + own.stop - own.start)
            batch["text_weight"][row, there] = examples.weight[text]
            for name, values in examples.per_text.items():
                batch[name][row, there] = values[own]
        first = rows.places[row] - examples.places(group)
        if shape.pairs:
            formed = examples.pairs(group, offer)
            there = slice(pairs[row], pairs[row] + len(formed["chosen"]))
            for name, values in formed.items():
                index = name in ("chosen", "rejected")
                batch[name][row, there] = values + (first if index else 0)
            pairs[row] = there.stop
        if lists:
            at = (row, laid[row], slice(len(group)))
            batch["group_items"][at] = first + np.arange(len(group))
            if "rating" in examples.per_text or examples.given is not None:
                batch["group_ratings"][at] = examples.rating(group)
            batch["group_mask"][at] = True
            batch["group_weight"][row, laid[row]] = examples.weight[group[0]]
            laid[row] += 1
    return batch


def _weightless(examples: Examples, shape: Shape, offer: Sequence[str], lists: bool) -> Batch:
    """What losses read, before any group is laid."""
    r, p, q = shape.rows, shape.places, shape.pairs
    g, k = shape.groups, shape.group_size
    batch: Batch = {
        "text_weight": np.zeros((r, p), np.float32),
        "row": np.arange(r, dtype=np.int32),
    }
    for name, values in examples.per_text.items():
        batch[name] = np.zeros((r, p, *values.shape[1:]), values.dtype)
    if q:
        batch |= {name: np.zeros((r, q), np.int32) for name in ("chosen", "rejected")}
        batch |= {name: np.zeros((r, q), np.float32) for name in ("pair_weight", *offer)}
    if lists:
        batch |= {
            "group_items": np.zeros((r, g, k), np.int32),
            "group_ratings": np.zeros((r, g, k), np.float32),
            "group_mask": np.zeros((r, g, k), bool),
            "group_weight": np.zeros((r, g), np.float32),
        }
    return batch


def iterate(source: Batches, start: int) -> Iterator[Batch]:
    """The batches from step `start` on, assembled ahead of their use."""
    steps = grain.MapDataset.range(start, len(source)).map(lambda k: source[int(k)])
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def score_batches(
    examples: Examples,
    *,
    pad_id: int,
    rows_multiple: int = 1,
    budget: int = 2048,
    tiling: Tiling | None = None,
) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
    """Packs texts for scoring: (batch, scored places [M], where their scores lie in [R * P]) until all are in.

    All batches of a call have one shape: rows of one length, by `pack_all`, that fill `budget` tokens, and one number
    of tiles. Whatever texts come, there are at most 6 row lengths up to a budget of 2,048, and with each 6 numbers of
    tiles (none, or eighths of all pairs).
    """
    together = examples.fixed if examples.share else None  # else no text needs another in its row
    groups = np.arange(len(examples.tokens))[:, None] if together is None else together
    if not len(groups):
        return
    # A row holds a score every 8 tokens at most.
    lengths = np.array([max(examples.length(g), 8 * examples.places(g)) for g in groups], np.int64)
    row_length, row = pack_all(lengths, budget)
    count = max(budget // row_length // rows_multiple, 1) * rows_multiple
    order = np.argsort(row, kind="stable")
    parts = np.split(order, np.searchsorted(row[order], np.arange(count, row.max() + 1, count)))
    shape = Shape(count, row_length, row_length // 8, 0, 0, 0, 0, row_length)
    if tiling is not None:
        laid = [[groups[i] for i in part] for part in parts]
        most = _most_tiles(examples, laid, [row[part] % count for part in parts], shape, tiling)
        step = max((-(-row_length // tiling.size)) ** 2 // 8, 1)
        shape = dataclasses.replace(shape, tiles=-(-most // step) * step)
    for part in parts:
        rows, found, at = _Rows.empty(examples, shape, pad_id), [], []
        for group, r in zip(part.tolist(), (row[part] % count).tolist(), strict=True):
            first = r * shape.places + int(rows.places[r])
            rows.lay(r, groups[group])
            for text in groups[group]:
                found.append(np.arange(*examples.first_place[[text, text + 1]]))
            at.append(first + np.arange(examples.places(groups[group])))
        if tiling is not None and shape.tiles:
            rows.batch["tiles"] = _tiles(rows.batch["segments"], tiling, shape.tiles)
        yield rows.batch, np.concatenate(found), np.concatenate(at)


@dataclasses.dataclass
class _Rows:
    """Rows of tokens being filled, and how many tokens, scored places and segments each holds so far."""

    examples: Examples
    batch: Batch
    used: np.ndarray
    places: np.ndarray
    segments: np.ndarray
    targets: np.ndarray

    @classmethod
    def empty(cls, examples: Examples, shape: Shape, pad_id: int) -> "_Rows":
        """Nothing but padding."""
        names = ["segments", "positions"] + (["branches"] if examples.share else [])
        size = (shape.rows, shape.row_length)
        batch = {name: np.zeros(size, np.int32) for name in names}
        batch["tokens"] = np.full(size, pad_id, np.int32)
        batch["score_at"] = np.zeros((shape.rows, shape.places), np.int32)
        if examples.starts is not None:
            size = (shape.rows, shape.targets)
            batch |= {name: np.zeros(size, np.int32) for name in ("target_at", "source_at")}
            batch["text_of"] = np.full(size, shape.places, np.int32)
            batch |= {name: np.zeros(size, x.dtype) for name, x in examples.per_token.items()}
        return cls(examples, batch, *np.zeros((4, shape.rows), np.int64))

    def lay(self, row: int, group: np.ndarray) -> None:
        """Puts a group behind what the row holds: a text each in its own segment, or a prompt with its branches."""
        texts, shared = [self.examples.tokens[i] for i in group], self.examples.prefix(group)
        if shared:
            self.segments[row] += 1
            self._write(row, texts[0][:shared], 0, 0)
        fork = int(self.used[row]) - 1  # the last token that the texts share
        for branch, (index, text) in enumerate(zip(group, texts, strict=True), 1):
            self.segments[row] += not shared
            start = int(self.used[row]) - shared  # where the text would begin
            self._write(row, text[shared:], shared, branch if shared else 0)
            ends = self.examples.ends
            ends = np.array([len(text) - 1]) if ends is None else ends[index]
            at = int(self.places[row])
            self.batch["score_at"][row, at : at + len(ends)] = start + ends
            if self.examples.starts is not None:
                self._aim(row, int(index), start, shared, fork)
            self.places[row] += len(ends)

    def _aim(self, row: int, text: int, start: int, shared: int, fork: int) -> None:
        """Lists a text's tokens to predict.

        start: where the text would begin if it stood alone. fork: where the last of its `shared` tokens is.
        """
        own = slice(*self.examples.first_target[[text, text + 1]])
        there = slice(int(self.targets[row]), int(self.targets[row]) + own.stop - own.start)
        at = start + self.examples.targets(text)
        before = np.where(at == start + shared, fork, at - 1) if shared else at - 1
        self.batch["target_at"][row, there], self.batch["source_at"][row, there] = at, before
        self.batch["text_of"][row, there] = self.places[row]
        for name, values in self.examples.per_token.items():
            self.batch[name][row, there] = values[own]
        self.targets[row] = there.stop

    def _write(self, row: int, tokens: np.ndarray, position: int, branch: int) -> None:
        span = slice(int(self.used[row]), int(self.used[row]) + len(tokens))
        self.batch["tokens"][row, span] = tokens
        self.batch["segments"][row, span] = self.segments[row]
        self.batch["positions"][row, span] = position + np.arange(len(tokens))
        if branch:
            self.batch["branches"][row, span] = branch
        self.used[row] = span.stop


def stack(parts: Sequence[Batches]) -> list[Batches]:
    """The batches of several seeds brought to common bounds, so that they stack on a leading axis."""
    first, plans = parts[0], [plan for part in parts for plan in part.plans]
    shape = _bounds(first.examples, plans, first.rows_multiple, first.tiling)
    return [dataclasses.replace(part, shape=shape) for part in parts]


def _bounds(
    examples: Examples,
    plans: Sequence[list[list[np.ndarray]]],
    rows_multiple: int,
    tiling: Tiling | None,
) -> Shape:
    """The bounds that hold every batch of the plans with least padding."""
    batches = [batch for plan in plans for batch in plan]
    lengths = _each(batches, examples.length)
    sizes, places = _each(batches, len), _each(batches, examples.places)
    row_length = best_row_length(lengths)
    rows = pack(lengths, row_length)
    row = (rows + np.arange(len(rows))[:, None] * rows.shape[1]).ravel()
    most = lambda counts: int(np.bincount(row, counts.ravel()).max())
    count = -(-(int(rows.max()) + 1) // rows_multiple) * rows_multiple
    pairs = most(sizes * (sizes - 1) // 2)
    aims = 0
    if examples.starts is not None:
        aims = most(_each(batches, examples.target_count))
    shape = Shape(
        count, row_length, most(places), pairs, most(sizes > 0), int(sizes.max()), 0, aims
    )
    if tiling is None:
        return shape
    return dataclasses.replace(shape, tiles=_most_tiles(examples, batches, rows, shape, tiling))


def _most_tiles(
    examples: Examples,
    batches: Sequence[list[np.ndarray]],
    rows: Iterable[np.ndarray],
    shape: Shape,
    tiling: Tiling,
) -> int:
    """The pairs of tiles that any row needs; 0 where whole rows are about as cheap."""
    count = -(-shape.row_length // tiling.size)
    enough, most = int(count**2 * TILES_PAY), 0
    for batch, where in zip(batches, rows, strict=True):
        if most > enough or count == 1:
            return 0
        laid = _Rows.empty(examples, shape, 0)
        for row, group in zip(where.tolist(), batch, strict=False):
            laid.lay(row, group)
        found = visible_tiles(laid.batch["segments"], tiling.size, causal=tiling.causal)
        most = max(most, int(np.bincount(found[0]).max()))
    return most if most <= enough else 0


def _tiles(segments: np.ndarray, tiling: Tiling, most: int) -> np.ndarray:
    """Query and key tile of each pair that sees each other [R, N, 2]; behind them the number of tiles: none."""
    row, query, key = visible_tiles(segments, tiling.size, causal=tiling.causal)
    none = -(-segments.shape[1] // tiling.size)
    tiles = np.full((len(segments), most, 2), none, np.int32)
    at = np.arange(len(row)) - np.searchsorted(row, row)
    tiles[row, at] = np.stack([query, key], axis=1)
    return tiles


def _each(batches: Sequence[Sequence[np.ndarray]], count: Callable) -> np.ndarray:
    """count(group) of every group [B, G], 0 where a batch has fewer."""
    found = np.zeros((len(batches), max(map(len, batches))), np.int64)
    for i, batch in enumerate(batches):
        found[i, : len(batch)] = [count(group) for group in batch]
    return found


def _group_lengths(examples: Examples, groups: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([examples.length(group) for group in groups], np.int64)
