"""From a packed batch to the arrays that losses name.

Legend: R rows, P scored texts in a row, Q pairs in a row.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from rmjax.train.objective import Batch
from rmjax.train.state import unflatten

INPUTS = ("tokens", "positions", "segments", "score_at")


def scores(apply: Callable) -> Callable[[PyTree, PyTree, Batch, Array | None], dict[str, Array]]:
    """Returns forward(params, frozen, batch, rng) -> the model's arrays, the batch's, and pairs gathered.

    apply: linen's, of a model that maps INPUTS (and `row` for dropout) to {"score" [R, P], ...}.
    rng: typed key of the dropout stream, or None for no dropout.
    """

    def forward(params, frozen, batch, rng):
        variables = {"params": unflatten({**params, **frozen})}
        inputs = [batch[name] for name in INPUTS]
        if rng is None:
            offered = apply(variables, *inputs)
        else:
            offered = apply(variables, *inputs, batch["row"], rngs={"dropout": rng})
        offered = {**batch, **offered}
        if "chosen" in batch:  # indices into the row's texts
            for side in ("chosen", "rejected"):
                offered[side] = jnp.take_along_axis(offered["score"], batch[side], axis=1)
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
