"""Weighted precision, recall and F1 against scikit-learn, in every resample written out."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from rmjax.evaluation import classification
from rmjax.evaluation.statistics import resample

RNG = np.random.default_rng(0)
TRUE = RNG.choice([-1.0, 0.0, 1.0], 60, p=[0.3, 0.1, 0.6])
NOISY = np.where(RNG.uniform(size=60) < 0.6, TRUE, RNG.choice([-1.0, 0.0, 1.0], 60))


@pytest.mark.parametrize(
    "predicted",
    [NOISY, TRUE, np.ones(60), np.where(NOISY == 0, 7.0, NOISY)],
    ids=["noisy", "right", "one class", "a class that is never true"],
)
def test_agrees_with_sklearn(predicted):
    resamples = resample([str(i % 9) for i in range(60)], count=30)
    got = classification.weighted(TRUE, predicted, resamples)
    for b, weights in enumerate(resamples.weights):
        texts = np.repeat(np.arange(60), weights[resamples.document].astype(int))
        want = precision_recall_fscore_support(
            TRUE[texts],
            predicted[texts],
            average="weighted",
            zero_division=0,  # pyright: ignore[reportArgumentType] (declared str, takes 0)
        )[:3]
        assert [got[k][b] for k in ("precision", "recall", "f1")] == pytest.approx(want)


def test_classes_may_be_integers():
    resamples = resample([str(i) for i in range(4)], count=0)
    got = classification.weighted(np.array([1, 1, 2, 3]), np.array([1, 2, 2, 2]), resamples)
    assert {k: v[0] for k, v in got.items()} == pytest.approx(
        {"precision": (2 * 1 + 1 / 3) / 4, "recall": 0.5, "f1": (2 * 2 / 3 + 0.5) / 4}
    )
