"""Low-rank adapters as parameters by path: merged into the kernels beside them.

Legend: L layers, D inputs, F outputs, N rank.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

from rmjax.models.layers import Adapter

ROOT = "lora/"
BESIDE = (
    "^transformer/"  # what stays as it is where adapters are trained: all but them and the head
)


def merge(params: Mapping[str, Array], adapter: Adapter) -> dict[str, Array]:
    """Parameters without adapters that compute the same: kernel + scale * a b, for "lora/PATH/a" and "lora/PATH/b".

    Kernels stacked over layers have adapters stacked alike.
    """
    merged = {path: x for path, x in params.items() if not path.startswith(ROOT)}
    for path in params:
        if not (path.startswith(ROOT) and path.endswith("/a")):
            continue
        own = path.removeprefix(ROOT).removesuffix("/a")
        a, b = params[path], params[f"{ROOT}{own}/b"]
        product = jnp.matmul(a, b, precision="highest")  # [..., D, N] and [..., N, F]
        merged[f"{own}/kernel"] = merged[f"{own}/kernel"] + adapter.scale * product
    return merged
