"""Figures of step-labelled solutions: by hand, by loops and by scikit-learn."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from rmjax.evaluation import processes
from rmjax.evaluation.statistics import resample

RNG = np.random.default_rng(0)
SIZES = [3, 1, 4, 2, 5, 3]
SCORES = [RNG.normal(size=k) for k in SIZES]
LABELS = [RNG.choice([0.0, 0.5, 1.0, 1.0], k) for k in SIZES]
LABELS[0][:], LABELS[1][:] = 1.0, 1.0
SCORES[2][0] = 0.0
RESAMPLES = resample(list("abacde"), count=6)


def brute(drawn):
    score, label = (np.concatenate([v[i] for i in drawn]) for v in (SCORES, LABELS))
    kept = label != 0.5
    step = np.where(score == 0, 0.5, (score > 0) == (label > 0.5))[kept]
    whole = [not np.any(LABELS[i] < 0.5) for i in drawn]
    sure = lambda over: np.mean(np.where(over == 0, 0.5, (over > 0) == whole))
    lowest = np.array([SCORES[i].min() for i in drawn])
    product = np.array([special.expit(SCORES[i]).prod() for i in drawn])
    first = lambda wrong: next((k for k, w in enumerate(wrong) if w), -1)
    auc = lambda y, s: metrics.roc_auc_score(y, s) if len(set(y)) == 2 else np.nan
    return {
        "step_accuracy": step.mean(),
        "step_auc": auc(label[kept] > 0.5, score[kept]),
        "first_error_accuracy": np.mean(
            [first(SCORES[i] < 0) == first(LABELS[i] < 0.5) for i in drawn]
        ),
        "solution_min_auc": auc(whole, lowest),
        "solution_min_accuracy": sure(lowest),
        "solution_product_auc": auc(whole, product),
        "solution_product_accuracy": sure(product - 0.5),
    }


def test_every_resample_is_a_loop_over_its_solutions():
    got = processes.figures(SCORES, LABELS, RESAMPLES)
    for b, weights in enumerate(RESAMPLES.weights):
        drawn = np.repeat(np.arange(6), weights[RESAMPLES.document].astype(int))
        assert {k: v[b] for k, v in got.items()} == pytest.approx(brute(drawn), nan_ok=True)


def test_a_hand_made_case():
    scores = [np.array([2.0, -1.0, 3.0]), np.array([1.0, 0.2]), np.array([-1.0])]
    labels = [np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0]), np.array([1.0])]
    got = {
        k: v[0]
        for k, v in processes.figures(scores, labels, resample(list("abc"), count=0)).items()
    }
    assert got["step_accuracy"] == pytest.approx(4 / 6)
    assert got["first_error_accuracy"] == pytest.approx(2 / 3)  # "none" is right of the second
    assert got["solution_min_auc"] == pytest.approx((1 + 0.5) / 2)  # -1 against .2 and -1
    assert got["solution_min_accuracy"] == pytest.approx(2 / 3)
    # Products .88 x .27 x .95 = .23 (wrong), .73 x .55 = .40, .27: below one half all three.
    assert got["solution_product_accuracy"] == pytest.approx(1 / 3)
    assert got["solution_product_auc"] == 1.0


def test_steps_that_are_all_neutral_have_no_accuracy():
    got = processes.figures([np.ones(2)], [np.full(2, 0.5)], resample(["a"], count=1))
    assert np.isnan(got["step_accuracy"][:]).all() and np.isnan(got["step_auc"][:]).all()
    np.testing.assert_array_equal(got["first_error_accuracy"][:], 1.0)
