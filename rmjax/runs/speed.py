"""What this machine can do and what a run made of it: matmul rates, model FLOPs, memory."""

import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.models.layers import project
from rmjax.models.transformer import Config


def matmul_rate(
    dtype: str, *, rows: int = 2048, inner: int = 384, columns: int = 1536, repeats: int = 20
) -> float:
    """FLOP/s of `project` at one size: the median of `repeats` products after a warm-up."""
    x, kernel = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
    product = jax.jit(lambda a, b: project(a, b, dtype))
    product(x, kernel).block_until_ready()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, kernel).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / float(np.median(times))


def faster_dtype() -> str:
    """The number type to multiply in: bfloat16 where this machine gains from it, else float32.

    The best of several turns of each, one after the other, so that other work on the machine decides little.
    """
    turns = [(matmul_rate("bfloat16"), matmul_rate("float32")) for _ in range(4)]
    half, single = np.max(turns, axis=0)
    return "bfloat16" if half > 1.2 * single else "float32"


def model_flops(config: Config, lengths: np.ndarray) -> float:
    """FLOPs of one training pass over texts of these token counts: 6 x non-embedding parameters x tokens,
    plus attention's two products, 12 x layers x width x sum of squared lengths (backward counted twice).
    """
    c, lengths = config, lengths.astype(np.float64)
    heads = 2 * c.heads + 2 * c.kv_heads  # queries and outputs, keys and values
    block = heads * c.head_width * c.width + (3 if c.gated else 2) * c.width * c.mlp_width
    squares = np.sum(lengths**2) / (2 if c.kind == "decoder" else 1)
    attention = 12 * c.layers * c.heads * c.head_width * squares
    return float(6 * c.layers * block * lengths.sum() + attention)


def peak_memory() -> int:
    """The largest resident size of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
