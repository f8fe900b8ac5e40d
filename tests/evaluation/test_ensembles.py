"""Members' scores as one, and their disputes, against loops."""

import itertools

import numpy as np
import pytest

from rmjax.errors import UserError
from rmjax.evaluation import ensembles
from rmjax.evaluation.statistics import resample
from rmjax.lookup import bind

RNG = np.random.default_rng(0)
SCORES = np.round(RNG.normal(size=(3, 12)), 1)
RESAMPLES = resample([str(i % 5) for i in range(12)], count=5)


def test_members_become_one_by_the_line_that_is_named():
    reduce = lambda line: bind(line, ensembles.REDUCE, key="reduce")(SCORES)
    columns = SCORES.T.tolist()
    mean = [sum(c) / 3 for c in columns]
    sd = [np.sqrt(sum((x - m) ** 2 for x in c) / 3) for c, m in zip(columns, mean, strict=True)]
    np.testing.assert_allclose(reduce("mean()"), mean)
    np.testing.assert_allclose(reduce("worst()"), [min(c) for c in columns])
    np.testing.assert_allclose(reduce("lower_bound(k=0.5)"), np.array(mean) - 0.5 * np.array(sd))
    np.testing.assert_allclose(reduce("lower_bound(k=0.0)"), mean)
    with pytest.raises(UserError, match="there is no 'median'"):
        reduce("median()")


def test_disagreement_is_a_loop_over_what_was_drawn():
    got = ensembles.disagreement(SCORES, RESAMPLES)
    for b, weights in enumerate(RESAMPLES.weights):
        at = np.repeat(np.arange(12), weights[RESAMPLES.document].astype(int))
        pairs = [(i, j) for i, j in itertools.combinations(at, 2) if i != j]
        signs = [np.sign(SCORES[:, i] - SCORES[:, j]) for i, j in pairs]
        assert got["disputed"][b] == pytest.approx(np.mean([{-1, 1} <= {*s} for s in signs]))
        assert got["member_sd"][b] == pytest.approx(SCORES[:, at].std(axis=0).mean())


def test_given_pairs_are_disputed_by_their_gaps():
    gaps = np.array([[1.0, -1.0, 0.0, 2.0], [2.0, 1.0, 0.0, 0.0], [0.5, 1.0, 0.0, 1.0]])
    got = ensembles.disagreement_within(gaps, resample(list("abcd"), count=3))
    assert got["disputed"][0] == 0.25  # a tie disputes nothing
    assert got["member_sd"][0] == pytest.approx(gaps.std(axis=0).mean())


def test_one_member_disputes_nothing():
    got = ensembles.disagreement(SCORES[:1], RESAMPLES)
    assert not got["disputed"][:].any() and not got["member_sd"].any()
