"""Rewards of a policy from another one's answers, against the expectation by enumeration."""

import numpy as np
import pytest

from rmjax.evaluation import importance, statistics

RNG = np.random.default_rng(0)
POLICY, WRITER, PAY = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5]), np.array([1.0, 4.0, -2.0])  # fmt: skip


def test_the_policys_reward_is_found_within_its_interval():
    arms = RNG.choice(3, size=2000, p=WRITER)
    drawn = statistics.resample([str(i) for i in range(len(arms))])
    ratios = np.log(POLICY / WRITER)[arms]
    for shift in (0.0, -2000.0):  # a common factor does not count
        got = importance.expected_reward(PAY[arms], ratios + shift, drawn)
        found = statistics.interval(got)
        assert found.low < POLICY @ PAY < found.high < found.low + 0.4
        w = (POLICY / WRITER)[arms]
        assert got[0] == pytest.approx(w @ PAY[arms] / w.sum())
    assert found.low > WRITER @ PAY


def test_as_many_texts_tell_as_weigh():
    assert importance.effective_texts(np.full(7, -300.0)) == pytest.approx(7)
    assert importance.effective_texts(np.array([0.0, -800.0, -900.0])) == pytest.approx(1)
    w = np.array([1.0, 0.5, 0.25])
    assert importance.effective_texts(np.log(w)) == pytest.approx(w.sum() ** 2 / (w @ w))
