"""How well predicted classes meet the true ones, in every resample at once.

Legend: N texts, C classes, B resamples; results are [B + 1], row 0 the sample itself.
"""

import numpy as np

from rmjax.evaluation import ranking
from rmjax.evaluation.statistics import Figure, Proportion, Resamples


def weighted(true: np.ndarray, predicted: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
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
    over = lambda drawn: Proportion(drawn, resamples.effective(np.ones(len(true))))
    return {
        "precision": over(average(hits / np.maximum(predictions, 1))),
        "recall": over(np.sum(hits, axis=1) / total),
        "f1": over(average(2 * hits / np.maximum(predictions + support, 1))),
    }


def shares(true: np.ndarray, predicted: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
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
    drawn = np.array([a.drawn for a in each])
    known = np.isfinite(drawn)
    over = lambda drawn: Proportion(drawn, resamples.effective(np.ones(len(true))))
    with np.errstate(invalid="ignore"):
        auc = np.sum(np.where(known, drawn, 0.0), axis=0) / np.sum(known, axis=0)
        return {
            "accuracy": over(hits.sum(axis=1) / support.sum(axis=1)),
            "macro_f1": over(
                np.sum(2 * hits / np.maximum(met, 1), axis=1) / np.sum(met > 0, axis=1)
            ),
            "auc": Proportion(
                auc, min((a.independent for a in each if a.independent), default=0.0)
            ),
        }
