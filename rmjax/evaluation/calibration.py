"""Is a score gap a probability: sigmoid(gap / temperature) against the share of raters who agree.

Legend: N texts, D documents, V distinct ratings, M pairs, B resamples; results are [B + 1], row 0 the sample itself.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from rmjax.evaluation import calibration_error
from rmjax.evaluation.calibration_error import BINS
from rmjax.evaluation.statistics import Figure, Resamples


class Reliability(NamedTuple):
    """Mean prediction, mean observed share and number of pairs of each bin, least certain first."""

    predicted: np.ndarray
    observed: np.ndarray
    pairs: np.ndarray


def vote_shares(votes: np.ndarray) -> np.ndarray:
    """P(a > b) + P(a = b) / 2 over all pairs of a rater of text a and one of text b: [N, N].

    votes: shares of each text's ratings [N, V], ascending in the rating.
    """
    below = np.cumsum(votes, axis=1) - votes / 2
    return votes @ below.T


def fit_temperature(gap: np.ndarray, target: np.ndarray) -> float:
    """The temperature in (1e-3, 1e4) at which sigmoid(gap / temperature) has the best log score; any shapes.

    Source: Guo et al. 2017 (arXiv:1706.04599) section 4.2.
    """
    if not np.any(gap):
        return 1.0
    scale = float(np.mean(np.abs(gap)))
    loss = lambda log: float(np.mean(log_score(gap / np.exp(log), target)))
    middle = np.log(scale)
    found = optimize.minimize_scalar(loss, bounds=(middle - 7, middle + 9), method="bounded")
    return float(np.exp(found.x))


def log_score(logit: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Cross-entropy in nats of sigmoid(logit) against the share `target`."""
    return np.logaddexp(0, logit) - target * logit


def figures(logit: np.ndarray, target: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
    """Calibration errors (`calibration_error`), Brier score and log score over all unordered pairs of texts.

    logit, target: of text i against text j, [N, N], logit antisymmetric.
    """
    prediction, share, counted = _oriented(logit, target)
    total = resamples.pair_sums(counted)
    # Of a tie too: not against the half that both orders agree with on average.
    square, log = np.square(special.expit(logit) - target), log_score(logit, target)
    first, second = (resamples.document[i] for i in np.nonzero(counted))
    off = (prediction - share)[counted]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            **calibration_error.figures(off, _bins(prediction[counted]), first, second),
            "brier": resamples.pair_sums(np.where(counted, square, 0.0)) / total,
            "log_score": resamples.pair_sums(np.where(counted, log, 0.0)) / total,
        }


def given_pairs(logit: np.ndarray, target: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
    """The same over given pairs: logit and target [M], of the chosen against the rejected."""
    prediction, share = _preferred(logit, target)
    document = resamples.document
    square = np.square(special.expit(logit) - target)
    return {
        **calibration_error.figures(prediction - share, _bins(prediction), document, document),
        "brier": resamples.mean(square),
        "log_score": resamples.mean(log_score(logit, target)),
    }


def reliability(logit: np.ndarray, target: np.ndarray) -> Reliability:
    """The diagram of all pairs [N, N], or of given pairs [M]."""
    if logit.ndim == 2:
        prediction, share, counted = _oriented(logit, target)
        prediction, share = prediction[counted], share[counted]
    else:
        prediction, share = _preferred(logit, target)
    bins = _bins(prediction)
    pairs = np.bincount(bins, minlength=BINS)
    mean = lambda v: np.bincount(bins, v, minlength=BINS) / np.maximum(pairs, 1)
    return Reliability(mean(prediction), mean(share), pairs)


def _oriented(logit: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, share and whether it counts, for each pair once: the text with the higher score first."""
    prediction, share = _preferred(logit, target)
    return prediction, share, (logit > 0) | ((logit == 0) & np.triu(np.ones(logit.shape, bool), 1))


def _preferred(logit: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The prediction for the text with the higher score, and the share of raters for it; 1/2 where scores tie."""
    share = np.where(logit > 0, target, np.where(logit < 0, 1 - target, 0.5))
    return special.expit(np.abs(logit)), share


def _bins(prediction: np.ndarray) -> np.ndarray:
    """Bins of equal count, ascending in the prediction."""
    place = np.empty(len(prediction), np.int64)
    place[np.argsort(prediction, kind="stable")] = np.arange(len(prediction))
    return place * BINS // max(len(prediction), 1)
