"""The check that keeps a column against a row from becoming a matrix."""

import jax.numpy as jnp
from jaxtyping import Array


def same(**arrays: Array | None) -> None:
    """Nothing, where all that are given have one shape.

    Raises: ValueError with the shapes where they differ.
    """
    shapes = {name: jnp.shape(x) for name, x in arrays.items() if x is not None}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{' and '.join(f'{n} {s}' for n, s in shapes.items())} differ in shape")
