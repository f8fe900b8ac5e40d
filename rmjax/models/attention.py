"""Softmax attention, over whole rows or over those tiles of them alone that hold tokens of one text.

Whole rows cost T^2 however short their texts are. The host lists the pairs of square tiles that see each other, a
static number a row, and the cost is that of the list.
Legend: R rows, T query tokens, S key tokens, D width, H heads, K key heads, E head width; C tiles in a row, B tokens of
a tile, N pairs of tiles in a row, M = R N.
"""

import functools
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, Shaped

from rmjax.models import positions as places
from rmjax.models.layers import PRECISION, Adapter, Dense, Norm, project_jointly

TILE = 128  # tokens: the width of an accelerator's matrix unit; on CPU 64 is no faster


class Tiles(NamedTuple):
    """The tile of each pair's queries and of its keys; C and more stand for no pair."""

    query: Int[Array, "R N"]
    key: Int[Array, "R N"]


def attend(
    query: Float[Array, "R T H E"],
    key: Float[Array, "R S K E"],
    value: Float[Array, "R S K E"],
    mask: Bool[Array, "R 1 T S"],
    dtype: str,
    scale: float,
    bias: Float[Array, "R H T S"] | None = None,
) -> Float[Array, "R T H E"]:
    """Products in `dtype`, softmax and sums in float32.

    Heads share keys in groups of H / K (Ainslie et al. 2023). bias: added to the logits.
    A query that may look at nothing (padding) gets a mean over keys: finite, and read by nobody.
    """
    logits = _logits(query, key, mask, dtype, scale, bias)
    return _mix(jax.nn.softmax(logits, axis=-1), value, dtype)


