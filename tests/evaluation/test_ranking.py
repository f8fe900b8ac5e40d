"""Correlations and pair accuracy against scipy and loops, in every resample written out."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from rmjax.evaluation import ranking
from rmjax.evaluation.statistics import resample

N = 40
RESAMPLES = resample([str(i % 13) for i in range(N)], count=70)  # more than a chunk
RNG = np.random.default_rng(0)
RATING = np.round(RNG.normal(size=N), 1)
SCORE = np.round(RATING + RNG.normal(size=N), 0)  # ties in both, many in one


def texts(b):
    return np.repeat(np.arange(N), RESAMPLES.weights[b, RESAMPLES.document].astype(int))


def forms(score, rating, weights):
    """Numbers of pairs: of unequal ratings, right among them (ties 1/2), tied in score."""
    counted = right = tied = 0.0
    for i, j in itertools.combinations(range(len(score)), 2):
        if rating[i] != rating[j]:
            w = weights[i] * weights[j]
            counted += w
            tied += w * (score[i] == score[j])
            gap = (score[i] - score[j]) * (rating[i] - rating[j])
            right += w * (0.5 if gap == 0 else gap > 0)
    return np.array([counted, right, tied])


@pytest.mark.parametrize("name", ["pearson", "spearman", "kendall"])
def test_correlations_agree_with_scipy_in_every_resample(name):
    if name == "kendall":
        got = ranking.pairs([SCORE], [RATING], [np.arange(N)], RESAMPLES)["kendall"]
    else:
        got = getattr(ranking, name)(SCORE, RATING, RESAMPLES)
    reference = {
        "pearson": stats.pearsonr,
        "spearman": stats.spearmanr,
        "kendall": stats.kendalltau,
    }[name]
    want = [reference(SCORE[texts(b)], RATING[texts(b)])[0] for b in range(71)]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_pair_accuracy_counts_ties_half_and_leaves_out_equal_ratings():
    got = ranking.pairs([SCORE], [RATING], [np.arange(N)], RESAMPLES)
    for b in (0, 1, 2, 70):
        weights = RESAMPLES.weights[b, RESAMPLES.document]
        counted, right, tied = forms(SCORE, RATING, weights)
        assert got["pair_accuracy"][b] == pytest.approx(right / counted)
        assert got["tie_rate"][b] == pytest.approx(tied / counted)
    assert got["tie_rate"][0] > 0.1  # the data have what is tested


def test_pairs_form_within_a_panel_only():
    at = [np.arange(0, 30), np.arange(20, 40), np.array([3, 1])]
    scores = [RNG.integers(-2, 3, len(a)).astype(float) for a in at]
    got = ranking.pairs(scores, [RATING[a] for a in at], at, RESAMPLES)
    for b in (0, 5):
        weights = RESAMPLES.weights[b, RESAMPLES.document]
        each = [forms(s, RATING[a], weights[a]) for s, a in zip(scores, at, strict=True)]
        counted, right, tied = np.sum(each, axis=0)
        assert got["pair_accuracy"][b] == pytest.approx(right / counted)
        assert got["tie_rate"][b] == pytest.approx(tied / counted)


def test_constants_have_no_correlation():
    flat = np.full(N, 0.1)
    for x, y in ((flat, RATING), (RATING, flat)):
        assert np.isnan(ranking.pearson(x, y, RESAMPLES)).all()
        assert np.isnan(ranking.spearman(x, y, RESAMPLES)).all()
    found = ranking.pairs([flat], [RATING], [np.arange(N)], RESAMPLES)
    assert np.isnan(found["kendall"]).all()
    np.testing.assert_array_equal(found["pair_accuracy"][:], 0.5)
    np.testing.assert_array_equal(found["tie_rate"][:], 1.0)
    found = ranking.pairs([RATING], [flat], [np.arange(N)], RESAMPLES)
    assert all(np.isnan(values[:]).all() for values in found.values())


def test_a_large_offset_costs_no_digits():
    got = ranking.pearson(SCORE + 1e7, RATING - 1e7, RESAMPLES)
    np.testing.assert_allclose(got, ranking.pearson(SCORE, RATING, RESAMPLES), rtol=1e-6)


def test_auc_is_sklearn_s_in_every_resample():
    positive = RATING > 0.3
    got = ranking.auc(SCORE, positive, RESAMPLES)
    for b in range(len(RESAMPLES.weights)):
        at = texts(b)
        assert got[b] == pytest.approx(roc_auc_score(positive[at], SCORE[at]))
    assert np.isnan(ranking.auc(SCORE, np.ones(N, bool), RESAMPLES)[:]).all()
