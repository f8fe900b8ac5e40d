"""Weighted precision, recall and F1 against scikit-learn, in every resample written out."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score

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


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_predicted_shares_agree_with_sklearn(classes):
    true = RNG.integers(0, min(classes, 3), 60)  # a fourth class is predicted and never true
    share = RNG.dirichlet(np.ones(classes), 60).round(1)
    share[np.arange(60), true] += 0.3
    share[:, 4:] = 0.0  # a fifth is neither
    resamples = resample([str(i % 9) for i in range(60)], count=70)
    got = classification.shares(true, share, resamples)
    for b, weights in enumerate(resamples.weights):
        texts = np.repeat(np.arange(60), weights[resamples.document].astype(int))
        y, p = true[texts], share[texts]
        assert got["accuracy"][b] == pytest.approx(np.mean(y == p.argmax(axis=1)))
        f1 = f1_score(y, p.argmax(axis=1), average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
        assert got["macro_f1"][b] == pytest.approx(f1)
        auc = np.mean([roc_auc_score(y == c, p[:, c]) for c in set(y)])
        assert got["auc"][b] == pytest.approx(auc)


def test_one_class_has_no_auc():
    got = classification.shares(
        np.zeros(3, int), np.eye(2)[[0, 0, 1]], resample(list("abc"), count=1)
    )
    assert got["accuracy"][0] == pytest.approx(2 / 3) and np.isnan(got["auc"][:]).all()
