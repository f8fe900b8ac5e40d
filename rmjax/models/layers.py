"""The parts of a block: projections in the run's number type, normalization, dropout by row.

Legend: R rows, T tokens, D width, F outputs, N adapter rank.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Accelerators would otherwise multiply float32 in fewer bits.
PRECISION = {"float32": "highest", "bfloat16": None}


def project(
    x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dtype: str
) -> Float[Array, "*B F"]:
    """x @ kernel over the last axis: products in `dtype`, sums in float32.

    Plain autodiff would feed a float32 cotangent to the backward products, which loses the fast
    bfloat16 units; this derivative rounds the cotangent to `dtype` first.
    """
    return cast(Array, _project(x, kernel, dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _project(x: Array, kernel: Array, dtype: str) -> Array:
    return _dot(x, kernel, ((x.ndim - 1,), (0,)), dtype)


def _dot(a: Array, b: Array, contract: tuple, dtype: str) -> Array:
    a, b = a.astype(dtype), b.astype(dtype)
    return jax.lax.dot_general(
        a, b, (contract, ((), ())), precision=PRECISION[dtype], preferred_element_type=jnp.float32
    )


def _project_forward(x, kernel, dtype):
    return _project(x, kernel, dtype), (x.astype(dtype), kernel)


def _project_backward(dtype, saved, cotangent):
    x, kernel = saved
    lead = tuple(range(x.ndim - 1))  # all leading axes at once: flattening first is slower on CPU
    dx = _dot(cotangent, kernel, ((cotangent.ndim - 1,), (1,)), dtype)
    if dtype == "float32" and kernel.shape[0] > kernel.shape[1]:
        # XLA on CPU copies the first operand: the narrower here. (Its bfloat16 product has no such form.)
        return dx, _dot(cotangent, x, (lead, lead), dtype).T
    return dx, _dot(x, cotangent, (lead, lead), dtype)


_project.defvjp(_project_forward, _project_backward)


def project_few(
    x: Float[Array, "*B D"], transposed: Float[Array, "F D"], dtype: str
) -> Float[Array, "*B F"]:
    """`project` for few x, without a fast derivative: the kernel, stored transposed, is the product's first operand.

    XLA on CPU repacks the second operand at every product: here x, else the kernel, at up to three times the cost.
    """
    return jnp.moveaxis(_dot(transposed, x, ((1,), (x.ndim - 1,)), dtype), 0, -1)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """LoRA (Hu et al. 2022): a product of two thin kernels beside each projection whose path `targets` finds.

    scale: on that product: alpha / rank, or alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023).
    """

    rank: int
    scale: float
    dropout: float
    targets: str


class Parameters(NamedTuple):
    """Of one projection; `adapter` is its pair of thin kernels [D, rank], [rank, F].

    transposed: whether the kernel is [F, D].
    """

    kernel: Float[Array, "..."]
    transposed: bool
    bias: Float[Array, " F"] | None
    adapter: tuple[Float[Array, "D N"], Float[Array, "N F"]] | None


class Dense(nn.Module):
    """x @ kernel + bias, [..., D] -> float32 [..., features], and the adapter's product where one is meant for it.

    The kernel may be given as "transposed" [features, D]: see `project_few`.
    """

    features: int
    dtype: str
    bias: bool = True
    adapter: Adapter | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def parameters(self, width: int) -> Parameters:
        """The parameters alone, so that projections of one input can share a product that `finish` ends."""
        transposed = self.has_variable("params", "transposed")
        if transposed:
            kernel = self.get_variable("params", "transposed")
        else:
            kernel = self.param("kernel", self.kernel_init, (width, self.features))
        zeros, pair = nn.initializers.zeros, None
        bias = self.param("bias", zeros, (self.features,)) if self.bias else None
        path = "/".join(str(part) for part in self.path)
        if self.adapter is not None and re.search(self.adapter.targets, path):
            rank, bound = self.adapter.rank, width**-0.5
            start = lambda: jax.random.uniform(
                self.make_rng("params"), (width, rank), minval=-bound, maxval=bound
            )
            a = self.variable("lora", "a", start).value
            # Zero at first: a fresh adapter changes nothing.
            pair = a, self.variable("lora", "b", jnp.zeros, (rank, self.features)).value
        return Parameters(kernel, transposed, bias, pair)

    def finish(
        self, y: Float[Array, "*B F"], x: Float[Array, "*B D"], own: Parameters, row: Array | None
    ) -> Float[Array, "*B F"]:
        """The product y = x @ kernel with what else belongs to the projection."""
        if own.bias is not None:
            y = y + own.bias.reshape((1,) * (y.ndim - 1) + (-1,))
        if own.adapter is None or self.adapter is None:
            return y
        if row is not None and self.adapter.dropout:
            x = drop(x, row, self.make_rng("dropout"), self.adapter.dropout)
        thin = project(x, own.adapter[0], self.dtype)
        return y + project(thin, own.adapter[1], self.dtype) * self.adapter.scale

    def __call__(self, x: Float[Array, "*B D"], row: Array | None = None) -> Float[Array, "*B F"]:
        """One projection; `row` as in `Dropout`, for the adapter's."""
        return project_jointly([self], x, row)[0]


