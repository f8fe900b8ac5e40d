"""Batches hold what was planned, once each, wherever it lies; they are functions of seed and step alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmjax.data import pipeline
from rmjax.data.examples import Examples, singles
from rmjax.data.packing import visible_tiles

PAD = 7


def made(count, seed=0, given=False):
    """Texts whose every token tells text and place: text * 1000 + place."""
    rng = np.random.default_rng(seed)
    rating = rng.integers(-2, 3, count).astype(np.float32)
    return Examples(
        tokens=[np.arange(n, dtype=np.int32) + 1000 * i for i, n in enumerate(rng.integers(1, 30, count))],
        ids=[f"{i}" for i in range(count)],
        weight=rng.random(count).astype(np.float32) + 0.5,
        kin=rng.integers(0, 2, count),
        per_text={} if given else {"rating": rating, "shares": rng.random((count, 3), np.float32)},
        given={"margins": rng.random(count // 2, np.float32)} if given else None,
        fixed=list(np.arange(count).reshape(-1, 2)) if given else None,
    )  # fmt: skip


def texts_of(batch, examples, rows=None):
    """The text at each (row, place), after checking everything the batch says of it."""
    found = {}
    assert batch["tokens"].shape == batch["segments"].shape == batch["positions"].shape
    for row, segments in enumerate(batch["segments"]):
        order = segments[segments > 0]
        assert np.all(np.diff(order) >= 0)  # texts follow each other, padding comes last
        assert np.all(batch["tokens"][row, len(order) :] == PAD)
        for place in range(int(segments.max())):
            at = np.flatnonzero(segments == place + 1)
            text = int(batch["tokens"][row, at[0]]) // 1000
            np.testing.assert_array_equal(batch["tokens"][row, at], examples.tokens[text])
            np.testing.assert_array_equal(batch["positions"][row, at], np.arange(len(at)))
            assert batch["score_at"][row, place] == at[-1]
            found[row, place] = text
    return found


def groups_of(batch, examples):
    """What the batch trains on: weighted texts, and {(better, worse): (weight, margin)}."""
    texts, pairs = texts_of(batch, examples), {}
    weighed = {(int(r), int(p)) for r, p in np.argwhere(batch["text_weight"])}
    assert weighed == set(texts)
    for (row, place), text in texts.items():
        assert batch["text_weight"][row, place] == examples.weight[text]
        for name, values in examples.per_text.items():
            np.testing.assert_array_equal(batch[name][row, place], values[text])
    for row, slot in np.argwhere(batch.get("pair_weight", np.zeros((0, 0)))):
        pair = tuple(texts[row, int(batch[side][row, slot])] for side in ("chosen", "rejected"))
        assert pair not in pairs
        pairs[pair] = (batch["pair_weight"][row, slot], batch["margins"][row, slot])
    return sorted(texts.values()), pairs


CASES = st.tuples(
    st.integers(1, 40), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.integers(1, 5)
)


@settings(max_examples=25)
@given(CASES)
def test_an_epoch_trains_on_every_text_once_in_exact_batches(case):
    count, batch_size, group_size, seed, multiple = case
    examples = made(count, seed)
    offer = ("margins",) if group_size > 1 else ()
    options = {"seed": seed, "batch_size": batch_size, "group_size": group_size, "offer": offer}
    found = pipeline.batches(examples, epochs=2.0, rows_multiple=multiple, pad_id=PAD, **options)
    shapes = [{name: values.shape for name, values in batch.items()} for batch in found]
    assert all(s == shapes[0] for s in shapes)
    assert shapes[0]["tokens"][0] % multiple == 0
    alone = pipeline.batches(examples, epochs=2.0, pad_id=PAD, **options)
    wide = dataclasses.replace(found.shape, row_length=8 * found.shape.row_length)
    wide = dataclasses.replace(wide, places=count, pairs=count * 4 if group_size > 1 else 0)
    for epoch, plan in enumerate(found.plans):
        seen = []
        for place, groups in enumerate(plan):
            k = epoch * len(plan) + place
            assert len(groups) == batch_size or (
                place == len(plan) - 1 and len(groups) < batch_size
            )
            texts, pairs = groups_of(found[k], examples)
            assert texts == sorted(np.concatenate(groups))
            seen += texts
            want = {}
            for group in groups:
                formed = examples.pairs(group, offer)
                for i, (c, r) in enumerate(zip(formed["chosen"], formed["rejected"], strict=True)):
                    values = (
                        np.float32(formed["pair_weight"][i]),
                        formed.get("margins", [0] * 99)[i],
                    )
                    want[int(group[c]), int(group[r])] = values
            assert pairs == (want if group_size > 1 else {})
            assert groups_of(alone[k], examples) == (texts, pairs)
            packed = pipeline.assemble(examples, groups, wide, offer, pad_id=PAD)
            assert groups_of(packed, examples) == (texts, pairs)
        assert sorted(seen) == list(range(count))


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_given_pairs_share_a_row(pairs, batch_size, seed):
    examples = made(2 * pairs, seed, given=True)
    found = pipeline.batches(
        examples, seed=seed, epochs=1.0, batch_size=batch_size, offer=("margins",), pad_id=PAD
    )
    seen = {}
    for batch in found:
        seen |= groups_of(batch, examples)[1]
    margins = examples.given["margins"]
    assert seen == {(2 * i, 2 * i + 1): (examples.weight[2 * i], margins[i]) for i in range(pairs)}


EXAMPLES = made(50)


def drawn(seed, **options):
    options = {"epochs": 2.5, "batch_size": 4, "group_size": 2} | options
    return pipeline.batches(EXAMPLES, seed=seed, **options)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_batch_is_a_function_of_seed_and_step():
    one, again, other = drawn(0), drawn(0), drawn(1)
    for k in reversed(range(len(one))):
        assert same(one[k], again[k])
        assert not np.array_equal(one[k]["tokens"], other[k]["tokens"])
    epoch = len(one.plans[0])
    assert len(one) == round(2.5 * epoch) == len(list(one))
    assert not same(one[0], one[epoch])  # each epoch is drawn anew
    groups = [{frozenset(g.tolist()) for b in plan for g in b} for plan in one.plans]
    assert groups[0] != groups[1]
    longer = drawn(0, epochs=4.0)
    plans = [[[g.tolist() for g in b] for b in plan] for plan in longer.plans]
    assert plans[:3] == [[[g.tolist() for g in b] for b in plan] for plan in one.plans]
    for k in (-1, len(one)):
        with pytest.raises(IndexError):
            one[k]
    assert len(drawn(0, epochs=0.01)) == 1


def test_iteration_resumes_at_any_step():
    source = drawn(3)
    for start in (0, 5, len(source) - 1, len(source)):
        found = list(pipeline.iterate(source, start))
        assert len(found) == len(source) - start
        assert all(same(b, source[start + i]) for i, b in enumerate(found))


def test_seeds_stack_and_keep_what_they_train_on():
    alone = [
        drawn(seed, group_size=4, rows_multiple=2, pad_id=PAD, offer=("margins",))
        for seed in range(5)
    ]
    assert len({part.shape for part in alone}) > 1
    stacked = pipeline.stack(alone)
    (shape,) = {part.shape for part in stacked}
    assert shape.rows % 2 == 0
    assert {pipeline.stack(alone[i:] + alone[:i])[0].shape for i in range(5)} == {shape}
    for k in range(len(alone[0])):
        for part, own in zip(stacked, alone, strict=True):
            assert groups_of(part[k], EXAMPLES) == groups_of(own[k], EXAMPLES)
    assert pipeline.stack(alone[:1])[0].shape == alone[0].shape


@given(st.lists(st.integers(1, 9) | st.integers(1, 400), max_size=40), st.integers(1, 3))
def test_scoring_batches_hold_every_text_once_and_say_where(lengths, multiple):
    tokens = [np.arange(n, dtype=np.int32) + 1000 * i for i, n in enumerate(lengths)]
    examples, seen, shapes = singles(tokens), [], set()
    for batch, texts, places in pipeline.score_batches(
        examples, pad_id=PAD, rows_multiple=multiple, budget=512, tiling=pipeline.Tiling(32, True)
    ):
        shapes.add(tuple((name, values.shape) for name, values in sorted(batch.items())))
        if "tiles" in batch:
            tiles, count = batch["tiles"], batch["tokens"].shape[1] // 32
            assert tiles.shape[1] <= count**2 and tiles.shape[1] % max(count**2 // 8, 1) == 0
            row, at = np.nonzero(tiles[..., 0] < count)
            want = visible_tiles(batch["segments"], 32, causal=True)
            np.testing.assert_array_equal([row, *tiles[row, at].T], want)
        assert len(batch["tokens"]) % multiple == 0
        held = texts_of(batch, examples)
        per_row = batch["score_at"].shape[1]
        assert {r * per_row + p: t for (r, p), t in held.items()} == dict(
            zip(places, texts, strict=True)
        )
        last = batch["tokens"].reshape(-1)[
            np.repeat(np.arange(len(batch["tokens"])), per_row)[places] * batch["tokens"].shape[1]
            + batch["score_at"].reshape(-1)[places]
        ]
        np.testing.assert_array_equal(last, [tokens[t][-1] for t in texts])
        seen += texts.tolist()
    assert sorted(seen) == list(range(len(tokens)))
    assert len(shapes) == bool(lengths)  # a call compiles once
    assert all(dict(s)["tokens"][1] in (64, 128, 256, 512) for s in shapes)


@pytest.mark.parametrize(("mean", "longest"), [(3.2, 64), (4.8, 512), (5.7, 512)])
def test_scoring_pads_little(mean, longest):
    drawn = np.exp(np.random.default_rng(0).normal(mean, 0.6, 2000)).astype(int)
    examples = singles([np.zeros(n, np.int32) for n in np.clip(drawn, 1, longest)])
    found = [batch["segments"] for batch, _, _ in pipeline.score_batches(examples, pad_id=PAD)]
    assert np.mean(np.concatenate(found) == 0) < 0.06


def test_answers_that_share_no_tokens_need_not_share_a_row():
    pairs = made(40, given=True)
    apart = singles(pairs.tokens)
    for one, other in zip(
        *(pipeline.score_batches(x, pad_id=PAD) for x in (pairs, apart)), strict=True
    ):
        assert same(one[0], other[0])


def shared(seed=0):
    """Groups of two to four texts that begin alike; the first token of each text's own part tells which it is."""
    rng, tokens, fixed = np.random.default_rng(seed), [], []
    for _ in range(6):
        prompt = rng.integers(1, 9, rng.integers(3, 20))
        members = range(len(tokens), len(tokens) + int(rng.integers(2, 5)))
        fixed.append(np.array(members))
        own = lambda text: [1000 + text, *rng.integers(1, 9, rng.integers(0, 5))]
        tokens += [np.array([*prompt, *own(text)], np.int32) for text in members]
    rating = rng.normal(size=len(tokens)).astype(np.float32)
    return Examples(
        tokens, [], np.ones(len(tokens), np.float32), np.zeros(len(tokens)), {"rating": rating},
        fixed=fixed, share=True,
    )  # fmt: skip


