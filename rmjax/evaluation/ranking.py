"""Does a score order texts as people do: correlations and pair accuracy, in every resample at once.

Legend: N texts, B resamples; results are [B + 1], row 0 the sample itself.
"""

from collections.abc import Sequence

import numpy as np

from rmjax.evaluation.statistics import Figure, Proportion, Resamples

CHUNK = 64  # resamples at a time where each needs an array of the texts


def pearson(x: np.ndarray, y: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Pearson's r; NaN where x or y is constant."""
    # Centered, so that the moments do not cancel.
    x, y = (np.asarray(v, np.float64) - np.mean(v, dtype=np.float64) for v in (x, y))
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    return _correlation(resamples.sums(moments))


def spearman(x: np.ndarray, y: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Spearman's rho: Pearson's r of the ranks in each resample, tied texts sharing their mean rank."""
    found = []
    for start in range(0, len(resamples.weights), CHUNK):
        weights = resamples.weights[start : start + CHUNK, resamples.document]
        total = weights.sum(axis=1, keepdims=True)
        a, b = (_ranks(v, weights) - total / 2 for v in (x, y))
        columns = [np.ones_like(a), a, b, a * a, b * b, a * b]
        found.append(_correlation(np.stack([np.sum(weights * c, axis=1) for c in columns], axis=1)))
    return np.concatenate(found)


def pairs(scores: Sequence[np.ndarray], ratings: Sequence[np.ndarray], texts: Sequence[np.ndarray],
          resamples: Resamples) -> dict[str, Figure]:  # fmt: skip
    """Kendall's tau-b, pair accuracy (ties 1/2) over pairs of unequal ratings, and its rate of ties.

    scores, ratings, texts: one array of each [M] per panel (one for a model; several where several raters take
      turns at being the model); texts are indices into the N. Pairs form within a panel and count alike.
    """
    size = len(resamples.document)
    forms = np.zeros((4, size, size), np.float32)
    for score, rating, at in zip(scores, ratings, texts, strict=True):
        s, r = (np.sign(v[:, None] - v[None, :]).astype(np.float32) for v in (score, rating))
        block = np.ix_(at, at)
        for form, values in zip(forms, (s * r, np.abs(s), np.abs(r), np.abs(s * r)), strict=True):
            form[block] += values
    concordance, score_differs, rating_differs, both = (resamples.pair_sums(f) for f in forms)
    independent = resamples.effective(forms[2].sum(axis=1)) / 2  # pairs that share no document
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "kendall": concordance / np.sqrt(score_differs * rating_differs),
            "pair_accuracy": Proportion(0.5 + 0.5 * concordance / rating_differs, independent),
            "tie_rate": Proportion(1 - both / rating_differs, independent),
        }


def auc(score: np.ndarray, positive: np.ndarray, resamples: Resamples) -> Proportion:
    """Area under the ROC curve: how often a positive text [N] of bool scores above another, ties 1/2.

    NaN where all drawn are of one kind. Source: Mann & Whitney 1947.
    """
    if positive.all() or not positive.any():
        return Proportion(np.full(len(resamples.weights), np.nan), 0.0)
    found = []
    for start in range(0, len(resamples.weights), CHUNK):
        weights = resamples.weights[start : start + CHUNK, resamples.document]
        yes = np.sum(weights[:, positive], axis=1)
        no = np.sum(weights[:, ~positive], axis=1)
        ranks = np.sum((weights * _ranks(score, weights))[:, positive], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((ranks - yes * yes / 2) / (yes * no))
    independent = min(resamples.effective(positive), resamples.effective(~positive))
    return Proportion(np.concatenate(found), independent)


def _correlation(moments: np.ndarray) -> np.ndarray:
    """r from the weighted sums [B + 1, 6] of 1, x, y, xx, yy, xy."""
    total, x, y, xx, yy, xy = moments.T
    with np.errstate(invalid="ignore", divide="ignore"):
        spread_x, spread_y = xx - x * x / total, yy - y * y / total
        flat = (spread_x <= 1e-12 * xx) | (spread_y <= 1e-12 * yy)
        return np.where(flat, np.nan, (xy - x * y / total) / np.sqrt(spread_x * spread_y))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks [B, N] of values [N] where text i occurs weights[:, i] times."""
    order = np.argsort(values, kind="stable")
    _, starts, place = np.unique(values[order], return_index=True, return_inverse=True)
    mass = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(mass, axis=1) - mass / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = middle[:, place]
    return ranks
