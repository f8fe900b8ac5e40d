"""Several members' scores as one, and how far the members disagree.

A function of REDUCE takes scores [S, N] of S members and gives [N]; keyword-only arguments are its options.
"""

import numpy as np

from rmjax.evaluation.statistics import Figure, Proportion, Resamples


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over members."""
    return np.mean(scores, axis=0)


def worst(scores: np.ndarray) -> np.ndarray:
    """The lowest member's score.

    Source: Coste et al. 2023 (arXiv:2310.02743), worst-case optimization.
    """
    return np.min(scores, axis=0)


def lower_bound(scores: np.ndarray, *, k: float = 1.0) -> np.ndarray:
    """Mean less k standard deviations (ddof 0) over members.

    Source: the uncertainty-weighted optimization of Coste et al. 2023, with the deviation in place of the variance.
    """
    return np.mean(scores, axis=0) - k * np.std(scores, axis=0)


REDUCE = {f.__name__: f for f in (mean, worst, lower_bound)}


def disagreement(scores: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
    """Of texts, scores [S, N]: mean standard deviation (ddof 0) over members, and the share of disputed pairs.

    A pair is disputed where one member scores the first higher and another the second; [B + 1] each.
    """
    above = np.zeros((scores.shape[1],) * 2, bool)  # whether some member scores i above j
    for member in scores:
        above |= member[:, None] > member[None, :]
    disputed = above & above.T
    ones = 1.0 - np.eye(scores.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = resamples.pair_sums(disputed * ones) / resamples.pair_sums(ones)
    independent = resamples.effective(np.ones(scores.shape[1])) / 2
    return {
        "member_sd": resamples.mean(np.std(scores, axis=0)),
        "disputed": Proportion(share, independent),
    }


def disagreement_within(gaps: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
    """The same of given pairs, by each member's gap of chosen less rejected [S, M]."""
    disputed = (gaps.max(axis=0) > 0) & (gaps.min(axis=0) < 0)
    return {
        "member_sd": resamples.mean(np.std(gaps, axis=0)),
        "disputed": resamples.proportion(disputed.astype(np.float64)),
    }
