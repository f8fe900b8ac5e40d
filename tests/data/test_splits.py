"""Splits by hash, duplicates together; fingerprints; made-up texts."""

import collections
import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rmjax.data import splits, synthetic
from rmjax.data.records import Pair, RatedText, fingerprint


def rated(document, text, domain="d"):
    return RatedText("i", domain, document, text, 0.0)


def test_the_split_is_the_hash_modulo_ten():
    counts = collections.Counter()
    for i in range(3000):
        bucket = int(hashlib.sha256(f"movie/{i}".encode()).hexdigest(), 16) % 10
        want = {8: "validation", 9: "test"}.get(bucket, "train")
        assert splits.split_of("movie", str(i)) == want
        counts[want] += 1
    assert splits.assign([rated(str(i), f"text {i}") for i in range(3000)]) == [
        splits.split_of("d", str(i)) for i in range(3000)
    ]
    assert 0.77 < counts["train"] / 3000 < 0.83


SMALL = st.lists(
    st.tuples(st.sampled_from("xy"), st.integers(0, 6), st.integers(0, 8)), max_size=25
)


@given(SMALL)
def test_what_shares_document_or_text_within_a_domain_shares_the_split(drawn):
    records = [rated(f"{document}", f"Text, {text}!", domain) for domain, document, text in drawn]
    names = splits.assign(records)
    for key in (lambda r: (r.domain, r.document), lambda r: (r.domain, r.text)):
        where = collections.defaultdict(set)
        for record, name in zip(records, names, strict=True):
            where[key(record)].add(name)
        assert all(len(found) == 1 for found in where.values())
    assert splits.assign(records[::-1]) == names[::-1]


def test_duplicates_are_found_through_case_and_punctuation_and_in_pairs():
    assert splits.normalized("It's  GRÖẞER, 2x!") == "itsgrößer2x"
    texts = [rated(str(i), text) for i, text in enumerate(["A b.", "a B", "ab!"] * 5)]
    assert len(set(splits.assign(texts))) == 1
    pairs = [Pair("i", "d", str(i), "Why?", "So.", str(i)) for i in range(15)]
    assert len(set(splits.assign(pairs))) == 1
    assert len(set(splits.assign([rated(str(i), str(i)) for i in range(15)]))) > 1


def test_a_fingerprint_changes_with_anything():
    one, two = rated("1", "a"), rated("2", "b")
    prints = [
        fingerprint(records)
        for records in (
            [one, two],
            [two, one],
            [one],
            [],
            [one, rated("2", "c")],
            [one, rated("2b", "")],
            [RatedText("i", "d", "1", "a", 0.0, (0.0,)), two],
        )
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == fingerprint([rated("1", "a"), rated("2", "b")])


def test_made_up_texts_are_rated_by_their_words():
    records = synthetic.rated_texts(400, seed=1)
    assert records == synthetic.rated_texts(400, seed=1)
    assert records != synthetic.rated_texts(400, seed=2)
    count = lambda words, text: sum(w in words for w in text.split())
    true = [count(synthetic.GOOD, r.text) - count(synthetic.BAD, r.text) for r in records]
    assert np.corrcoef(true, [r.rating for r in records])[0, 1] > 0.95
    assert all(r.rating == np.mean(r.ratings) and len(r.ratings) == 10 for r in records)
