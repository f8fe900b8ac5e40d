"""From a packed batch to the arrays that losses name.

Legend: R rows, P scored places in a row, Q pairs in a row, G groups in a row, K texts in a group.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from rmjax.train.objective import Batch
from rmjax.train.state import collections

INPUTS = ("tokens", "positions", "segments", "score_at")


def scores(apply: Callable) -> Callable[[PyTree, PyTree, Batch, Array | None], dict[str, Array]]:
    """Returns forward(params, frozen, batch, rng) -> the model's arrays, the batch's, and pairs gathered.

    apply: linen's, of a model that maps INPUTS (and `row` for dropout, `branches`, `tiles`) to {"score" [R, P], ...}.
    rng: typed key of the dropout stream, or None for no dropout.
    """

    def forward(params, frozen, batch, rng):
        variables = collections({**params, **frozen})
        inputs = [batch[name] for name in INPUTS]
        more = {name: batch[name] for name in ("branches", "tiles") if name in batch}
        if rng is None:
            offered = apply(variables, *inputs, **more)
        else:
            row, rngs = batch["row"], {"dropout": rng}
            offered = apply(variables, *inputs, row=row, **more, rngs=rngs)
        offered = {**batch, **offered}
        if "chosen" in batch:  # indices into the row's texts
            for side in ("chosen", "rejected"):
                offered[side] = jnp.take_along_axis(offered["score"], batch[side], axis=1)
        if "group_items" in batch:
            items = batch["group_items"]
            found = jnp.take_along_axis(offered["score"], items.reshape(len(items), -1), axis=1)
            offered["group_scores"] = found.reshape(items.shape)
        return offered

    return forward


def accuracy(chosen: Array, rejected: Array) -> Array:
    """1 where the preferred text scores higher, 1/2 at a tie, 0 otherwise; [*B]."""
    return jnp.where(chosen == rejected, 0.5, (chosen > rejected).astype(jnp.float32))


def gap(chosen: Array, rejected: Array) -> Array:
    """By how much the preferred text scores higher; [*B]."""
    return chosen - rejected


def dropout_key(data: Array, step: Array) -> Array:
    """The key of one step, from the run's key data; the same however often the run was resumed."""
    return jax.random.fold_in(jax.random.wrap_key_data(data), step)
