"""Length probes against loops, scipy and a regression on ranks."""

import numpy as np
import pytest
from scipy import stats

from rmjax.evaluation import length_bias
from rmjax.evaluation.statistics import resample

RNG = np.random.default_rng(0)
M = 60
DIFFERENCE = RNG.integers(-8, 9, M).astype(float)
GAP = np.round(DIFFERENCE / 8 + RNG.normal(size=M), 1)
RESAMPLES = resample([str(i % 13) for i in range(M)], count=5)


def test_pairs_agree_with_loops_over_what_was_drawn():
    got = length_bias.pairs(GAP, DIFFERENCE, RESAMPLES)
    edges = np.quantile(DIFFERENCE, [0.2, 0.4, 0.6, 0.8])
    bins = [sum(d > e for e in edges) for d in DIFFERENCE]
    assert min(np.bincount(bins)) > 5
    for b, weights in enumerate(RESAMPLES.weights):
        at = np.repeat(np.arange(M), weights[RESAMPLES.document].astype(int))
        gap, difference, own = GAP[at], DIFFERENCE[at], np.array(bins)[at]
        right = (gap > 0) + 0.5 * (gap == 0)
        follows = (gap * difference > 0) + 0.5 * (gap == 0)
        both = np.concatenate([gap, -gap]), np.concatenate([difference, -difference])
        want = {
            "chosen_longer_accuracy": right[difference > 0].mean(),
            "chosen_shorter_accuracy": right[difference < 0].mean(),
            "prefers_longer": follows[difference != 0].mean(),
            "length_spearman": stats.spearmanr(*both).statistic,
        }
        for k in range(5):
            want[f"length_bin_{k + 1}"] = difference[own == k].mean()
            want[f"length_bin_{k + 1}_accuracy"] = right[own == k].mean()
        assert {k: v[b] for k, v in got.items()} == pytest.approx(want)


def test_who_was_chosen_does_not_matter_to_the_correlation():
    turned = np.where(np.arange(M) % 2, 1, -1)
    for name in ("length_spearman", "prefers_longer"):
        want = length_bias.pairs(GAP, DIFFERENCE, RESAMPLES)[name]
        got = length_bias.pairs(GAP * turned, DIFFERENCE * turned, RESAMPLES)[name]
        np.testing.assert_allclose(got[:], want[:])


def test_a_score_that_is_the_length_prefers_the_longer():
    got = length_bias.pairs(DIFFERENCE, DIFFERENCE, RESAMPLES)
    assert got["chosen_longer_accuracy"][0] == 1 and got["chosen_shorter_accuracy"][0] == 0
    assert got["prefers_longer"][0] == 1 and got["length_spearman"][0] == pytest.approx(1)


def test_texts_have_a_partial_correlation_given_their_rating():
    length = RNG.integers(1, 30, M).astype(float)
    rating = np.round(length / 10 + RNG.normal(size=M))
    score = rating + RNG.normal(size=M)
    got = length_bias.texts(score, length, rating, RESAMPLES)
    for b, weights in enumerate(RESAMPLES.weights):
        at = np.repeat(np.arange(M), weights[RESAMPLES.document].astype(int))
        s, n, r = (stats.rankdata(v[at]) for v in (score, length, rating))
        rest = lambda v, r=r: v - np.polyval(np.polyfit(r, v, 1), r)
        assert got["length_spearman"][b] == pytest.approx(np.corrcoef(s, n)[0, 1])
        want = np.corrcoef(rest(s), rest(n))[0, 1]
        assert got["length_spearman_given_rating"][b] == pytest.approx(want)
    assert got["length_spearman"][0] > got["length_spearman_given_rating"][0]
    same = length_bias.texts(rating, length, rating, RESAMPLES)  # nothing is left to correlate
    assert np.isnan(same["length_spearman_given_rating"]).all()
