"""Splits by hash, duplicates together; fingerprints; made-up texts."""

import collections
import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmjax.data import formats, splits, synthetic
from rmjax.data.records import Pair, Process, Ranking, RatedText, fingerprint


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


@given(SMALL, st.integers(2, 4), st.integers(0, 3))
def test_folds_part_no_document_and_no_duplicates(drawn, k, seed):
    records = [rated(f"{document}", f"Text, {text}!", domain) for domain, document, text in drawn]
    # 4 documents of one text each, so that k is never too large.
    records += [rated(f"own {i}", f"alone {i}", "z") for i in range(4)]
    found = splits.folds(records, k, seed)
    assert set(found) <= set(range(k))
    for key in (lambda r: (r.domain, r.document), lambda r: (r.domain, r.text)):
        where = collections.defaultdict(set)
        for record, fold in zip(records, found, strict=True):
            where[key(record)].add(fold)
        assert all(len(folds) == 1 for folds in where.values())
    np.testing.assert_array_equal(splits.folds(records[::-1], k, seed), found[::-1])


def test_folds_are_even_in_every_domain_and_follow_the_seed():
    records = [rated(f"{i // 2}", f"text {i}", "xyz"[i % 3]) for i in range(66)]
    found = splits.folds(records, 5, seed=0)
    for domain in "xyz":
        own = [f for f, r in zip(found, records, strict=True) if r.domain == domain]
        assert np.ptp(np.bincount(own, minlength=5)) <= 2  # the size of the largest document
    assert np.ptp(np.bincount(found, minlength=5)) <= 2
    assert np.any(found != splits.folds(records, 5, seed=1))
    for k in (1, 67):
        with pytest.raises(ValueError, match="k must be from 2 to the 66 documents"):
            splits.folds(records, k, seed=0)


def test_rankings_and_processes_are_duplicates_by_what_they_hold():
    made = lambda i, tail: [
        Ranking("i", "d", str(i), (("user", "Why?"),), ("So.", tail), (1.0, 0.0)),
        Process("i", "e", str(i), "Why?", ("First.", tail), (1.0, 0.0)),
    ]
    alike = [r for i in range(15) for r in made(i, "Same")]
    assert len({*splits.assign(alike)}) <= 2
    assert (
        len({s for r, s in zip(alike, splits.assign(alike), strict=True) if r.domain == "d"}) == 1
    )
    other = [r for i in range(15) for r in made(i, f"Other {i}")]
    assert len({s for r, s in zip(other, splits.assign(other), strict=True) if r.domain == "d"}) > 1


def test_solutions_of_one_problem_share_a_split_and_of_like_problems_need_not():
    solved = lambda prompt, *steps: {
        "prompt": prompt,
        "steps": list(steps),
        "labels": [1.0] * len(steps),
    }
    read = lambda row: formats.draft(row, 1, formats.Reading("d")).record
    records = []
    for i in range(40):
        records += [read(solved(f"{i} + 1?", f"Add {i}.", "So.")), read(solved(f"{i} + 1?", "So."))]
    found = splits.assign(records)
    # Two solutions of a problem stay together, however they go on; what is alike is no more than a last step.
    assert found[::2] == found[1::2]
    assert found[::2] == [splits.split_of("d", r.document) for r in records[::2]]
    assert len(set(found)) == len(splits.SPLITS)
    # Where a file names other documents for it, one problem's different solutions are no duplicates.
    apart = [dataclasses.replace(r, document=f"own {i}") for i, r in enumerate(records)]
    assert splits.assign(apart) == [splits.split_of("d", r.document) for r in apart]
    # Nor is a solution that says the same of another problem.
    same = [Process("i", "d", str(i), f"Problem {i}", ("So.",), (1.0,)) for i in range(40)]
    assert splits.assign(same) == [splits.split_of("d", str(i)) for i in range(40)]
    # But the same solution of the same problem is one, whatever its documents are called.
    twice = [dataclasses.replace(same[0], document=str(i)) for i in range(40)]
    assert len(set(splits.assign(twice))) == 1


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
