"""Groups and the pairs they form, against loops over texts and raters."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmjax.data import examples
from rmjax.data.encode import Known, Reader, encode, told
from rmjax.data.records import Pair, RatedText
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError

BYTES = Tokenizer.bytes()
reader = lambda max_length: Reader(BYTES, None, max_length, share=False)
PANELS = st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=5), min_size=1, max_size=6)


def rated(panels, domains="a", scale=(-3, 3)):
    records = [
        RatedText(str(i), domains[i % len(domains)], str(i), f"text {i}", float(np.mean(p)), tuple(map(float, p)))
        for i, p in enumerate(panels)
    ]  # fmt: skip
    return encode(records, reader(32), Known(scale), train=True)[0]


def wins(panel, other):
    """P(a > b) + P(a = b) / 2 over all cross pairs of raters."""
    return np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(panel, other)])


@given(PANELS)
def test_every_unordered_pair_of_unequal_ratings_once_the_higher_first(panels):
    rating = np.array([np.mean(p) for p in panels])
    found = rated(panels).pairs(np.arange(len(panels)), ("margins", "target"))
    formed = list(zip(found["chosen"], found["rejected"], strict=True))
    want = [
        (a, b) for a, b in itertools.permutations(range(len(panels)), 2) if rating[a] > rating[b]
    ]
    assert sorted(formed) == sorted(want)
    assert len(formed) == 0 or found["pair_weight"].sum() == pytest.approx(1)
    assert len(set(found["pair_weight"])) <= 1
    np.testing.assert_allclose(
        found["margins"], [rating[a] - rating[b] for a, b in formed], atol=1e-6
    )
    targets = [wins(panels[a], panels[b]) for a, b in formed]
    np.testing.assert_allclose(found["target"], targets, atol=1e-6)


@given(PANELS)
def test_ties_are_formed_only_where_they_are_asked_for(panels):
    rating = np.array([np.mean(p) for p in panels])
    found = rated(panels).pairs(np.arange(len(panels)), ("tie", "target"))
    pairs = {
        frozenset((int(a), int(b))) for a, b in zip(found["chosen"], found["rejected"], strict=True)
    }
    assert pairs == set(map(frozenset, itertools.combinations(range(len(panels)), 2)))
    assert len(found["chosen"]) == len(pairs)
    for a, b, tie, target in zip(
        *(found[k] for k in ("chosen", "rejected", "tie", "target")), strict=True
    ):
        assert (rating[a] == rating[b]) if tie else (rating[a] > rating[b])
        assert target == pytest.approx(wins(panels[a], panels[b]), abs=1e-6)


def test_pairs_of_a_group_count_places_in_the_group():
    made = rated([[0], [1], [2], [3]])
    found = made.pairs(np.array([3, 1]), ("margins",))
    assert (found["chosen"], found["rejected"], found["margins"]) == ([0], [1], [2])
    found = made.pairs(np.array([0, 2]), ())
    assert (found["chosen"], found["rejected"]) == ([1], [0])


@given(st.integers(0, 30), st.integers(1, 5), st.integers(0, 5))
def test_groups_hold_every_text_once_and_never_mix_domains(count, size, seed):
    made = rated([[i % 3] for i in range(count + 1)], domains="bac")
    found = made.groups(np.random.default_rng(seed), size)
    assert sorted(np.concatenate(found)) == list(range(count + 1))
    assert all(len(set(made.kin[g])) == 1 for g in found)
    short = [g for g in found if len(g) < size]
    assert len(short) <= len({int(made.kin[g[0]]) for g in found})
    assert max(map(len, found)) <= size


def test_groups_come_from_the_seed():
    made = rated([[i % 3] for i in range(60)], domains="ab")
    draw = lambda seed: [g.tolist() for g in made.groups(np.random.default_rng(seed), 4)]
    assert draw(0) == draw(0)
    assert {frozenset(g) for g in draw(0)} != {frozenset(g) for g in draw(1)}


def test_label_probability_and_shares_on_a_scale():
    made = rated([[-3], [3, 2], [0, 0, 1, -1]])
    np.testing.assert_allclose(made.per_text["rating"], [-3, 2.5, 0])
    np.testing.assert_array_equal(made.per_text["label"], [0, 6, 3])  # 2.5 rounds up
    np.testing.assert_allclose(made.per_text["probability"], [0, 5.5 / 6, 0.5])
    shares = np.zeros((3, 7))
    shares[0, 0], shares[1, 5:7], shares[2, 2:5] = 1, 0.5, [0.25, 0.5, 0.25]
    np.testing.assert_array_equal(made.per_text["shares"], shares)
    assert set(rated([[1]], scale=None).per_text) == {"rating"}
    assert "shares" not in rated_without_panel().per_text
    with pytest.raises(
        UserError, match=r"text '1' is rated outside the scale 0..2; set low and high"
    ):
        rated([[1], [0, 3]], scale=(0, 2))


def test_texts_that_had_to_be_cut_are_counted():
    texts = [RatedText(f"{i}", "d", f"{i}", "a" * n, 1.0) for i, n in enumerate((6, 7, 30))]
    found, counts = encode(texts, reader(8), Known(), train=True)
    assert list(found.lengths) == [8, 8, 8] and told(counts) == ["2 texts cut at 8 tokens"]


def rated_without_panel():
    return encode([RatedText("0", "d", "0", "a", 1.0)], reader(32), Known((0, 2)), train=True)[0]


def test_given_pairs_keep_order_weight_margin_and_target():
    pairs = [
        Pair("0", "b", "0", "Why?", "So.", "No.", margin=2.0, target=0.75, weight=0.5),
        Pair("1", "a", "1", "", "Yes", "Nope", margin=-1.0),
        Pair("2", "a", "2", "", 40 * "x" + "y", 40 * "x" + "z", margin=0.0),
    ]
    made, counts = encode(pairs, reader(24), train=True)
    assert told(counts) == [
        "2 texts cut at 24 tokens",
        "1 pairs dropped: identical within 24 tokens",
    ]
    assert set(made.given) == {"margins"}  # not every pair has a target
    texts = [bytes_of(t) for t in made.tokens]
    assert texts == ["Why?So.", "Why?No.", "Yes", "Nope"]
    groups = made.groups(np.random.default_rng(0), 5)
    assert sorted(g.tolist() for g in groups) == [[0, 1], [2, 3]]
    found = made.pairs(np.array([0, 1]), ("margins",))
    got = {k: v.tolist() for k, v in found.items()}
    assert got == {"chosen": [0], "rejected": [1], "pair_weight": [0.5], "margins": [2.0]}
    made, counts = encode(pairs[:1], reader(24), train=True)
    assert told(counts) == []
    assert made.pairs(np.array([0, 1]), ("target",))["target"] == [0.75]
    with pytest.raises(UserError, match="all 1 pairs are identical within max_length=24 tokens"):
        encode(pairs[2:], reader(24), train=True)


def bytes_of(ids):
    byte = {int(BYTES.encode([chr(c)], 9)[0][1]): chr(c) for c in range(32, 127)}
    return "".join(byte.get(int(i), "|") for i in ids[1:-1])


@pytest.mark.parametrize(
    ("make", "offer", "text"),
    [
        (lambda: rated([[1]]), "margin", "'margin' is none of margins, target, tie"),
        (rated_without_panel, "target", "'target' needs every rater's own rating"),
        (
            lambda: encode([Pair("0", "", "", "", "a", "b")], reader(24), train=True)[0],
            "margins",
            "'margins' is of the field 'margin', which not every pair of the data has",
        ),
        (
            lambda: encode([Pair("0", "", "", "", "a", "b")], reader(24), train=True)[0],
            "tie",
            "'tie' is of the field 'votes', which not every pair of the data has",
        ),
    ],
)
def test_an_array_that_the_data_lack_is_refused(make, offer, text):
    with pytest.raises(UserError, match=f"config key 'pair_arrays': {text}"):
        examples.check_offer(make(), [offer])
    examples.check_offer(rated([[1], [2]]), ["margins", "target", "tie"])


def test_a_pair_of_rated_texts_weighs_the_product_of_their_weights():
    known = [(1.0, 2.0), (2.0, 0.5), (3.0, 0.0)]  # rating, weight
    texts = [RatedText(f"{i}", "d", "0", "a", r, weight=w) for i, (r, w) in enumerate(known)]
    found = encode(texts, reader(8), Known(), train=True)[0].pairs(np.array([0, 1, 2]), ())
    order = np.lexsort((found["rejected"], found["chosen"]))
    assert found["chosen"][order].tolist() == [1, 2, 2]
    np.testing.assert_allclose(found["pair_weight"][order], [1 / 3, 0, 0])


def test_a_dropped_pair_moves_no_id():
    known = [("a", "b"), ("longer than", "longer that"), ("c", "d")]
    pairs = [Pair(f"{i}", "d", "0", "", *sides) for i, sides in enumerate(known)]
    assert encode(pairs, reader(8), train=True)[0].ids == ["0", "0", "2", "2"]
