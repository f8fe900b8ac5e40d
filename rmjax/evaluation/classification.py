"""How well predicted classes meet the true ones, in every resample at once.

Legend: N texts, C classes, B resamples; results are [B + 1], row 0 the sample itself.
"""

import numpy as np

from rmjax.evaluation import ranking
from rmjax.evaluation.statistics import Resamples


def weighted(
    true: np.ndarray, predicted: np.ndarray, resamples: Resamples
) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, averaged with the weight of its true share; all in [0, 1].

    true, predicted: the class of each text [N]. A class that is never predicted has precision 0 (recall, and so
    F1, is 0 for it too); the averaged recall is the accuracy. In a resample the shares are its own.
    """
    classes = np.unique(true)
    truly, guessed = (np.asarray(v)[:, None] == classes for v in (true, predicted))
    columns = np.concatenate([truly & guessed, guessed, truly], axis=1).astype(np.float64)
    hits, predictions, support = np.split(resamples.sums(columns), 3, axis=1)
    total = support.sum(axis=1)
    average = lambda share: np.sum(support * share, axis=1) / total
    return {
        "precision": average(hits / np.maximum(predictions, 1)),
        "recall": np.sum(hits, axis=1) / total,
        "f1": average(2 * hits / np.maximum(predictions + support, 1)),
    }


def shares(true: np.ndarray, predicted: np.ndarray, resamples: Resamples) -> dict[str, np.ndarray]:
    """Accuracy, macro F1 and AUC of predicted shares [N, C] of the classes 0 .. C - 1.

    true: the class of each text [N]. The class predicted is the one of the largest share, the first of several.
    Macro F1 is the plain mean over the classes that occur or are predicted; AUC that of each class against all others,
    over the classes that occur. In a resample, those of the resample.
    """
    guess, classes = np.argmax(predicted, axis=1), np.arange(predicted.shape[1])
    truly, guessed = (v[:, None] == classes for v in (np.asarray(true), guess))
    columns = np.concatenate([truly & guessed, guessed, truly], axis=1).astype(np.float64)
    hits, predictions, support = np.split(resamples.sums(columns), 3, axis=1)
    met = predictions + support
    each = [ranking.auc(predicted[:, c], truly[:, c], resamples) for c in classes]
    known = np.isfinite(each)
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": hits.sum(axis=1) / support.sum(axis=1),
            "macro_f1": np.sum(2 * hits / np.maximum(met, 1), axis=1) / np.sum(met > 0, axis=1),
            "auc": np.sum(np.where(known, each, 0.0), axis=0) / np.sum(known, axis=0),
        }
