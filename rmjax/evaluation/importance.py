"""What a policy would earn, told from answers that another one wrote.

Legend: N texts, B resamples.
"""

import numpy as np

from rmjax.evaluation.statistics import Resamples


def weights(log_ratios: np.ndarray) -> np.ndarray:
    """p / p_old of each text [N] up to a common factor, the largest 1; from log p - log p_old."""
    log_ratios = np.asarray(log_ratios, np.float64)
    return np.exp(log_ratios - log_ratios.max())


def expected_reward(rewards: np.ndarray, log_ratios: np.ndarray, drawn: Resamples) -> np.ndarray:
    """sum w R / sum w, w = p / p_old, in each resample [B + 1]: the policy's reward on the prompts of a log.

    Of texts that the writer would not write it knows nothing. It is as good as its `effective_texts` are many.
    Source: Hesterberg 1995; for policies Swaminathan & Joachims 2015 (self-normalized estimator).
    """
    return drawn.mean(np.asarray(rewards, np.float64), weights(log_ratios))


def effective_texts(log_ratios: np.ndarray) -> float:
    """(sum w)^2 / sum w^2, from 1 to N: how many texts of the policy's own tell as much.

    Source: Kong 1992.
    """
    w = weights(log_ratios)
    return float(w.sum() ** 2 / np.square(w).sum())
