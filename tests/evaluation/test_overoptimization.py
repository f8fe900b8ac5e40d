"""Proxy against gold: the detector on made-up runs, the KL of best of n by simulation."""

import numpy as np
import pytest

from rmjax.evaluation import overoptimization
from rmjax.evaluation.overoptimization import parted

RNG = np.random.default_rng(0)
UP = np.arange(20.0)


def test_best_of_n_kl_is_that_of_its_density():
    # The quantile of the best of n has density n u^(n-1): its mean log is the KL from the uniform.
    for n in (1, 2, 7, 100):
        best = RNG.uniform(size=400_000) ** (1 / n)
        simulated = np.mean(np.log(n) + (n - 1) * np.log(best))
        assert overoptimization.best_of_n_kl(n) == pytest.approx(simulated, abs=0.01)
    with pytest.raises(ValueError, match="n must be at least 1"):
        overoptimization.best_of_n_kl(0)


def test_a_proxy_that_rises_while_gold_falls_is_told_with_the_figures():
    message = parted(UP, -UP / 10)
    assert message is not None and "last 10 evaluations" in message
    assert "rose from 11 to 18" in message and "fell from -1.1 to -1.8" in message


@pytest.mark.parametrize(
    ("proxy", "gold"),
    [
        (UP, UP),
        (-UP, -UP),
        (-UP, UP),
        (UP, 0 * UP),
        (0 * UP, -UP),
        (UP[:7], -UP[:7]),  # too few
        (UP, -np.minimum(UP, 8)),  # gold fell in the first half only
        (UP, np.where(UP == 15, -1e9, UP)),  # a single outlier
        (UP, np.where(UP < 13, -np.inf, -UP)),  # too few that are finite
    ],
)
def test_no_other_run_is_warned_of(proxy, gold):
    assert parted(proxy, gold) is None


def test_a_late_fall_is_seen_through_noise_and_gaps():
    steps = np.arange(40.0)
    proxy = steps + RNG.normal(size=40)
    gold = -np.abs(steps - 20) / 4 + RNG.normal(size=40)
    gold[[3, 25, 30]] = np.nan
    assert parted(proxy, gold) is not None
    assert parted(proxy[:21], gold[:21]) is None  # gold has only risen by then


def test_noise_is_seldom_warned_of():
    warned = [parted(*RNG.normal(size=(2, 8))) is not None for _ in range(600)]
    assert np.mean(warned) < 0.02  # 0.06 squared


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        parted(UP, UP[1:])
    with pytest.raises(ValueError, match="sizes differ"):
        overoptimization.paired_difference(np.zeros(2), np.zeros((2, 1)), ["a", "b"])


def test_the_curve_ascends_in_kl_without_what_is_unknown():
    got = overoptimization.curve([3.0, -0.1, np.nan, 1.0], [0.2, 0.0, 5.0, np.nan])
    assert got == [(-0.1, 0.0), (3.0, 0.2)] and got[0].kl == -0.1


def test_the_paired_difference_is_over_prompts():
    before = RNG.normal(size=200) * 10  # what prompts differ by drops out of pairs
    after = before + 0.5 + 0.1 * RNG.normal(size=200)
    prompts = [str(i) for i in range(200)]
    value, low, high = overoptimization.paired_difference(after, before, prompts)
    assert value == pytest.approx(np.mean(after - before))
    half = 1.96 * np.std(after - before) / 200**0.5
    assert (low, high) == pytest.approx((value - half, value + half), abs=half / 4)
    # one prompt eight times is no more certain than once
    again = overoptimization.paired_difference(np.tile(after, 8), np.tile(before, 8), prompts * 8)
    assert again == pytest.approx((value, low, high))
