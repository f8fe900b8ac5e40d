"""How well people agree with each other: what a model is up against, and the best it can do.

Legend: N texts, B resamples; results are [B + 1], row 0 the sample itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmjax.evaluation import ranking
from rmjax.evaluation.statistics import Figure, Resamples

SPLITS = 100  # random halves of every panel


class Singles(NamedTuple):
    """Every single rating [M], the mean of the text's other ratings, and the index of the text."""

    own: np.ndarray
    others: np.ndarray
    text: np.ndarray


def against_others(ratings: Sequence[np.ndarray]) -> Singles:
    """Pools every rating of every text with the mean of the others, in order of the texts.

    ratings: every rater's own, two or more a text [N] of [raters].
    """
    return Singles(
        np.concatenate(ratings),
        np.concatenate([(np.sum(r) - r) / (len(r) - 1) for r in ratings]),
        np.repeat(np.arange(len(ratings)), [len(r) for r in ratings]),
    )


def single_rater(ratings: Sequence[np.ndarray], resamples: Resamples) -> dict[str, Figure]:
    """One rating against the mean of the text's other ratings, pooled over (text, rater).

    ratings: every rater's own, two or more a text [N] of [raters].
    Pearson, Spearman, Kendall, pair accuracy and tie rate; in pairs, the raters in one column of the panels
    rate both texts.
    """
    own, others, text = against_others(ratings)
    column = np.concatenate([np.arange(len(r)) for r in ratings])
    pooled = resamples.of(text)
    at = [np.flatnonzero(column == k) for k in range(max(column) + 1)]
    return {
        "pearson": ranking.pearson(own, others, pooled),
        "spearman": ranking.spearman(own, others, pooled),
        **ranking.pairs(
            [own[i] for i in at], [others[i] for i in at], [text[i] for i in at], resamples
        ),
    }


def noise_ceiling(
    ratings: Sequence[np.ndarray], resamples: Resamples, *, seed: int = 0
) -> np.ndarray:
    """The largest Pearson r a model can expect with the panel's mean: the square root of its reliability.

    Reliability is the mean correlation of random halves of the panels, stepped up to the full panel.
    Source: Spearman 1910, Brown 1910; the root: attenuation, Spearman 1904.
    """
    rng = np.random.default_rng(seed)
    sizes = [len(r) for r in ratings]
    single, text = np.concatenate(ratings), np.repeat(np.arange(len(ratings)), sizes)
    place = np.concatenate([np.arange(n) for n in sizes])
    halves = []
    for _ in range(SPLITS):
        shuffled = single[np.lexsort((rng.random(len(text)), text))]  # within each panel
        first, second = (
            np.bincount(text, shuffled * own) / np.bincount(text, own)
            for own in (place % 2 == 0, place % 2 == 1)
        )
        halves.append(ranking.pearson(first, second, resamples))
    half = np.mean(halves, axis=0)
    with np.errstate(invalid="ignore"):
        return np.sqrt(2 * half / (1 + half))
