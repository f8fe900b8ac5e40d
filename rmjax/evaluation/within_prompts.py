"""Does a score order the completions of one prompt: nothing here compares a score with another prompt's.

So it evaluates scores that are known up to a function of the prompt, such as the implicit reward of a tuned policy.
Legend: G prompts, K completions of one (its own number each), B resamples; results are [B + 1], row 0 the sample.
"""

from collections.abc import Sequence

import numpy as np

from rmjax.evaluation.statistics import Figure, Proportion, Resamples


def figures(
    scores: Sequence[np.ndarray], ratings: Sequence[np.ndarray], resamples: Resamples
) -> dict[str, Figure]:
    """Pair accuracy, tie rate, Kendall's tau-b and top-1 accuracy over prompts [G] of [K].

    Pair accuracy (ties 1/2) and tie rate are over all pairs of unequal ratings; top-1 accuracy, the chance that a
    completion of the highest score is one of the highest rating, is the mean over prompts; so is tau-b, 0 where all
    scores of a prompt tie. Prompts whose ratings are all equal count in none.
    """
    values = np.array([_of_prompt(s, r) for s, r in zip(scores, ratings, strict=True)])
    concordance, differ, both, kendall, top = values.T
    ordered = differ > 0
    mean = lambda v: resamples.mean(v / np.maximum(differ, 1), differ)
    independent = resamples.effective(differ)
    return {
        "pair_accuracy": Proportion(0.5 + 0.5 * mean(concordance), independent),
        "tie_rate": Proportion(1 - mean(both), independent),
        "kendall": resamples.mean(kendall, ordered),
        "top1_accuracy": resamples.proportion(top, ordered),
    }


def pairs(ratings: np.ndarray) -> int:
    """How many pairs of unequal ratings the completions of one prompt [K] form."""
    _, counts = np.unique(ratings, return_counts=True)
    return int(len(ratings) ** 2 - np.sum(counts**2)) // 2


def _of_prompt(score: np.ndarray, rating: np.ndarray) -> np.ndarray:
    """Concordance, pairs of unequal ratings, those of unequal scores too, tau-b, and top-1."""
    first, second = np.triu_indices(len(score), 1)
    s, r = (np.sign(v[first] - v[second]) for v in (np.asarray(score), np.asarray(rating)))
    concordance, differ, both = np.sum(s * r), np.sum(r != 0), np.sum((s * r) != 0)
    spread = np.sqrt(differ * np.sum(s != 0))
    best = score == np.max(score)
    top = np.mean((rating == np.max(rating))[best])
    tau = concordance / spread if spread else 0.0
    return np.array([concordance, differ, both, tau, top])
