"""Order within prompts against loops, scipy's tau-b, and resamples written out."""

import itertools

import numpy as np
import pytest
from scipy import stats

from rmjax.evaluation import within_prompts
from rmjax.evaluation.statistics import resample

RNG = np.random.default_rng(0)
SIZES = [2, 4, 5, 3, 4, 1, 6]
SCORES = [RNG.integers(0, 4, k).astype(float) for k in SIZES]
RATINGS = [RNG.integers(0, 3, k).astype(float) for k in SIZES]
SCORES[3], RATINGS[3] = np.zeros(3), np.array([1.0, 0.0, 2.0])  # scores that say nothing
RATINGS[4] = np.ones(4)  # ratings that say nothing
RESAMPLES = resample(list("abacdea"), count=6)


def brute(prompts):
    right, tied, kendall, top = [], [], [], []
    for score, rating in prompts:
        pairs = [
            (i, j) for i, j in itertools.permutations(range(len(score)), 2) if rating[i] > rating[j]
        ]
        right += [(score[i] > score[j]) + 0.5 * (score[i] == score[j]) for i, j in pairs]
        tied += [score[i] == score[j] for i, j in pairs]
        if pairs:
            tau = stats.kendalltau(score, rating).statistic
            kendall.append(0.0 if np.isnan(tau) else tau)
            top.append(np.mean(rating[score == score.max()] == rating.max()))
    return {
        "pair_accuracy": np.mean(right),
        "tie_rate": np.mean(tied),
        "kendall": np.mean(kendall),
        "top1_accuracy": np.mean(top),
    }


def test_every_resample_is_a_loop_over_its_prompts():
    got = within_prompts.figures(SCORES, RATINGS, RESAMPLES)
    for b, weights in enumerate(RESAMPLES.weights):
        drawn = np.repeat(np.arange(7), weights[RESAMPLES.document].astype(int))
        want = brute([(SCORES[i], RATINGS[i]) for i in drawn])
        assert {k: v[b] for k, v in got.items()} == pytest.approx(want)


def test_a_hand_made_case():
    scores = [np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0])]
    ratings = [np.array([2.0, 1.0, 0.0]), np.array([1.0, 0.0])]
    got = within_prompts.figures(scores, ratings, resample(["a", "b"], count=0))
    # The first: 2 of 3 pairs right, tau 1/3, its best is on top. The second: one tie.
    assert got["pair_accuracy"][0] == pytest.approx((2 + 0.5) / 4)
    assert got["tie_rate"][0] == pytest.approx(1 / 4)
    assert got["kendall"][0] == pytest.approx((1 / 3 + 0) / 2)
    assert got["top1_accuracy"][0] == pytest.approx((1 + 0.5) / 2)


def test_a_shift_of_any_prompt_changes_nothing():
    moved = [s + 100 * i for i, s in enumerate(SCORES)]
    want = within_prompts.figures(SCORES, RATINGS, RESAMPLES)
    for name, values in within_prompts.figures(moved, RATINGS, RESAMPLES).items():
        np.testing.assert_array_equal(values[:], want[name][:])


def test_equal_ratings_leave_every_figure_undefined():
    got = within_prompts.figures([SCORES[0]], [np.ones(2)], resample(["a"], count=2))
    assert all(np.isnan(v[:]).all() for v in got.values())


def test_pairs_are_counted():
    for rating in RATINGS:
        want = sum(a != b for a, b in itertools.combinations(rating, 2))
        assert within_prompts.pairs(rating) == want
