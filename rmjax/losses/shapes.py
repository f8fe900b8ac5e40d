"""The check that keeps a column against a row from becoming a matrix, and the way between tokens and their texts.

Legend: *B any axes (rows), L tokens of a row, P texts of a row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def same(**arrays: Array | None) -> None:
    """Nothing, where all that are given have one shape.

    Raises: ValueError with the shapes where they differ.
    """
    shapes = {name: jnp.shape(x) for name, x in arrays.items() if x is not None}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{' and '.join(f'{n} {s}' for n, s in shapes.items())} differ in shape")


def sum_per_text(
    values: Float[Array, "*B L"], text_of: Int[Array, "*B L"], texts: int
) -> Float[Array, "*B {texts}"]:
    """The float32 sum of each text's tokens; 0 for a text without any.

    text_of: the text that a token belongs to; `texts` (or more) for padding, which counts nowhere, whatever it holds.
    """
    own = jax.nn.one_hot(text_of, texts, dtype=bool)
    return jnp.sum(jnp.where(own, jnp.asarray(values, jnp.float32)[..., None], 0.0), axis=-2)


def repeat_per_token(
    values: Float[Array, "*B P"], text_of: Int[Array, "*B L"]
) -> Float[Array, "*B L"]:
    """The value of each token's text; 0 on padding."""
    return jnp.take_along_axis(values, text_of, axis=-1, mode="fill", fill_value=0)
