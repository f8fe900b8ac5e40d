"""Calibration against loops over pairs and scikit-learn."""

import itertools

import numpy as np
import pytest
from scipy import special
from sklearn import metrics
from sklearn.calibration import calibration_curve

from rmjax.evaluation import calibration
from rmjax.evaluation.statistics import resample

N = 30
RNG = np.random.default_rng(0)
VOTES = RNG.dirichlet(np.ones(5), N)
SCORE = np.round(VOTES @ np.arange(5) * 2 + RNG.normal(size=N), 1)
RESAMPLES = resample([str(i % 11) for i in range(N)], count=8)


def brute(predictions, shares, weights):
    """ECE, Brier and log score of weighted pairs; the bins are those of the pairs themselves, each once."""
    order = np.argsort(predictions, kind="stable")
    bins = np.empty(len(order), int)
    bins[order] = np.arange(len(order)) * calibration.BINS // len(order)
    error = sum(
        abs(np.sum((weights * (predictions - shares))[bins == b])) for b in range(calibration.BINS)
    )
    log = -(shares * np.log(predictions) + (1 - shares) * np.log(1 - predictions))
    total = weights.sum()
    square = np.sum(weights * (predictions - shares) ** 2)
    return [error / total, square / total, np.sum(weights * log) / total]


def test_vote_shares_are_those_of_all_pairs_of_raters():
    panels = [RNG.integers(-2, 3, size) for size in (3, 5, 4)]
    votes = np.array([[np.mean(p == v) for v in range(-2, 3)] for p in panels])
    got = calibration.vote_shares(votes)
    for i, j in itertools.product(range(3), range(3)):
        pairs = [(a > b) + 0.5 * (a == b) for a in panels[i] for b in panels[j]]
        assert got[i, j] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("temperature", [0.02, 1.0, 40.0])
def test_a_known_temperature_is_found(temperature):
    gap = RNG.normal(size=(50, 50)) * 2 * temperature
    target = special.expit(gap / temperature)
    assert calibration.fit_temperature(gap, target) == pytest.approx(temperature, rel=1e-3)


def test_the_fitted_temperature_has_the_best_log_score():
    gap, target = SCORE[:, None] - SCORE, calibration.vote_shares(VOTES)
    best = calibration.fit_temperature(gap, target)
    mean = lambda t: np.mean(calibration.log_score(gap / t, target))
    assert mean(best) <= min(mean(best * 0.98), mean(best * 1.02))


def test_all_pairs_agree_with_a_loop_in_every_resample():
    logit, target = SCORE[:, None] - SCORE, calibration.vote_shares(VOTES)
    got = calibration.figures(logit, target, RESAMPLES)
    # The text with the higher score first, in the order in which ties break; ties are one pair, share 1/2.
    pairs = [
        (i, j)
        for i, j in itertools.product(range(N), range(N))
        if SCORE[i] > SCORE[j] or (SCORE[i] == SCORE[j] and i < j)
    ]
    assert len(pairs) == N * (N - 1) // 2 and any(SCORE[i] == SCORE[j] for i, j in pairs)
    i, j = np.array(pairs).T
    shares = np.where(SCORE[i] == SCORE[j], 0.5, target[i, j])
    for b in range(9):
        w = RESAMPLES.weights[b, RESAMPLES.document]
        want = brute(special.expit(SCORE[i] - SCORE[j]), shares, w[i] * w[j])
        # A tie's log score is log 2 whatever the share; its Brier score is of one order, and both have the same.
        square = np.square(special.expit(SCORE[i] - SCORE[j]) - target[i, j])
        want[1] = np.average(square, weights=w[i] * w[j])
        assert [got[name][b] for name in ("brier", "log_score")] == pytest.approx(want[1:])
        assert b or got["ece_plain"].value == pytest.approx(want[0])


def test_given_pairs_agree_with_a_loop_and_with_sklearn():
    logit = RNG.normal(size=1500) * 2  # every quantile lies between two pairs
    target = (RNG.uniform(size=1500) < special.expit(logit)).astype(float)
    resamples = resample([str(k % 300) for k in range(1500)], count=5)
    got = calibration.given_pairs(logit, target, resamples)
    prediction, share = special.expit(np.abs(logit)), np.where(logit > 0, target, 1 - target)
    for b in range(6):
        want = brute(prediction, share, resamples.weights[b, resamples.document])
        assert [got[name][b] for name in ("brier", "log_score")] == pytest.approx(want[1:])
        assert b or got["ece_plain"].value == pytest.approx(want[0])
    assert got["brier"][0] == pytest.approx(metrics.brier_score_loss(share, prediction))
    assert got["log_score"][0] == pytest.approx(metrics.log_loss(share, prediction))
    curve = calibration_curve(share, prediction, n_bins=calibration.BINS, strategy="quantile")
    diagram = calibration.reliability(logit, target)
    np.testing.assert_allclose(diagram.observed, curve[0])
    np.testing.assert_allclose(diagram.predicted, curve[1])
    np.testing.assert_array_equal(diagram.pairs, 100)
    assert got["ece_plain"].value == pytest.approx(np.mean(np.abs(curve[0] - curve[1])))


def test_the_diagram_of_all_pairs_is_what_the_error_sums():
    logit, target = SCORE[:, None] - SCORE, calibration.vote_shares(VOTES)
    diagram = calibration.reliability(logit, target)
    assert diagram.pairs.sum() == N * (N - 1) // 2 and np.ptp(diagram.pairs) <= 1
    assert np.all(np.diff(diagram.predicted) >= 0) and diagram.predicted[0] >= 0.5
    error = np.average(np.abs(diagram.predicted - diagram.observed), weights=diagram.pairs)
    found = calibration.figures(logit, target, RESAMPLES)
    assert found["ece_plain"].value == pytest.approx(error)


def test_constant_scores_say_one_half_of_every_pair():
    gap, target = np.zeros((N, N)), calibration.vote_shares(VOTES)
    assert calibration.fit_temperature(gap, target) == 1.0
    found = calibration.figures(gap, target, RESAMPLES)
    assert found["ece"] == (0, 0, 0) and found["ece_plain"].value == 0
    far = np.square(0.5 - target)[np.triu_indices(N, 1)]
    assert found["brier"][0] == pytest.approx(far.mean()) and far.mean() > 0.01
    np.testing.assert_allclose(found["log_score"], np.log(2))
    found = calibration.given_pairs(gap[0], target[0], RESAMPLES)
    assert found["ece"] == (0, 0, 0) and found["ece_calibrated"].value == 0
    np.testing.assert_allclose(found["log_score"], np.log(2))
