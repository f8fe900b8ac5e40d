"""Step by step: are right steps told from wrong ones, is the first error found, are whole solutions told apart.

A score is a logit: above 0 says that the step is right. A label is the probability that it is; 1/2 is neither.
Legend: N solutions, T steps of one (its own number each), B resamples; results are [B + 1], row 0 the sample itself.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from rmjax.evaluation import ranking
from rmjax.evaluation.statistics import Figure, Resamples


def figures(
    scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], resamples: Resamples
) -> dict[str, Figure]:
    """Figures of solutions [N] of [T].

    step_accuracy (a score of 0 counts 1/2), step_auc: over the steps that are right or wrong.
    first_error_accuracy: how often the first step scored below 0 is the first wrong one; none is an answer too.
    solution_min_auc, solution_product_auc: of the lowest score, and of the product of the steps' probabilities, for
      solutions without a wrong step against the others; .._accuracy: of that probability above 1/2.
    """
    score, label = (np.concatenate(v).astype(np.float64) for v in (scores, labels))
    steps = resamples.of(np.repeat(np.arange(len(scores)), [len(s) for s in scores]))
    told, right = label != 0.5, label > 0.5
    kept = steps.of(np.flatnonzero(told))
    agree = 0.5 + 0.5 * np.sign(score) * np.where(right, 1, -1)
    lowest = np.array([np.min(s) for s in scores], np.float64)
    product = np.array([np.sum(special.log_expit(s.astype(np.float64))) for s in scores])
    whole = np.array([np.all(v >= 0.5) for v in labels])
    found = [_first(s < 0) == _first(v < 0.5) for s, v in zip(scores, labels, strict=True)]
    half = lambda over: resamples.proportion(0.5 + 0.5 * np.sign(over) * np.where(whole, 1, -1))
    return {
        "step_accuracy": steps.proportion(agree, told),
        "step_auc": ranking.auc(score[told], right[told], kept),
        "first_error_accuracy": resamples.proportion(np.array(found, np.float64)),
        "solution_min_auc": ranking.auc(lowest, whole, resamples),
        "solution_min_accuracy": half(lowest),
        "solution_product_auc": ranking.auc(product, whole, resamples),
        "solution_product_accuracy": half(product + np.log(2)),
    }


def _first(wrong: np.ndarray) -> int:
    """The place of the first True; the length where there is none."""
    return int(np.argmax(wrong)) if np.any(wrong) else len(wrong)