def project_jointly(
    parts: Sequence[Dense], x: Float[Array, "*B D"], row: Array | None
) -> list[Array]:
    """What each of `parts` makes of x, by one product that reads x once."""
    own = [dense.parameters(x.shape[-1]) for dense in parts]
    few = own[0].transposed
    kernel = jnp.concatenate([p.kernel for p in own], axis=0 if few else -1)
    joint = (project_few if few else project)(x, kernel, parts[0].dtype)
    ends = np.cumsum([dense.features for dense in parts])[:-1].tolist()
    made = jnp.split(joint, ends, axis=-1)
    return [d.finish(y, x, p, row) for d, y, p in zip(parts, made, own, strict=True)]


@jax.custom_vjp
def gelu(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """x Phi(x), exactly (Hendrycks & Gimpel 2016).

    Its slope is kept from the forward pass, where erf is at hand: the backward pass is one product.
    """
    return _gelu_forward(x)[0]


def _gelu_forward(x):
    below = 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))
    slope = below + x * jnp.exp(-0.5 * jnp.square(x)) * (2 * jnp.pi) ** -0.5
    return x * below, slope


gelu.defvjp(_gelu_forward, lambda slope, cotangent: (slope * cotangent,))


class Norm(nn.Module):
    """Normalization of the last axis in float32: "layer" (Ba et al. 2016), or "rms" without mean and bias
    (Zhang & Sennrich 2019)."""

    kind: str
    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalizes the last axis; the variance by the two-pass formula."""
        # One row flat: XLA on CPU sums [1, T, D] over T or D up to thirty times more slowly than [T, D]. (More rows it
        # sums faster as they are.)
        shape, x = x.shape, x.reshape(-1, x.shape[-1]) if len(x) == 1 else x
        lead = (1,) * (x.ndim - 1) + (-1,)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).reshape(lead)
        if self.kind == "layer":
            x = x - jnp.mean(x, axis=-1, keepdims=True)
        power = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        y = x * jax.lax.rsqrt(power + self.eps) * scale
        if self.kind == "layer":
            y = y + self.param("bias", nn.initializers.zeros, (x.shape[-1],)).reshape(lead)
        return y.reshape(shape)


class Dropout(nn.Module):
    """Dropout whose mask depends on a row's id alone, so on no device, part or neighboring row."""

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "R T D"], row: Int[Array, " R"] | None
    ) -> Float[Array, "R T D"]:
        """Zeroes entries at `rate` and scales the others up; the identity where row is None."""
        if row is None or self.rate == 0.0:
            return x
        return drop(x, row, self.make_rng("dropout"), self.rate)


def drop(
    x: Float[Array, "R T D"], row: Int[Array, " R"], key: Array, rate: float
) -> Float[Array, "R T D"]:
    """x with entries zeroed at `rate`, by a mask that row ids and `key` decide, and the others scaled up."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row)
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0.0)
