"""Rewards that someone trained or rated.

Legend: N completions, S members of an ensemble, C classes. Every reward is float32 [N]. What was trained is a resource
that the caller builds: a function of prompts and completions, each [N], with whatever tokenizer is its own.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Trained = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def learned(
    prompts: Sequence[str],
    completions: Sequence[str],
    score: Trained,
    *,
    reduce: str = "mean",
    k: float = 1.0,
) -> np.ndarray:
    """The score of a reward model, or of an ensemble made one.

    score: scores [N] or, of an ensemble, [S, N], of which `reduce` makes one.
    reduce: "mean"; "worst", the lowest; "lower_bound", the mean less k standard deviations (ddof 0).
    k: how much members' disagreement costs, >= 0.
    Raises: ValueError on other options, or scores of another shape.
    Source: Coste et al. 2023 (arXiv:2310.02743), the deviation in place of the variance.
    """
    if k < 0:
        raise ValueError(f"k must not be negative, got {k}")
    if reduce not in ("mean", "worst", "lower_bound"):
        raise ValueError(f"reduce must be one of mean, worst, lower_bound, got {reduce!r}")
    scores = np.asarray(score(prompts, completions), np.float64)
    members = scores[None] if scores.ndim == 1 else scores
    _shaped("score", members, (len(members), len(completions)))
    value = np.min(members, axis=0) if reduce == "worst" else np.mean(members, axis=0)
    if reduce == "lower_bound":
        value = value - k * np.std(members, axis=0)
    return value.astype(np.float32)


def class_probability(
    prompts: Sequence[str], completions: Sequence[str], probabilities: Trained, *, label: int
) -> np.ndarray:
    """The probability of a label, in [0, 1], by a trained classifier.

    probabilities: of the classes [N, C].
    label: the class wanted, 0 .. C - 1.
    Raises: ValueError if there is no such class, or the probabilities have another shape.
    """
    found = np.asarray(probabilities(prompts, completions), np.float32)
    classes = found.shape[-1] if found.ndim == 2 else 0
    if found.ndim == 2 and not 0 <= label < classes:
        raise ValueError(f"label must be in 0 .. {classes - 1}, got {label}")
    _shaped("probabilities", found, (len(completions), classes))
    return found[:, label]


def implicit(
    prompts: Sequence[str], completions: Sequence[str], log_ratio: Trained, *, beta: float = 0.1
) -> np.ndarray:
    """The reward that a tuned policy implies: beta (log pi - log pi_ref) of each completion; compare within prompts.

    log_ratio: log pi(completion | prompt) - log pi_ref(completion | prompt), nats, [N].
    beta: the coefficient that the policy was tuned with, > 0.
    Raises: ValueError if it is not, or on another shape.
    Source: Rafailov et al. 2023 (arXiv:2305.18290) eq. 5, without its partition function.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    found = np.asarray(log_ratio(prompts, completions), np.float64)
    _shaped("log_ratio", found, (len(completions),))
    return (beta * found).astype(np.float32)


def looked_up(
    completions: Sequence[str], table: Mapping[str, int | float], *, missing: float = float("nan")
) -> np.ndarray:
    """The rating that people gave to the very text.

    table: ratings by text.
    missing: the reward of texts that the table does not have; NaN refuses them.
    Raises: ValueError if there are such texts and `missing` is NaN.
    """
    without = sum(c not in table for c in completions)
    if without and np.isnan(missing):
        raise ValueError(
            f"{without} of {len(completions)} completions have no rating; missing=0.0 would be theirs"
        )
    return np.array([table.get(c, missing) for c in completions], np.float32)


def _shaped(name: str, found: np.ndarray, shape: tuple[int, ...]) -> None:
    if found.shape != shape:
        raise ValueError(f"{name} gave shape {found.shape}, not {shape}")