def read_branches(batch, examples):
    """The text of each (row, place), read as attention does: what its last token sees, in order of positions."""
    found = {}
    for row, place in np.argwhere(batch["text_weight"]):
        at = batch["score_at"][row, place]
        segment, branch = (batch[name][row] for name in ("segments", "branches"))
        seen = (segment == segment[at]) & ((branch == 0) | (branch == branch[at]))
        np.testing.assert_array_equal(batch["positions"][row, seen], np.arange(seen.sum()))
        tokens = batch["tokens"][row, seen]
        text = int(tokens[tokens >= 1000][0]) - 1000
        np.testing.assert_array_equal(tokens, examples.tokens[text])
        found[int(row), int(place)] = text
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_shared_prompt_is_stored_once_and_each_text_reads_as_if_alone(seed):
    examples = shared(seed)
    found = pipeline.batches(
        examples, seed=seed, epochs=1.0, batch_size=3, offer=("margins",), lists=True, pad_id=PAD
    )
    seen, pairs, lists = [], set(), set()
    for batch in found:
        texts = read_branches(batch, examples)
        seen += texts.values()
        for (row, place), text in texts.items():
            assert batch["rating"][row, place] == examples.per_text["rating"][text]
        for row, slot in np.argwhere(batch["pair_weight"]):
            pairs.add(tuple(texts[row, batch[s][row, slot]] for s in ("chosen", "rejected")))
        for row, slot in np.argwhere(batch["group_weight"]):
            held = batch["group_mask"][row, slot]
            own = [texts[row, i] for i in batch["group_items"][row, slot, held]]
            ratings = batch["group_ratings"][row, slot, held]
            np.testing.assert_array_equal(ratings, examples.per_text["rating"][own])
            lists.add(tuple(own))
        stored = int((batch["segments"] > 0).sum())
        groups = {tuple(g) for g in examples.fixed if set(g) <= set(texts.values())}
        own = sum(len(examples.tokens[i]) for g in groups for i in g)
        assert stored < own
        assert stored == sum(examples.length(np.array(g)) for g in groups)
    assert sorted(seen) == list(range(len(examples.tokens)))
    assert lists == {tuple(map(int, g)) for g in examples.fixed}
    rating = examples.per_text["rating"]
    want = {(i, j) for g in examples.fixed for i in g for j in g if rating[i] > rating[j]}
    assert pairs == want


