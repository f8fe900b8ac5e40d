"""Best of n against every subset of the completions, with ties broken every way."""

import itertools

import numpy as np
import pytest

from rmjax.evaluation import best_of_n
from rmjax.evaluation.statistics import resample

RNG = np.random.default_rng(0)


def brute(proxy, gold, n):
    """Mean over all subsets of n of the mean gold of its highest proxies."""
    found = []
    for subset in itertools.combinations(range(len(gold)), n):
        p, g = proxy[list(subset)], gold[list(subset)]
        found.append(np.mean(g[p == p.max()]))
    return np.mean(found)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
@pytest.mark.parametrize("distinct", [2, 3, 50])
def test_every_subset_is_drawn_alike_and_ties_at_random(size, distinct):
    proxy, gold = RNG.integers(0, distinct, size).astype(float), RNG.normal(size=size)
    got = best_of_n.expected_gold(proxy, gold)
    np.testing.assert_allclose(got, [brute(proxy, gold, n) for n in range(1, size + 1)], rtol=1e-10)


def test_its_ends_are_the_mean_and_the_pick_and_large_lists_do_not_overflow():
    proxy, gold = RNG.normal(size=(2, 2000))
    got = best_of_n.expected_gold(proxy, gold)
    assert got[0] == pytest.approx(gold.mean()) and got[-1] == pytest.approx(gold[proxy.argmax()])
    assert np.all(np.isfinite(got))
    assert np.all(np.diff(best_of_n.expected_gold(gold, gold)) > 0)


def test_figures_are_means_over_the_prompts_that_are_long_enough():
    sizes = [5, 2, 3, 5]
    proxies = [RNG.normal(size=k) for k in sizes]
    golds = [RNG.normal(size=k) for k in sizes]
    resamples = resample(list("abca"), count=4)
    got = best_of_n.figures(proxies, golds, resamples)
    assert {k.split("_")[2] for k in got} == {"2", "4", "5"}
    for n in (2, 4, 5):
        for b, weights in enumerate(resamples.weights):
            drawn = np.repeat(np.arange(4), weights[resamples.document].astype(int))
            kept = [i for i in drawn if sizes[i] >= n]
            mean = lambda of, kept=kept: np.mean([of(i) for i in kept]) if kept else np.nan
            picked = mean(lambda i, n=n: brute(proxies[i], golds[i], n))
            best = mean(lambda i, n=n: brute(golds[i], golds[i], n))
            average = mean(lambda i: golds[i].mean())
            want = [picked, picked - average, best - picked]
            found = [got[f"best_of_{n}_{k}"][b] for k in ("gold", "gain", "regret")]
            assert found == pytest.approx(want, nan_ok=True)


def test_a_perfect_proxy_has_no_regret_and_a_constant_one_no_gain():
    golds = [RNG.normal(size=4) for _ in range(6)]
    resamples = resample(list("abcdef"), count=3)
    perfect = best_of_n.figures(golds, golds, resamples)
    flat = best_of_n.figures([np.zeros(4)] * 6, golds, resamples)
    for n in (2, 4):
        np.testing.assert_allclose(perfect[f"best_of_{n}_regret"], 0, atol=1e-12)
        np.testing.assert_allclose(flat[f"best_of_{n}_gain"], 0, atol=1e-12)
        assert np.all(perfect[f"best_of_{n}_gain"] > 0) and np.all(flat[f"best_of_{n}_regret"] > 0)
