"""Final figures of a policy: shares have an interval that covers, also where all or none are counted."""

import numpy as np
import pytest
from scipy import stats

from rmjax.rl import policy_evaluation


def _written(reward, stopped):
    n = len(reward)
    return policy_evaluation.Written(
        ["one two"] * n, {"right": np.asarray(reward)}, np.zeros(n), np.full(n, 3.0), stopped
    )


def test_a_reward_of_zeros_and_ones_is_a_share_with_wilsons_interval():
    documents = [str(i) for i in range(13)]
    after = _written([1.0] * 13, np.ones(13, bool))
    before = _written([0.0] * 12 + [1.0], np.zeros(13, bool))
    figures = policy_evaluation.figures(after, before, documents)
    low = 13 / (
        13 + stats.t.ppf(0.975, 12) ** 2
    )  # Wilson's lower end where all are counted, with Student's quantile
    assert figures["right"]["low"] == pytest.approx(low) and figures["right"]["high"] == 1
    assert (
        0 <= figures["reference/right"]["low"] < 1 / 13 < figures["reference/right"]["high"] < 0.5
    )
    assert figures["missing_stop"]["low"] == 0 and 0.1 < figures["missing_stop"]["high"] < 0.3


def test_other_rewards_have_a_bootstrap_interval():
    documents = [str(i) for i in range(13)]
    figures = policy_evaluation.figures(
        _written([2.5] * 13, np.ones(13, bool)), _written([0.0] * 13, np.ones(13, bool)), documents
    )
    assert (figures["right"]["low"], figures["right"]["high"]) == (2.5, 2.5)
