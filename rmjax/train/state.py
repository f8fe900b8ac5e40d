"""What a step carries: parameters by path, optimizer state, a key, and the first bad step."""

import re
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

Params = dict[str, Array]  # "transformer/blocks/up/kernel" -> array; adapters are under "lora/"


class State(flax.struct.PyTreeNode):
    """Donated to every step; with seeds=n every leaf has a leading axis of n."""

    step: PyTree  # int32 []: updates asked for so far
    params: PyTree  # Params, the trained ones only
    opt_state: PyTree
    rng: PyTree  # key data uint32 [2] of the dropout stream; folded with the step, never advanced
    bad_step: PyTree  # int32 []: first step with a non-finite loss or gradient, -1 if none


def create(params: Params, opt_state: PyTree, rng: Array) -> State:
    """The state before the first step; `rng` is a typed key."""
    zero = jnp.zeros((), jnp.int32)
    return State(zero, params, opt_state, jax.random.key_data(rng), zero - 1)


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts to {"a/b": leaf}."""
    return flatten_dict(tree, sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return unflatten_dict(flat, sep="/")


def gather(variables: Mapping[str, Any]) -> Params:
    """A module's collections as parameters by path: those of "params" as they are, adapters under "lora/"."""
    return flatten(dict(variables["params"]) | {k: v for k, v in variables.items() if k == "lora"})


def collections(params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `gather`: what a module's `apply` takes."""
    tree = unflatten(params)
    lora = {"lora": tree.pop("lora")} if "lora" in tree else {}
    return {"params": tree, **lora}


def split(params: Params, frozen: str) -> tuple[Params, Params]:
    """(trained, frozen): parameters whose path the regular expression `frozen` finds get no gradient.

    An empty expression freezes nothing.
    Raises: ValueError if it is given and matches none or all.
    """
    held = {k: v for k, v in params.items() if frozen and re.search(frozen, k)}
    if frozen and not held:
        raise ValueError(f"{frozen!r} matches no parameter; there are {sorted(params)}")
    if len(held) == len(params):
        raise ValueError(f"{frozen!r} freezes every parameter")
    return {k: v for k, v in params.items() if k not in held}, held
