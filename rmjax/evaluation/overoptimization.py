"""Does a policy gain what was meant, or only what was measured: proxy and gold reward over training and over KL.

Legend: K logged points, in order; N prompts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmjax.evaluation import ranking, statistics
from rmjax.evaluation.statistics import Estimate

LEAST = 8  # points of a trend; of pure noise, 1 in 200 windows of 8 looks parted
TREND = 0.6  # Spearman's rho with time from which a reward rises or falls


class Point(NamedTuple):
    """A policy's distance from the reference policy in nats, and its reward."""

    kl: float
    reward: float


def best_of_n_kl(n: int) -> float:
    """KL in nats of best-of-n sampling from its base policy: log n - (n - 1) / n.

    Exact for continuous scores without ties, an upper bound otherwise.
    Raises: ValueError if n < 1.
    Source: Stiennon et al. 2020 (arXiv:2009.01325) app. G.3; Beirami et al. 2024 (arXiv:2401.01879).
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return float(np.log(n) - (n - 1) / n)


def parted(proxy: np.ndarray, gold: np.ndarray) -> str | None:
    """A warning where the proxy rises while gold falls, else None.

    The rule: of the points where both are finite, take the last half, but LEAST at the least (None with fewer). There
    the proxy's Spearman correlation with time is TREND or more, and gold's -TREND or less. Ranks make it blind to
    single outliers and to scale; the window is the last half, so that a fall late in a run is still seen, and one that
    was recovered from is forgotten.
    proxy, gold: mean rewards of the same evaluations [K].
    Raises: ValueError if they differ in shape.
    Source: the pattern of Gao et al. 2022 (arXiv:2210.10760); the rule is ours.
    """
    proxy, gold = (np.asarray(v, np.float64) for v in (proxy, gold))
    if proxy.shape != gold.shape:
        raise ValueError(f"proxy and gold differ in shape: {proxy.shape} and {gold.shape}")
    known = np.isfinite(proxy) & np.isfinite(gold)
    window = max(LEAST, -(-int(known.sum()) // 2))
    if known.sum() < window:
        return None
    proxy, gold = (v[known][-window:] for v in (proxy, gold))
    if not (_trend(proxy) >= TREND and _trend(gold) <= -TREND):
        return None
    ends = lambda v: f"{np.mean(v[: window // 3]):.3g} to {np.mean(v[-(window // 3) :]):.3g}"
    return (
        f"proxy and gold part: over the last {window} evaluations the proxy reward rose from {ends(proxy)} while the "
        f"gold reward fell from {ends(gold)}; the policy may be exploiting the proxy: stop earlier or raise the KL cost"
    )


def curve(kl: Sequence[float], reward: Sequence[float]) -> list[Point]:
    """Points of reward against KL, ascending in the KL (those of equal KL in their order); NaN left out.

    kl: of each policy from the reference, nats [K], which an estimate may put below 0. reward: its mean reward [K].
    Source: Gao et al. 2022 (arXiv:2210.10760) figure 1.
    """
    points = [Point(float(k), float(r)) for k, r in zip(kl, reward, strict=True)]
    return sorted((p for p in points if np.all(np.isfinite(p))), key=lambda p: p.kl)


def paired_difference(after: np.ndarray, before: np.ndarray, prompts: Sequence[str]) -> Estimate:
    """Mean of after - before, with the 95% bootstrap interval over prompts.

    after, before: rewards of two policies' completions of the same prompts [N]; prompts: the prompt of each (or the
      document that it is from), which may repeat: those of one are drawn together.
    Raises: ValueError if sizes differ.
    """
    if not np.shape(after) == np.shape(before) == (len(prompts),):
        raise ValueError(
            f"sizes differ: {np.shape(after)}, {np.shape(before)} and {len(prompts)} prompts"
        )
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    return statistics.interval(statistics.resample(prompts).mean(difference))


def _trend(values: np.ndarray) -> float:
    """Spearman's rho of the values with their place; NaN of a constant."""
    alone = statistics.resample([str(i) for i in range(len(values))], count=0)
    return float(ranking.spearman(np.arange(len(values)), values, alone)[0])
