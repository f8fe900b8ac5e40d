"""A sum of terms `coef * loss`, each normalized by its own global weight.

Legend: R rows, P scored texts in a row, L tokens to predict in a row, Q pairs in a row, G groups in a row.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from rmjax import lookup
from rmjax.mean import Mean

# Arrays of single tokens [R, L]. A function that reads one, and not which text each is of, is averaged over tokens.
TOKENS = {
    "log_probs",
    "old_log_probs",
    "reference_log_probs",
    "advantages",
    "standard_rewards",
    "entropy",
    "values",
    "old_values",
    "returns",
    "q",
    "q_target",
}
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

    metrics: functions like losses, logged and not minimized. What averages either: `weight_name`.
    """

    def weights(batch: Batch) -> dict[str, Array]:
        return {t.name: jnp.sum(batch[weight_name(t.function)]) for t in terms}

    def sums(params, frozen, batch, rng):
        offered = forward(params, frozen, batch, rng)

        def mean(function):
            counts = batch[weight_name(function)]
            seen = _seen(select(function, offered), counts != 0)
            return Mean.of(function(**seen), counts)

        means = {t.name: mean(t.function) for t in terms}
        logged = {name: mean(f) for name, f in metrics.items()}
        return {name: m.total for name, m in means.items()}, means | logged

    return Objective({t.name: t.coef for t in terms}, weights, sums)


def weight_name(function: Callable) -> str:
    """The array of the batch that averages a function's values, told by what it reads.

    One that it reads itself (`reward_weight`); else of pairs `pair_weight` [R, Q], of groups `group_weight` [R, G], of
    tokens `token_weight` [R, L], and of anything else `text_weight` [R, P].
    """
    read = lookup.arrays(function)
    own = [name for name in read if name.endswith("_weight")]
    if own:
        return own[0]
    if any(name.startswith("chosen") for name in read):
        return "pair_weight"
    if any(name.startswith("group_") for name in read):
        return "group_weight"
    return "token_weight" if TOKENS & set(read) and "text_of" not in read else "text_weight"


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


def _seen(read: Mapping[str, Array], counts: Array) -> dict[str, Array]:
    """What a function reads, 0 where its values count 0 times: at a NaN there even a slope of 0 would be NaN.

    Tokens of a function of texts count as their text does, and `text_of` stays as it is.
    """
    if "text_of" not in read:
        return {name: _masked(x, counts) for name, x in read.items()}
    text_of = read["text_of"]
    tokens = jnp.take_along_axis(counts, text_of, axis=1, mode="fill", fill_value=False)
    own = {k: _masked(x, tokens if k in TOKENS else counts) for k, x in read.items()}
    return own | {"text_of": text_of}


def _masked(x: Array, counts: Array) -> Array:
    """x, 0 where `counts` is false; the whole of x if its axes do not start with those of `counts`."""
    if x.shape[: counts.ndim] != counts.shape:
        return x
    counts = counts.reshape(counts.shape + (1,) * (x.ndim - counts.ndim))
    return jnp.where(counts, x, jnp.zeros_like(x))  # a mask stays a mask
