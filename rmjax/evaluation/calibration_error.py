"""How far predicted shares are from observed ones on average (ECE), without what noise alone adds, and its interval.

The plain error is a sum of absolute values, which noise makes larger and never smaller: of 122 pairs a perfectly
calibrated model shows .13. So the error is asked for that would give the plain one that is seen.
Legend: M pairs, D documents, K bins, R draws of noise.
"""

import numpy as np

from rmjax.evaluation.statistics import Estimate

BINS = 15  # of equal count: of the diagram and the plain error
MERGED = 3  # of these make one of the bins of the debiased error; fewer bins, less noise
DRAWS = 1000
BELOW, ABOVE = (
    0.03,
    0.02,
)  # chance that the interval is above, or below, the true error; at 0 it is never below
STEPS = 64
FACTOR = 1.0


def figures(
    off: np.ndarray, bins: np.ndarray, first: np.ndarray, second: np.ndarray
) -> dict[str, Estimate]:
    """Three errors in [0, 1], all means over pairs of |prediction - share|, averaged within bins of equal count.

    ece: the debiased one, over BINS / MERGED bins, with its 95% interval over documents (`debiased`).
    ece_plain: what is seen in the diagram, over BINS bins.
    ece_calibrated: what is to be seen there of a perfectly calibrated model, by noise alone.
    off, bins: prediction less observed share of each pair [M], and its bin in 0 .. BINS - 1.
    first, second: the documents of its two texts [M], the same where it is of one document.
    Undefined (NaN) are all three without a pair, ece and ece_calibrated of one document.
    Source: ECE: Naeini et al. 2015; its bias: Kumar et al. 2019 (arXiv:1909.10155), Roelofs et al. 2022
      (arXiv:2012.08668).
    """
    undefined = Estimate(np.nan, np.nan, np.nan)
    if not len(off):
        return dict.fromkeys(("ece", "ece_plain", "ece_calibrated"), undefined)
    gap = np.bincount(bins, off, BINS) / len(off)
    plain = Estimate(float(np.abs(gap).sum()), np.nan, np.nan)
    documents, (first, second) = _numbered(first, second)
    if documents < 2:
        return {"ece": undefined, "ece_plain": plain, "ece_calibrated": undefined}
    own = _by_document(off, bins, first, second, documents)
    pairs = _by_document(np.ones(len(off)), bins, first, second, documents)
    by_chance = np.abs(_noise(own / len(off))).sum(axis=1).mean()  # residuals of mean 0
    merge = lambda x: x.reshape(*x.shape[:-1], -1, MERGED).sum(axis=-1)
    gap, own, pairs = merge(gap), merge(own), merge(pairs)
    share = pairs / np.maximum(pairs.sum(axis=0), 1)
    within = (own - pairs * own.sum(axis=0) / np.maximum(pairs.sum(axis=0), 1)) / (1 - share + 1e-9)
    effective = 1 / np.maximum(np.square(share).sum(axis=0), 1e-12)
    degrees = np.maximum(effective - 1, 1.0)
    chi = np.random.default_rng(1).chisquare(degrees, (DRAWS, len(degrees)))
    noise = _noise(within / len(off)) * np.sqrt(degrees / chi)
    return {
        "ece": debiased(gap, noise),
        "ece_plain": plain,
        "ece_calibrated": Estimate(float(by_chance), np.nan, np.nan),
    }


def debiased(gap: np.ndarray, noise: np.ndarray) -> Estimate:
    """The true error sum |mu| whose plain one, sum |mu + noise|, is the one seen, sum |gap|; and its 95% interval.

    The interval holds every error of which the plain one seen is neither too large (chance BELOW) nor too small
    (ABOVE). How much noise adds depends on how the error is spread over bins: the least where evenly, the most where
    only a few have it. The upper end takes it as even; the lower end as it stands out from the noise, bin by bin,
    |gap| - variance / |gap| where positive; the value is the middle of the two.
    Simulated (tests/golden/simulate_intervals.py) COVERAGE
    gap: mean prediction less mean share of each bin, times its share of the pairs, [K]; noise: draws of its [R, K].
    Source: inverted tests (Neyman 1937) by a parametric bootstrap; the two spreads are ours; the positive part:
      Stein 1956.
    """
    seen, sign = np.abs(gap).sum(), np.where(gap < 0, -1.0, 1.0)
    even = np.full(len(gap), 1 / len(gap))
    size = np.maximum(np.abs(gap), 1e-12)
    over = np.maximum(size - FACTOR * np.var(noise, axis=0) / size, 0.0)
    spread = over / over.sum() if over.any() else even
    # |mu + noise| is at least |mu| - |noise|: beyond the last, none is small enough.
    errors = np.linspace(0.0, seen + np.quantile(np.abs(noise).sum(axis=1), 1 - ABOVE), STEPS)
    ends = []
    for share, chance in ((spread, 1 - BELOW), (even, ABOVE)):
        plain = np.abs(errors[:, None, None] * sign * share + noise).sum(axis=2)
        curves = np.mean(plain, axis=1), np.quantile(plain, chance, axis=1)
        ends.append([_crossing(errors, curve, seen) for curve in curves])
    (sharp, low), (flat, high) = ends
    return Estimate((sharp + flat) / 2, low, min(high, 1.0))


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Where y, made to rise, comes to the level; x[0] where it begins there or above."""
    return float(np.interp(level, np.maximum.accumulate(y), x)) if y[0] < level else float(x[0])


def _numbered(first: np.ndarray, second: np.ndarray) -> tuple[int, np.ndarray]:
    """How many documents occur, and these as 0, 1, .. [2, M]."""
    names, number = np.unique(np.stack([first, second]), return_inverse=True)
    return len(names), number.reshape(2, -1)


def _by_document(
    values: np.ndarray, bins: np.ndarray, first: np.ndarray, second: np.ndarray, documents: int
) -> np.ndarray:
    """Sums over each document's pairs by bin, [D, BINS]; a pair of two documents counts in both."""
    two = first != second
    count = lambda at, v: np.bincount(at, v, documents * BINS)
    found = count(first * BINS + bins, values)
    found += count((second * BINS + bins)[two], values[two])
    return found.reshape(documents, BINS)


def _noise(own: np.ndarray) -> np.ndarray:
    """Normal draws [R, K] of what drawing other documents would add, from what each adds to every bin, [D, K].

    A pair's two documents add to it independently, so that its variance is the sum of own own' over documents.
    """
    values, vectors = np.linalg.eigh(own.T @ own)
    draws = np.random.default_rng(0).normal(size=(DRAWS, len(values)))
    return draws * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
