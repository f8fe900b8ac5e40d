"""Rows never overflow and hold every item once; batches are exact and level; the row length pads little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmjax.data.packing import (
    BLOCK,
    balanced_batches,
    best_row_length,
    first_fit,
    pack,
    pack_all,
    visible_tiles,
)

TABLE = st.integers(1, 12).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 40), min_size=size, max_size=size), min_size=1, max_size=4)
).map(np.array)  # fmt: skip


@pytest.mark.parametrize("rule", [first_fit, pack])
@given(TABLE, st.integers(40, 90))
def test_no_row_overflows_and_batches_do_not_meet(rule, lengths, row_length):
    rows = rule(lengths, row_length)
    assert rows.shape == lengths.shape
    for batch, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        filled = np.bincount(row, length)
        assert filled.max() <= row_length
        assert sum(filled > 0) <= 2 * length.sum() // row_length + 1  # two rows are over half full
        np.testing.assert_array_equal(rule(lengths[batch : batch + 1], row_length)[0], row)


@given(TABLE, st.integers(40, 90))
def test_packing_never_takes_more_rows_than_first_fit(lengths, row_length):
    assert np.all(pack(lengths, row_length).max(1) <= first_fit(lengths, row_length).max(1))


def test_worked_examples():
    np.testing.assert_array_equal(first_fit(np.array([[3, 7, 5, 2, 2]]), 10), [[0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(
        first_fit(np.array([[6, 5, 3, 2, 2, 2]]), 10), [[0, 1, 0, 1, 1, 2]]
    )
    np.testing.assert_array_equal(pack(np.array([[6, 5, 3, 2, 2, 2]]), 10), [[0, 1, 1, 0, 0, 1]])
    with pytest.raises(ValueError, match="an item of 9 tokens does not fit a row of 8"):
        pack(np.array([[3, 9]]), 8)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 9)
)
def test_every_item_is_in_one_batch_of_the_exact_size(lengths, batch_size, seed):
    found = balanced_batches(np.array(lengths), batch_size, np.random.default_rng(seed))
    assert sorted(np.concatenate(found)) == list(range(len(lengths)))
    assert {len(b) for b in found[:-1]} <= {batch_size}
    assert len(found[-1]) == len(lengths) - batch_size * (len(found) - 1) <= batch_size


def skewed(count, seed=0):
    """Lengths as texts have them: many of about 25 tokens, a few very long."""
    drawn = np.exp(np.random.default_rng(seed).normal(3.1, 0.5, count)).astype(np.int64)
    return np.append(np.maximum(drawn, 4), 203)


def test_batches_are_level_and_drawn_from_the_seed():
    lengths = skewed(32 * 40 + 30)
    draw = lambda seed: balanced_batches(lengths, 32, np.random.default_rng(seed))
    totals = [lengths[b].sum() for b in draw(0)]
    assert len(totals) == 41
    assert max(totals) < 1.04 * np.mean(totals[:-1])  # also the one with the longest, and the last
    assert all(np.array_equal(a, b) for a, b in zip(draw(0), draw(0), strict=True))
    partners = [{int(i) for b in draw(s) if 5 in b for i in b} for s in range(8)]
    assert len(set.intersection(*partners)) < 5  # text 5 meets others in every draw
    together = [len(a & b) for a in partners for b in partners if a is not b]
    assert np.mean(together) < 4
    assert len({tuple(draw(s)[-1]) for s in range(8)}) == 8


@pytest.mark.parametrize("seed", range(4))
def test_the_row_length_is_the_shortest_that_pads_at_most_a_twentieth(seed):
    lengths = skewed(32 * 30 - 1, seed)
    table = lengths[np.array(balanced_batches(lengths, 32, np.random.default_rng(seed)))]
    padding = lambda t: 1 - np.median(table.sum(1)) / (t * (pack(table, t).max() + 1))
    best = best_row_length(table)
    assert best % 8 == 0
    assert padding(best) <= 0.05
    assert all(padding(t) > 0.05 for t in range(208, best, 8))


def test_where_none_will_do_the_row_length_pads_least():
    table = np.array([[40, 40], [41, 1]])
    assert best_row_length(table) == 80
    assert best_row_length(np.array([[3]])) == 8


@given(
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=3),
    st.integers(2, 9), st.booleans(),
)  # fmt: skip
def test_visible_tiles_are_those_with_tokens_of_one_text(rows, size, causal):
    segments = np.zeros((len(rows), max(map(sum, rows)) + 3), np.int32)
    for row, lengths in zip(segments, rows, strict=True):
        row[: sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    token = np.arange(segments.shape[1])
    same = (segments[:, :, None] == segments[:, None, :]) & (segments[:, :, None] > 0)
    row, query, key = np.nonzero(same & (token[:, None] >= token) if causal else same)
    want = set(zip(row.tolist(), (query // size).tolist(), (key // size).tolist(), strict=True))
    found = [x.tolist() for x in visible_tiles(segments, size, causal=causal)]
    assert sorted(want) == list(zip(*found, strict=True))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.integers(0, 2))
def test_all_items_are_packed_into_rows_of_one_length(lengths, blocks):
    lengths = np.array(lengths + [20] * BLOCK * blocks)
    row_length, rows = pack_all(lengths, 512)
    longest = max(64, int(lengths.max()))
    assert longest <= row_length <= max(512, 2 * longest)
    assert row_length & (row_length - 1) == 0
    filled = np.bincount(rows, lengths)
    assert np.all((filled > 0) & (filled <= row_length))


def test_rows_are_lengthened_where_that_pads_less():
    assert pack_all(np.array([64] * 9), 512)[0] == 64
    assert pack_all(np.array([50] * 30), 512)[0] == 256  # 5 x 50 fit; 1 into 64, 2 into 128
    assert pack_all(np.array([50] * 30), 100)[0] == 64
    assert pack_all(np.array([600, 600]), 512)[0] == 1024