def attend_tiles(
    query: Float[Array, "R T H E"],
    key: Float[Array, "R T K E"],
    value: Float[Array, "R T K E"],
    mask: Bool[Array, "M 1 B B"],
    tiles: Tiles,
    dtype: str,
    scale: float,
    bias: Float[Array, "M H B B"] | None = None,
) -> Float[Array, "R T H E"]:
    """`attend` where `tiles` lists every pair of tiles in which a query sees a key; mask and bias are of those.

    A query tile's pairs share its softmax: their sums are added up and divided in the end.
    """
    rows, length = query.shape[:2]
    count = -(-length // TILE)
    split = lambda x: x.reshape(rows, -1, *x.shape[1:])
    # Whatever belongs to no tile is dropped.
    peak = jax.vmap(lambda x, at: jnp.full((count, *x.shape[1:]), -1e9).at[at].max(x))
    add = jax.vmap(lambda x, at: jnp.zeros((count, *x.shape[1:])).at[at].add(x))
    logits = _logits(take(query, tiles.query), take(key, tiles.key), mask, dtype, scale, bias)
    top = peak(split(jax.lax.stop_gradient(jnp.max(logits, axis=-1))), tiles.query)
    weights = jnp.exp(logits - _of(top, tiles.query)[..., None])
    total = add(split(jnp.sum(weights, axis=-1)), tiles.query)
    mixed = add(split(_mix(weights, take(value, tiles.key), dtype)), tiles.query)
    # Flat, as in `layers.Norm`.
    shares = rearrange(jnp.maximum(total, 1e-30), "r c h b -> (r c b) h 1")
    made = rearrange(mixed, "r c b h e -> (r c b) h e") / shares
    return made.reshape(rows, -1, *made.shape[1:])[:, :length]


def take(x: Shaped[Array, "R T *F"], tile: Int[Array, "R N"]) -> Shaped[Array, "M B *F"]:
    """The tokens of tiles, those past the row zeros."""
    padded = jnp.pad(x, [(0, 0), (0, -x.shape[1] % TILE)] + [(0, 0)] * (x.ndim - 2))
    return _of(padded.reshape(len(x), -1, TILE, *x.shape[2:]), tile)


def _of(tiles, tile):  # [R, C, ..], [R, N] -> [M, ..]
    pick = jax.vmap(lambda row, at: jnp.take(row, at, axis=0, mode="clip"))
    return pick(tiles, tile).reshape(-1, *tiles.shape[2:])


def _logits(query, key, mask, dtype, scale, bias):
    query = rearrange(query * scale, "r t (k g) e -> r k g t e", k=key.shape[2])
    logits = _product("rkgte,rske->rkgts", query, key, dtype)
    logits = rearrange(logits, "r k g t s -> r (k g) t s")
    return jnp.where(mask, logits if bias is None else logits + bias, -1e9)


def _mix(weights, value, dtype):
    weights = rearrange(weights, "r (k g) t s -> r k g t s", k=value.shape[2])
    mixed = _product("rkgts,rske->rkgte", weights, value, dtype)
    return rearrange(mixed, "r k g t e -> r t (k g) e")


def rounded(x: Float[Array, "*S"], dtype: str) -> Float[Array, "*S"]:
    """x as `dtype` would hold it, in the type that it has."""
    kept = jnp.finfo(dtype)
    return jax.lax.reduce_precision(x, kept.nexp, kept.nmant)


def _product(pattern: str, a: Array, b: Array, dtype: str) -> Array:
    """The product of that pattern, in `dtype` with float32 sums: rkgte,rske->rkgts or rkgts,rske->rkgte.

    As of `layers.project`, the derivative rounds the cotangent to `dtype`. Each product has its operands in an order in
    which XLA on CPU transposes keys and values at most, never the larger logits.
    """
    return cast(Array, _einsum(pattern, a, b, dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _einsum(pattern: str, a: Array, b: Array, dtype: str) -> Array:
    return jnp.einsum(
        pattern,
        a.astype(dtype),
        b.astype(dtype),
        precision=PRECISION[dtype],
        preferred_element_type=jnp.float32,
    )


def _einsum_forward(pattern, a, b, dtype):
    a, b = a.astype(dtype), b.astype(dtype)
    return _einsum(pattern, a, b, dtype), (a, b)


def _einsum_backward(pattern, dtype, saved, cotangent):
    a, b = saved
    left, right, out = pattern.replace("->", ",").split(",")
    narrow, wide = (a, cotangent) if out == "rkgts" else (cotangent, a)
    da = _einsum(f"{out},{right}->{left}", cotangent, b, dtype)
    db = _einsum("rkgte,rkgts->rkes", narrow, wide, dtype)
    return da, rearrange(db, "r k e s -> r s k e")


_einsum.defvjp(_einsum_forward, _einsum_backward)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) of x [R, T, D] to itself, to a cache before it, or to `memory`.

    The fields are those of `transformer.Config`.
    """

    heads: int
    kv_heads: int
    head_width: int
    biases: str
    qk_norm_eps: float | None  # None: no norm
    scale: float
    dtype: str
    adapter: Adapter | None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "R T D"],
        mask: Bool[Array, "Q 1 U S"],
        *,
        bias: Float[Array, "Q H U S"] | None = None,
        tiles: Tiles | None = None,
        turn: places.Turn | None = None,
        row: Int[Array, " R"] | None = None,
        memory: Float[Array, "R V D"] | None = None,
        cache: dict[str, Any] | None = None,
    ) -> tuple[Float[Array, "R T D"], dict[str, Any] | None]:
        """Mixes tokens where the mask allows; the cache comes back with these tokens' keys and values in it.

        A cache may be of float32 where products are not: it then holds what those would round to.
        tiles: mask and bias [M, .., B, B] are of these pairs of tiles; None: of whole rows [R, .., T, S].
        turn: rotation of queries and keys. cache: {"key", "value" [R, K, S, E], "length" []}.
        """
        width, kv_width = self.heads * self.head_width, self.kv_heads * self.head_width
        dense = lambda features, name: Dense(
            features, self.dtype, self.biases in ("all", "qkv"), self.adapter, name=name
        )
        parts = [dense(width, "query"), dense(kv_width, "key"), dense(kv_width, "value")]
        if memory is None:
            q, k, v = project_jointly(parts, x, row)
        else:
            q, (k, v) = parts[0](x, row), project_jointly(parts[1:], memory, row)
        q, k, v = (rearrange(y, "r t (h e) -> r t h e", e=self.head_width) for y in (q, k, v))
        if self.qk_norm_eps is not None:
            q = Norm("rms", self.qk_norm_eps, name="query_norm")(q)
            k = Norm("rms", self.qk_norm_eps, name="key_norm")(k)
        if turn is not None:
            q, k = places.rotate(q, turn), places.rotate(k, turn)
        products = self.dtype
        if cache is not None:
            products = str(cache["key"].dtype)
            q, k, v = (rounded(y, self.dtype) for y in (q, k, v))
            start = (0, 0, cache["length"], 0)
            put = lambda slots, new: jax.lax.dynamic_update_slice(
                slots, rearrange(new, "r t k e -> r k t e").astype(slots.dtype), start
            )
            cache |= {"key": put(cache["key"], k), "value": put(cache["value"], v)}
            k, v = (rearrange(cache[name], "r k s e -> r s k e") for name in ("key", "value"))
        if tiles is None:
            mixed = attend(q, k, v, mask, products, self.scale, bias)
        else:
            mixed = attend_tiles(q, k, v, mask, tiles, self.dtype, self.scale, bias)
        output = Dense(x.shape[-1], self.dtype, self.biases == "all", self.adapter, name="output")
        return output(rearrange(mixed, "r t h e -> r t (h e)"), row), cache
