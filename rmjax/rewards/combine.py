"""What is done to rewards after they are summed, before they become advantages: the `reward_shaping` line of a config.

Legend: N completions. Rewards in and out are [N]; out float32.
"""

from typing import NamedTuple

import numpy as np


class Running(NamedTuple):
    """Count, mean and variance (ddof 0) of the rewards seen; plain numbers, kept as JSON with a checkpoint."""

    count: float = 0.0
    mean: float = 0.0
    variance: float = 0.0


def clip(rewards: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Rewards no lower than `low` and no higher than `high`.

    Raises: ValueError if low >= high.
    """
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    return np.clip(np.asarray(rewards, np.float32), low, high)


def length_penalty(rewards: np.ndarray, lengths: np.ndarray, *, coef: float) -> np.ndarray:
    """Rewards less coef times the length.

    lengths: of each completion [N], in tokens or words.
    coef: reward units for one of these; below 0 it rewards length.
    """
    _same(rewards=rewards, lengths=lengths)
    return (np.asarray(rewards, np.float64) - coef * np.asarray(lengths)).astype(np.float32)


def stop_or_penalty(
    rewards: np.ndarray, stopped: np.ndarray, *, penalty: float = -1.0
) -> np.ndarray:
    """The reward where the completion ended with a stop token, the penalty in its place where it was cut off.

    stopped: bool [N].
    Source: Ziegler et al. 2019 (arXiv:1909.08593), a fixed score for samples that miss a rule; -1 as in Huang et al.
      2024 (arXiv:2403.17031).
    """
    _same(rewards=rewards, stopped=stopped)
    return np.where(stopped, rewards, penalty).astype(np.float32)


def update(state: Running, rewards: np.ndarray) -> Running:
    """The state with a batch of rewards counted in, however the rewards were batched; an empty one changes nothing.

    Raises: ValueError if a reward is not finite: it would spoil the state for good.
    Source: Chan, Golub & LeVeque 1979.
    """
    values = np.asarray(rewards, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{np.sum(~np.isfinite(values))} of {values.size} rewards are not finite")
    if not values.size:
        return state
    count = state.count + values.size
    gap = float(np.mean(values)) - state.mean
    spread = state.variance * state.count + float(np.var(values)) * values.size
    between = gap**2 * state.count * values.size / count
    return Running(float(count), state.mean + gap * values.size / count, (spread + between) / count)


def normalize(rewards: np.ndarray, state: Running) -> np.ndarray:
    """Rewards less the state's mean, over its standard deviation (over 1, where that is 0).

    The state is that of before the batch, so that no reward depends on its neighbors. Of the first batch nothing was
    seen before: it passes as it is.
    """
    scale = state.variance**0.5 or 1.0
    return ((np.asarray(rewards, np.float64) - state.mean) / scale).astype(np.float32)


def _same(**arrays: np.ndarray) -> None:
    shapes = {name: np.shape(x) for name, x in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"arrays differ in shape: {shapes}")