def test_scoring_shares_prompts_and_finds_every_score():
    examples, seen = shared(), {}
    for batch, found, places in pipeline.score_batches(examples, pad_id=PAD, budget=128):
        row, place = np.divmod(places, batch["score_at"].shape[1])
        batch["text_weight"] = np.zeros(batch["score_at"].shape)
        batch["text_weight"][row, place] = 1
        texts = read_branches(batch, examples)
        seen |= {
            int(i): texts[r, p] for i, r, p in zip(found, row.tolist(), place.tolist(), strict=True)
        }
    assert seen == {i: i for i in range(len(examples.tokens))}


def test_a_process_is_scored_at_the_end_of_every_step():
    tokens = [np.arange(n, dtype=np.int32) for n in (7, 5)]
    ends = [np.array([2, 4, 6]), np.array([4])]
    labels = np.array([1, 0, 1, 0], np.float32)
    examples = Examples(
        tokens,
        [],
        np.array([1.0, 2.0], np.float32),
        np.zeros(2),
        {"probability": labels},
        ends=ends,
    )
    [batch] = pipeline.batches(examples, seed=0, epochs=1.0, batch_size=2, pad_id=PAD)
    found = []
    for row, place in np.argwhere(batch["text_weight"]):
        token = int(batch["tokens"][row, batch["score_at"][row, place]])
        values = (batch[name][row, place] for name in ("probability", "text_weight"))
        found.append((token, *map(float, values)))
    assert sorted(found) == [(2, 1, 1), (4, 0, 1), (4, 0, 2), (6, 1, 1)]
    [(batch, index, places)] = pipeline.score_batches(examples, pad_id=PAD, budget=64)
    read = batch["tokens"].reshape(-1)[batch["score_at"].reshape(-1)[places]]
    assert dict(zip(index.tolist(), read.tolist(), strict=True)) == {0: 2, 1: 4, 2: 6, 3: 4}


