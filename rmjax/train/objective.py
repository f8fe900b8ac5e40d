"""A sum of terms `coef * loss`, each normalized by its own global weight.

Legend: R rows, P scored texts in a row, Q pairs in a row, G groups in a row.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from rmjax import lookup
from rmjax.mean import Mean

Batch = Mapping[str, Any]
Forward = Callable[[PyTree, PyTree, Batch, Array], dict[str, Array]]


class Objective(NamedTuple):
    """What `make_step` minimizes: sum over terms of coef * total / global weight."""

    coefs: Mapping[str, float]
    weights: Callable[[Batch], dict[str, Array]]  # reads the batch alone
    sums: Callable[[PyTree, PyTree, Batch, Array], tuple[dict[str, Array], dict[str, Mean]]]


def create(
    terms: Sequence[lookup.Term], forward: Forward, metrics: Mapping[str, Callable]
) -> Objective:
    """The objective of `terms` on the arrays that `forward` and the batch offer.

    A function that reads `chosen` is weighted by `pair_weight` [R, Q], one that reads `group_scores` by
    `group_weight` [R, G], any other by `text_weight` [R, P].
    metrics: functions like losses, logged and not minimized.
    """

    def weight(function: Callable, batch: Batch) -> Array:
        read = lookup.arrays(function)
        of = "pair" if "chosen" in read else "group" if "group_scores" in read else "text"
        return batch[f"{of}_weight"]

    def weights(batch: Batch) -> dict[str, Array]:
        return {t.name: jnp.sum(weight(t.function, batch)) for t in terms}

    def sums(params, frozen, batch, rng):
        offered = forward(params, frozen, batch, rng)

        def mean(function):
            counts = weight(function, batch)
            # Masked before the loss as well as after: at a NaN even a slope that counts 0 times is NaN.
            seen = {k: _masked(x, counts != 0) for k, x in select(function, offered).items()}
            return Mean.of(function(**seen), counts)

        means = {t.name: mean(t.function) for t in terms}
        logged = {name: mean(f) for name, f in metrics.items()}
        return {name: m.total for name, m in means.items()}, means | logged

    return Objective({t.name: t.coef for t in terms}, weights, sums)


def select(function: Callable, offered: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays that a function takes, by name; optional ones where they are offered.

    Raises: KeyError naming what is missing and what there is.
    """
    wanted = lookup.arrays(function)
    missing = [name for name, required in wanted.items() if required and name not in offered]
    if missing:
        raise KeyError(
            f"needs {missing}, which this model and data do not offer; there are {sorted(offered)}"
        )
    return {name: offered[name] for name in wanted if name in offered}


def _masked(x: Array, counts: Array) -> Array:
    """x, 0 where `counts` is false; the whole of x if its axes do not start with those of `counts`."""
    if x.shape[: counts.ndim] != counts.shape:
        return x
    counts = counts.reshape(counts.shape + (1,) * (x.ndim - counts.ndim))
    return jnp.where(counts, x, jnp.zeros_like(x))  # a mask stays a mask
