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
BELOW, ABOVE = 0.02, 0.035  # chance that the interval ends below, or begins above, the true error
POWERLESS = 0.16  # a plain error in so low a share of a calibrated model's rules out no more than one at this share
STEPS = 64


def figures(
    off: np.ndarray, bins: np.ndarray, first: np.ndarray, second: np.ndarray
) -> dict[str, Estimate]:
    """Three errors in [0, 1], all means over pairs of |prediction - share|, averaged within bins of equal count.

    ece: the debiased one, over BINS / MERGED bins, with its 95% interval over documents (`debiased`).
    ece_plain: what is seen in the diagram, over BINS bins.
    ece_calibrated: what is to be seen there of a perfectly calibrated model, by noise alone.
    off, bins: prediction less observed share of each pair [M], and its bin in 0 .. BINS - 1.
    first, second: the documents of its two texts [M], the same where it is of one document.
    Noise is what other documents would bring: of every document the sum of its residuals by bin, less their mean in the
    merged bin, divided by the others' share of it (the jackknife).
    Undefined (NaN) are all three without a pair, ece and ece_calibrated of one document.
    Source: ECE: Naeini et al. 2015; its bias: Kumar et al. 2019 (arXiv:1909.10155), Roelofs et al. 2022
      (arXiv:2012.08668); noise: Bell & McCaffrey 2002 (CR3).
    """
    undefined = Estimate(np.nan, np.nan, np.nan)
    if not len(off):
        return dict.fromkeys(("ece", "ece_plain", "ece_calibrated"), undefined)
    gap = np.bincount(bins, off, BINS) / len(off)
    plain = Estimate(float(np.abs(gap).sum()), np.nan, np.nan)
    documents, first, second = _numbered(first, second)
    if documents < 2:
        return {"ece": undefined, "ece_plain": plain, "ece_calibrated": undefined}
    coarse = bins // MERGED
    within = off - (np.bincount(coarse, off) / np.maximum(np.bincount(coarse), 1))[coarse]
    own = _by_document(within, bins, first, second, documents) / len(off)
    share = _merged(_by_document(np.ones(len(off)), bins, first, second, documents))
    share /= np.maximum(share.sum(axis=0), 1)
    own /= np.maximum(1 - np.repeat(share, MERGED, axis=1), 1e-9)
    return {
        "ece": debiased(_merged(gap), _student(_noise(_merged(own)), share)),
        "ece_plain": plain,
        "ece_calibrated": Estimate(float(np.abs(_noise(own)).sum(axis=1).mean()), np.nan, np.nan),
    }


def debiased(gap: np.ndarray, noise: np.ndarray) -> Estimate:
    """The true error sum |mu| whose plain one, sum |mu + noise|, is the one seen, sum |gap|; and its 95% interval.

    The interval holds every error for which the plain one seen is neither too small (chance BELOW) nor too large
    (ABOVE). Noise adds the least to an error that is spread evenly over the bins, and the most to one that few bins
    have. The value and the upper end take it as even; the lower end as bins stand out from noise by more than two
    standard deviations, |gap| - 4 variance / |gap| where positive. By luck the plain error may be smaller than nearly
    all that a calibrated model shows: the upper end is then that of the POWERLESS quantile, else it could be 0.
    Simulated (tests/golden/simulate_intervals.py, 200 samples each) at errors of 0, .05 and .1 that are a shift, a
    wrong temperature or change sign, it covers 93 to 100% of 120 independent pairs (mean 98) and 93 to 98% of 1,000
    (96); at four pairs a document, 87 to 99% of 120 and 91 to 98% of 1,000. An error of the most certain fifth
    alone: 95 to 97% of 120, 89 to 95% of 1,000. The value's mean is .02 to .03 at 0 of 120 pairs (.01 of 1,000),
    else within .02 (.005) of the error, and up to .05 (.02) above one that only a fifth has.
    gap: mean prediction less mean share of each bin, times its share of the pairs, [K]; noise: draws of its [R, K].
    Source: inverted tests (Neyman 1937) by a parametric bootstrap; the positive part: Stein 1956; the power constraint:
      Cowan et al. 2011 (arXiv:1105.3166); the rest is ours.
    """
    seen, sign = np.abs(gap).sum(), np.where(gap < 0, -1.0, 1.0)
    even, size = np.full(len(gap), 1 / len(gap)), np.maximum(np.abs(gap), 1e-12)
    over = np.maximum(size - 4 * np.var(noise, axis=0) / size, 0.0)
    uneven = over / over.sum() if over.any() else even
    # |mu + noise| is at least |mu| - |noise|: beyond the last error, none gives too small a plain one.
    errors = np.linspace(0.0, seen + np.quantile(np.abs(noise).sum(axis=1), 1 - BELOW), STEPS)
    plain = lambda spread: np.abs(errors[:, None, None] * sign * spread + noise).sum(axis=2)
    evenly = plain(even)
    value = _crossing(errors, evenly.mean(axis=1), seen)
    least = max(seen, float(np.quantile(evenly[0], POWERLESS)))
    high = _crossing(errors, np.quantile(evenly, BELOW, axis=1), least)
    low = _crossing(errors, np.quantile(plain(uneven), 1 - ABOVE, axis=1), seen)
    return Estimate(value, min(low, value), min(max(high, value), 1.0))


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Where y, made to rise, comes to the level; x[0] where it begins there or above."""
    return float(np.interp(level, np.maximum.accumulate(y), x)) if y[0] < level else float(x[0])


def _numbered(first: np.ndarray, second: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """How many documents occur, and these as 0, 1, .. [M] and [M]."""
    there = np.zeros(max(first.max(), second.max()) + 1, bool)
    there[first] = there[second] = True
    number = np.cumsum(there) - 1
    return int(there.sum()), number[first], number[second]


def _by_document(
    values: np.ndarray, bins: np.ndarray, first: np.ndarray, second: np.ndarray, documents: int
) -> np.ndarray:
    """Sums over each document's pairs by bin, [D, BINS]; a pair of two documents counts in both."""
    two = first != second
    count = lambda at, v: np.bincount(at, v, documents * BINS)
    found = count(first * BINS + bins, values)
    found += count((second * BINS + bins)[two], values[two])
    return found.reshape(documents, BINS)


def _merged(x: np.ndarray) -> np.ndarray:
    """Sums over MERGED neighbors of the last axis."""
    return x.reshape(*x.shape[:-1], -1, MERGED).sum(axis=-1)


def _student(noise: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Normal draws [R, K] with the tails of Student's t of as many documents as each bin is worth (Kish's), less one.

    share: each document's share of each bin, [D, K].
    """
    degrees = np.maximum(1 / np.maximum(np.square(share).sum(axis=0), 1e-9) - 1, 1.0)
    return noise * np.sqrt(degrees / np.random.default_rng(1).chisquare(degrees, noise.shape))


def _noise(own: np.ndarray) -> np.ndarray:
    """Normal draws [R, K] of what drawing other documents would add, from what each adds to every bin, [D, K].

    A pair's two documents add to it independently, so that its variance is the sum of own own' over documents.
    """
    values, vectors = np.linalg.eigh(own.T @ own)
    draws = np.random.default_rng(0).normal(size=(DRAWS, len(values)))
    return draws * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
