"""Intervals: bootstrap over documents, because texts of one document are not independent; t over seeds.

Legend: N texts, D documents, B resamples; row 0 of anything [B + 1] is the sample itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 1000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure and its 95% interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


class Resamples(NamedTuple):
    """How often each document was drawn, [B + 1, D], and the document of each text, [N]."""

    weights: np.ndarray
    document: np.ndarray

    def of(self, texts: np.ndarray) -> "Resamples":
        """The same draws for texts given by index [M], repeated where an index is."""
        return Resamples(self.weights, self.document[texts])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over texts of values [N, K], in each resample: [B + 1, K]."""
        by_document = np.zeros((self.weights.shape[1], values.shape[1]))
        np.add.at(by_document, self.document, values)
        return self.weights @ by_document

    def mean(self, values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Weighted mean over texts of values [N], in each resample: [B + 1]; NaN where no weight is drawn.

        weights: of each text [N], default 1; values of weight 0 do not count, NaN included.
        """
        weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
        total, weight = self.sums(
            np.stack([np.where(weights != 0, values, 0.0) * weights, weights], axis=1)
        ).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / weight

    def pair_sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over pairs of texts of values [N, N], in each resample: [B + 1].

        A text drawn twice does not form a pair with itself: the diagonal must be 0.
        """
        order = np.argsort(self.document, kind="stable")
        kept, starts = np.unique(self.document[order], return_index=True)
        blocks = np.add.reduceat(values[np.ix_(order, order)], starts, axis=0, dtype=np.float64)
        blocks = np.add.reduceat(blocks, starts, axis=1)
        drawn = self.weights[:, kept]
        return np.einsum("bd,bd->b", drawn @ blocks, drawn)


def resample(documents: Sequence[str], *, count: int = RESAMPLES, seed: int = 0) -> Resamples:
    """`count` draws of as many documents as there are, with replacement (Efron 1979), after the sample itself.

    documents: the document of each text [N].
    """
    names, document = np.unique(
        np.asarray(documents, dtype=object).astype(str), return_inverse=True
    )
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    return Resamples(np.vstack([np.ones(len(names)), drawn]), document)


def interval(values: np.ndarray) -> Estimate:
    """The estimate values[0] with the percentile interval of the resamples, less their bias.

    The bias (mean resample less estimate) is nothing for correlations and accuracies; calibration errors, being
    means of absolute values, are larger in nearly every resample, and plain percentiles would miss the estimate.
    """
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value) or not len(drawn):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - (np.mean(drawn) - value)
    return Estimate(value, max(float(low), min(float(drawn.min()), 0.0)), float(high))


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of values [S] with Student's t interval, deviation with ddof 1."""
    value = float(np.mean(values))
    if len(values) < 2 or not np.isfinite(value):
        return Estimate(value, np.nan, np.nan)
    half = (
        stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    )
    return Estimate(value, value - float(half), value + float(half))
