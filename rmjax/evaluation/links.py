"""What a loss itself says of a pair: the probability that the first is better, ties counted half, nothing fitted.

A gap is the first's score less the second's, any shape; results have the broadcast shape.
"""

import numpy as np
from scipy import special


def bradley_terry(gap: np.ndarray) -> np.ndarray:
    """sigmoid(gap)."""
    return special.expit(gap)


def thurstone(gap: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
    """Phi(gap / (sqrt 2 scale)).

    scale: deviation of one score's noise, > 0.
    """
    return special.ndtr(np.asarray(gap) / (2**0.5 * scale))


def rao_kupper(gap: np.ndarray, tie_width: float | np.ndarray) -> np.ndarray:
    """P(win) + P(tie) / 2 = [sigmoid(gap - h) + sigmoid(gap + h)] / 2, h = softplus(tie_width).

    tie_width: the head's parameter, before its softplus.
    """
    width = np.logaddexp(0.0, tie_width)
    return (special.expit(gap - width) + special.expit(gap + width)) / 2


def gaussian(gap: np.ndarray, log_variance: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Phi(gap / sqrt(v1 + v2)): of two independent normal ratings, by their means' gap and log-variances."""
    return special.ndtr(gap / np.sqrt(np.exp(log_variance) + np.exp(other)))


def distributions(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """P(a > b) + P(a = b) / 2 of independent classes with shares [..., C], ascending in the rating: [...]."""
    below = np.cumsum(second, axis=-1) - second / 2
    return np.einsum("...c,...c->...", first, below)  # no array of pairs and classes


def ordinal(score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Shares of the classes [..., C] by P(class <= k) = sigmoid(threshold_k - score), thresholds [C - 1] increasing."""
    below = special.expit(thresholds - np.asarray(score)[..., None])
    edge = below[..., :1]
    return np.diff(np.concatenate([np.zeros_like(edge), below, np.ones_like(edge)], axis=-1))


def logit(probability: np.ndarray) -> np.ndarray:
    """log p / (1 - p), which `calibration` reads, kept finite: p within 1e-9 of 0 and 1."""
    return special.logit(np.clip(probability, 1e-9, 1 - 1e-9))
