"""What is lost by taking the completion that a proxy scores highest: gold of the pick against the best and the mean.

Legend: G prompts, K completions of one (its own number each), B resamples; results are [B + 1], row 0 the sample.
"""

import functools
from collections.abc import Sequence

import numpy as np
from scipy import special

from rmjax.evaluation.statistics import Resamples


def expected_gold(proxy: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Expected gold of the completion of highest proxy among n drawn from K without replacement, n = 1 .. K: [K].

    sum_i C(i - 1, n - 1) / C(K, n) gold_(i), sorted by the proxy ascending; tied proxies share their mean gold, which
    is what breaking ties at random would give. It is unbiased for n fresh draws.
    Source: Nakano et al. 2021 (arXiv:2112.09332); Gao et al. 2022 (arXiv:2210.10760).
    """
    gold = np.asarray(gold, np.float64)
    _, place, count = np.unique(proxy, return_inverse=True, return_counts=True)
    shared = (np.bincount(place, gold) / count)[place]
    return _chances(len(gold)) @ shared[np.argsort(proxy, kind="stable")]


def figures(
    proxies: Sequence[np.ndarray], golds: Sequence[np.ndarray], resamples: Resamples
) -> dict[str, np.ndarray]:
    """For n = 2, 4, 8 .. and the largest K: gold of the pick, its gain over a random one, its regret against the best.

    Means over the prompts with at least n completions, in units of gold; proxies and golds are [G] of [K].
    """
    sizes = np.array([len(g) for g in golds])
    curves = [expected_gold(p, g) for p, g in zip(proxies, golds, strict=True)]
    best = [expected_gold(g, g) for g in golds]
    found = {}
    for n in _steps(int(sizes.max())):
        enough = sizes >= n
        at = lambda made, n=n: np.array([v[min(n, len(v)) - 1] for v in made])
        picked, mean = at(curves), np.array([v[0] for v in curves])
        values = {"gold": picked, "gain": picked - mean, "regret": at(best) - picked}
        found |= {f"best_of_{n}_{k}": resamples.mean(v, enough) for k, v in values.items()}
    return found


def _steps(largest: int) -> list[int]:
    return sorted({largest, *(2**k for k in range(1, largest.bit_length()))} - {1})


@functools.cache
def _chances(size: int) -> np.ndarray:
    """Chance that the i-th lowest of `size` is the highest of n drawn, [n, i]."""
    n, i = np.arange(1, size + 1)[:, None], np.arange(1, size + 1)[None, :]
    log = lambda a, b: special.gammaln(a + 1) - special.gammaln(b + 1) - special.gammaln(a - b + 1)
    inside = i >= n
    return np.where(inside, np.exp(log(np.where(inside, i, n) - 1, n - 1) - log(size, n)), 0.0)