@pytest.mark.parametrize("causal", [False, True])
def test_batches_list_the_tiles_that_see_each_other_where_that_saves_work(causal):
    examples, tiling = made(60), pipeline.Tiling(4, causal)
    draw = lambda **more: pipeline.batches(
        examples, seed=0, epochs=2.0, batch_size=20, group_size=4, pad_id=PAD, **more
    )
    found, count = draw(tiling=tiling), -(-draw().shape.row_length // 4)
    assert 0 < found.shape.tiles <= pipeline.TILES_PAY * count**2
    most = 0
    for batch, plain in zip(found, draw(), strict=True):
        tiles = batch.pop("tiles")
        assert batch.keys() == plain.keys() and tiles.shape[1] == found.shape.tiles
        listed = tiles[..., 0] < count
        assert np.all(tiles[~listed] == count)
        row, _ = np.nonzero(listed)
        want = visible_tiles(batch["segments"], 4, causal=causal)
        np.testing.assert_array_equal([row, *tiles[listed].T], want)
        most = max(most, int(listed.sum(axis=1).max()))
    assert most == found.shape.tiles
    for size in (100, 200):  # all two see each other; there is but one
        assert draw(tiling=pipeline.Tiling(size, causal=False)).shape.tiles == 0
    both = pipeline.stack([found, draw(tiling=tiling)])
    assert both[0].shape.tiles == most
