"""How far a score follows length: accuracy by difference in length, and correlation of score with length.

Legend: M pairs, N texts, B resamples; results are [B + 1], row 0 the sample itself.
"""

import numpy as np

from rmjax.evaluation import ranking
from rmjax.evaluation.statistics import Figure, Resamples

BINS = 5


def pairs(gap: np.ndarray, difference: np.ndarray, resamples: Resamples) -> dict[str, Figure]:
    """Of given pairs: gap of the scores and difference of the lengths, chosen less rejected, [M] each.

    chosen_longer_accuracy, chosen_shorter_accuracy: pair accuracy (ties 1/2) where the chosen one is so.
    prefers_longer: how often the longer of two scores higher, ties 1/2; people's own habit is `longer`'s accuracy.
    length_spearman: of gap with difference, each pair taken both ways round: within prompts, whoever was chosen.
    length_bin_1 .. 5, length_bin_1_accuracy ..: mean difference and accuracy in bins of equal count, ascending.
    """
    right, longer = 0.5 + 0.5 * np.sign(gap), np.sign(difference)
    both = resamples.of(np.tile(np.arange(len(gap)), 2))
    found: dict[str, Figure] = {
        "chosen_longer_accuracy": resamples.proportion(right, longer > 0),
        "chosen_shorter_accuracy": resamples.proportion(right, longer < 0),
        "prefers_longer": resamples.proportion(0.5 + 0.5 * np.sign(gap) * longer, longer != 0),
        "length_spearman": ranking.spearman(
            np.concatenate([gap, -gap]), np.concatenate([difference, -difference]), both
        ),
    }
    for k, own in enumerate(_bins(difference), 1):
        found[f"length_bin_{k}"] = resamples.mean(difference, own)
        found[f"length_bin_{k}_accuracy"] = resamples.proportion(right, own)
    return found


def texts(
    score: np.ndarray, length: np.ndarray, rating: np.ndarray, resamples: Resamples
) -> dict[str, Figure]:
    """Of rated texts [N]: Spearman's rho of score with length, and the same with the rating held fixed.

    The second is the partial correlation of ranks: what length says of the score beyond what it says of the rating.
    Source: Yule 1907, on ranks.
    """
    with_length = ranking.spearman(score, length, resamples)
    with_rating = ranking.spearman(score, rating, resamples)
    between = ranking.spearman(length, rating, resamples)
    rest = np.sqrt((1 - with_rating**2) * (1 - between**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        partial = np.where(rest > 1e-9, (with_length - with_rating * between) / rest, np.nan)
    return {"length_spearman": with_length, "length_spearman_given_rating": partial}


def _bins(difference: np.ndarray) -> np.ndarray:
    """Whether each pair is in each bin, [BINS, M]; equal differences are in one."""
    if not len(difference):  # rankings may hold no pair of unequal ratings
        return np.zeros((BINS, 0), bool)
    edges = np.quantile(difference, np.arange(1, BINS) / BINS)
    return np.arange(BINS)[:, None] == np.searchsorted(edges, difference, side="left")
