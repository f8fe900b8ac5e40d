"""The parts of a block: projections in the run's number type, normalization, dropout by row.

Legend: R rows, T query tokens, S key tokens, D width, F outputs, H heads, E head width.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

# Accelerators would otherwise multiply float32 in fewer bits.
PRECISION = {"float32": "highest", "bfloat16": None}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(
    x: Float[Array, "*B D"], kernel: Float[Array, "D F"], dtype: str
) -> Float[Array, "*B F"]:
    """x @ kernel over the last axis: products in `dtype`, sums in float32.

    Plain autodiff would feed a float32 cotangent to the backward products, which loses the fast
    bfloat16 units; this derivative rounds the cotangent to `dtype` first.
    """
    return _dot(x, kernel, ((x.ndim - 1,), (0,)), dtype)


def _dot(a: Array, b: Array, contract: tuple, dtype: str) -> Array:
    a, b = a.astype(dtype), b.astype(dtype)
    return jax.lax.dot_general(
        a, b, (contract, ((), ())), precision=PRECISION[dtype], preferred_element_type=jnp.float32
    )


def _project_forward(x, kernel, dtype):
    return project(x, kernel, dtype), (x.astype(dtype), kernel)


def _project_backward(dtype, saved, cotangent):
    x, kernel = saved
    lead = tuple(range(x.ndim - 1))  # all leading axes at once: flattening first is slower on CPU
    dx = _dot(cotangent, kernel, ((cotangent.ndim - 1,), (1,)), dtype)
    if dtype == "float32" and kernel.shape[0] > kernel.shape[1]:
        # XLA on CPU copies the first operand: the narrower here. (Its bfloat16 product has no such form.)
        return dx, _dot(cotangent, x, (lead, lead), dtype).T
    return dx, _dot(x, cotangent, (lead, lead), dtype)


project.defvjp(_project_forward, _project_backward)


class Dense(nn.Module):
    """x @ kernel + bias, [..., D] -> float32 [..., features]; `parameters` alone lets kernels share a product."""

    features: int
    dtype: str
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def parameters(self, width: int) -> tuple[Array, Array]:
        """The kernel [width, features] and the bias [features]."""
        kernel = self.param("kernel", self.kernel_init, (width, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """One projection."""
        kernel, bias = self.parameters(x.shape[-1])
        return _add_bias(project(x, kernel, self.dtype), bias)


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


def _add_bias(x: Array, bias: Array) -> Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class LayerNorm(nn.Module):
    """Layer normalization in float32 (Ba et al. 2016), variance by the two-pass formula."""

    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalizes the last axis."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        centered = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return centered * jax.lax.rsqrt(variance + self.eps) * scale.reshape(shape) + bias.reshape(
            shape
        )


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
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("dropout"), row)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0.0)


def attend(
    query: Float[Array, "R T H E"],
    key: Float[Array, "R S H E"],
    value: Float[Array, "R S H E"],
    mask: Bool[Array, "R 1 T S"],
    dtype: str,
) -> Float[Array, "R T H E"]:
    """Softmax attention: products in `dtype`, softmax and sums in float32.

    A query that may look at nothing (padding) gets a mean over keys: finite, and read by nobody.
    """
    query, key, value = (x.astype(dtype) for x in (query * query.shape[-1] ** -0.5, key, value))
    product = functools.partial(
        jnp.einsum, precision=PRECISION[dtype], preferred_element_type=jnp.float32
    )
    logits = product("rthe,rshe->rhts", query, key)
    weights = jax.nn.softmax(jnp.where(mask, logits, -1e9), axis=-1).astype(dtype)
    return product("rhts,rshe->rthe", weights, value)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017) over [R, T, D]."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "R T D"], mask: Bool[Array, "R 1 T T"]
    ) -> Float[Array, "R T D"]:
        """Mixes tokens where the mask allows."""
        width = x.shape[-1]
        names = ("query", "key", "value")
        parts = [Dense(width, self.dtype, name=n).parameters(width) for n in names]
        kernel, bias = (jnp.concatenate(p, axis=-1) for p in zip(*parts, strict=True))
        joint = _add_bias(project(x, kernel, self.dtype), bias)  # one product reads x once
        q, k, v = rearrange(joint, "r t (n h e) -> n r t h e", n=3, h=self.heads)
        mixed = rearrange(attend(q, k, v, mask, self.dtype), "r t h e -> r t (h e)")
        return Dense(width, self.dtype, name="output")(mixed)
