"""The one transformer: a Config whose switches cover the families, and a Block that is scanned.

Legend: R rows, T query tokens, S key tokens, D width, L layers, K key heads, E head width, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmjax.models import positions as places
from rmjax.models.attention import Attention, Tiles, take
from rmjax.models.layers import (
    PRECISION,
    Adapter,
    Dense,
    Dropout,
    Norm,
    gelu,
    project_few,
    project_jointly,
)

ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
_WORDS = {
    "kind": ("encoder", "decoder", "encoder_decoder"),
    "positions": ("learned", "rotary", "relative"),
    "norm": ("layer", "rms"),
    "norm_at": ("pre", "post", "both"),
    "activation": tuple(sorted(ACTIVATIONS)),
    "biases": ("all", "qkv", "none"),
}


_SIZES = (
    "vocab_size", "width", "layers", "heads", "kv_heads", "head_width", "mlp_width", "max_positions",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What a checkpoint decides; so nothing here has a default. A JSON round trip gives the same."""

    kind: str  # encoder: a token sees its whole text; decoder: up to itself; encoder_decoder: both, as T5
    vocab_size: int
    width: int
    layers: int  # of each stack
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    max_positions: int  # rows of the learned table; else the longest text the model was made for
    token_types: int  # 0: no token-type embedding
    positions: str
    first_position: int  # row of the learned table where a text begins
    norm: str
    norm_at: str  # pre: before attention and MLP, and one at the end; post: after each sum; both: before and after
    norm_eps: float
    activation: str
    gated: bool  # activation(gate(x)) * up(x)
    biases: str  # of projections: all, those of queries, keys and values, or none
    qk_norm: bool  # RMS norm of each head's queries and keys, before rotation
    attention_scale: float  # factor on query . key
    embedding_scale: float  # factor on token embeddings
    logit_scale: float  # factor on output logits
    tied: bool  # the output embeddings are the input ones
    rope_base: float  # 0 where there is no rotation
    rope_scaling: Sequence[float]  # as `positions.frequencies` reads it
    windows: Sequence[
        int
    ]  # one a layer: how many latest tokens a query sees, itself included; 0: all
    local_rope_base: float  # rope base of layers with a window; 0: rope_base
    relative_buckets: (
        int  # of a bias by distance that all layers of a stack share, as T5's; 0: none
    )
    relative_distance: int

    def __post_init__(self):
        """Raises: ValueError on sizes that are none or do not fit together, or an unknown word."""
        for name in ("rope_scaling", "windows"):  # JSON has lists; tuples can be hashed
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), int(field.name in _SIZES)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if field.type is int and not (isinstance(value, int) and number and value >= least):
                raise ValueError(f"{field.name} must be a whole number from {least}, got {value!r}")
            if field.type is float and not (number and math.isfinite(value)):
                raise ValueError(f"{field.name} must be a finite number, got {value!r}")
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if len(self.windows) != self.layers:
            raise ValueError(f"windows has {len(self.windows)} numbers for {self.layers} layers")
        if self.positions == "rotary" and (self.head_width % 2 or not self.rope_base > 0):
            raise ValueError("rotary positions need an even head_width and a positive rope_base")


class Source(NamedTuple):
    """What the encoder of an encoder–decoder reads; fields as `Transformer` says."""

    tokens: Int[Array, "R S"]
    positions: Int[Array, "R S"]
    segments: Int[Array, "R S"]


class Shared(NamedTuple):
    """What a stack prepares once for all of its blocks."""

    seen: places.Sight
    turn: Any  # window -> rotation, or None
    row: Any
    length: Any  # tokens in the cache so far, or None
    memory: Any  # the encoder's hidden states [R, S, D], or None
    memory_seen: Any  # Sight of those, or None
    tiles: Any  # what `seen` and `memory_seen` are of, or None: of whole rows


class Block(nn.Module):
    """Attention and MLP with residual connections; between them attention to an encoder where there is one."""

    config: Config
    dtype: str
    dropout: float
    adapter: Adapter | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "R T D"], own: dict[str, Any], shared: Shared
    ) -> tuple[Float[Array, "R T D"], dict[str, Any]]:
        """The next layer's input, and this layer's grown cache.

        own: this layer's "window", and "key" and "value" of its cache, where there are such.
        """
        c, window, kept = self.config, own.get("window"), {}
        norm = lambda name: Norm(c.norm, c.norm_eps, name=name)
        attention = lambda name: Attention(
            c.heads,
            c.kv_heads,
            c.head_width,
            c.biases,
            c.norm_eps if c.qk_norm else None,
            c.attention_scale,
            self.dtype,
            self.adapter,
            name=name,
        )

        def itself(y):
            mask, bias = places.within(shared.seen, window), shared.seen.bias
            turn = None if shared.turn is None else shared.turn(window)
            cache = None
            if shared.length is not None:
                cache = {"key": own["key"], "value": own["value"], "length": shared.length}
            y, cache = attention("attention")(
                y, mask, bias=bias, tiles=shared.tiles, turn=turn, row=shared.row, cache=cache
            )
            kept.update({} if cache is None else {k: cache[k] for k in ("key", "value")})
            return y

        def encoder(y):
            mask = places.within(shared.memory_seen, None)
            return attention("cross")(
                y, mask, tiles=shared.tiles, row=shared.row, memory=shared.memory
            )[0]

        def mlp(y):
            dense = lambda width, name: Dense(
                width, self.dtype, c.biases == "all", self.adapter, name=name
            )
            act, names = ACTIVATIONS[c.activation], ("up", "gate") if c.gated else ("up",)
            inner = [dense(c.mlp_width, name) for name in names]
            if shared.length is None:
                made = [part(y, shared.row) for part in inner]
            else:  # decoding, whose loop joins kernels once
                made = project_jointly(inner, y, shared.row)
            up = made[0] * act(made[1]) if c.gated else act(made[0])
            return dense(c.width, "down")(up, shared.row)

        parts = {"attention": itself, "cross": encoder, "mlp": mlp}
        if shared.memory is None:
            del parts["cross"]
        for name, part in parts.items():
            y = part(x if c.norm_at == "post" else norm(f"{name}_norm")(x))
            y = norm(f"{name}_post_norm")(y) if c.norm_at == "both" else y
            x = x + Dropout(self.dropout)(y, shared.row)
            x = norm(f"{name}_norm")(x) if c.norm_at == "post" else x
        return x, kept


class Stack(nn.Module):
    """Scanned blocks and the norm after them."""

    config: Config
    dtype: str
    dropout: float
    remat: bool
    unroll: int
    adapter: Adapter | None
    causal: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "R T D"],
        at: places.Places,
        row: Int[Array, " R"] | None,
        memory: tuple[Float[Array, "R S D"], places.Places] | None = None,
        cache: dict[str, Any] | None = None,
        tiles: Tiles | None = None,
    ) -> tuple[Float[Array, "R T D"], dict[str, Any] | None]:
        """Hidden states of tokens that are `at` these places, and the cache with them in it.

        memory: an encoder's hidden states and their places. tiles: as `Transformer` says.
        """
        c, own, keys = self.config, {}, at
        if cache is not None:
            keys = places.append(places.Places(*cache["places"]), at, cache["length"])
            own = {name: cache[name] for name in ("key", "value")}
        if any(c.windows):
            own["window"] = jnp.array(c.windows)
        seen = _sight(at, keys, tiles, causal=self.causal)
        if c.relative_buckets:
            shape = (c.relative_buckets, c.heads)
            table = self.param("relative", nn.initializers.normal(0.02), shape)
            bias = places.relative_bias(table, seen.back, c.relative_distance, causal=self.causal)
            seen = seen._replace(bias=bias)
        turn = None
        if c.positions == "rotary":
            turn = places.rotations(
                at.positions, c.head_width, c.rope_base, c.rope_scaling, c.local_rope_base
            )
        shared = Shared(
            seen,
            turn,
            row,
            None if cache is None else cache["length"],
            None if memory is None else memory[0],
            None if memory is None else _sight(at, memory[1], tiles, causal=False),
            tiles,
        )
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        scanned = nn.scan(
            block,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType] (typed as int)
            length=c.layers,
            unroll=self.unroll,
        )
        blocks = scanned(c, self.dtype, self.dropout, self.adapter, name="blocks")
        x, kept = blocks(x, own, shared)
        if c.norm_at != "post":
            x = Norm(c.norm, c.norm_eps, name="final_norm")(x)
        if cache is not None:
            cache = cache | kept | {"places": tuple(keys), "length": cache["length"] + x.shape[1]}
        return x, cache


def _sight(
    query: places.Places, key: places.Places, tiles: Tiles | None, *, causal: bool
) -> places.Sight:
    """Of whole rows, or of pairs of their tiles."""
    if tiles is not None:
        query = places.Places(*(take(x, tiles.query) for x in query))
        key = places.Places(*(take(x, tiles.key) for x in key))
    return places.sight(query, key, causal=causal)


class Transformer(nn.Module):
    """Token ids to hidden states; packed texts (segments) do not see each other."""

    config: Config
    dtype: str = "float32"  # of products; sums, norms and parameters are float32
    dropout: float = 0.0
    remat: bool = False  # keep only block inputs for the backward pass
    unroll: int = 1  # blocks per iteration of the scan
    adapter: Adapter | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "R T"],
        positions: Int[Array, "R T"],
        segments: Int[Array, "R T"],
        row: Int[Array, " R"] | None = None,
        branches: Int[Array, "R T"] | None = None,
        source: Source | None = None,
        cache: dict[str, Any] | None = None,
        tiles: Int[Array, "R N 2"] | None = None,
        embedded: Float[Array, "R T D"] | None = None,
        types: Int[Array, "R T"] | None = None,
    ) -> tuple[Float[Array, "R T D"], dict[str, Any] | None]:
        """Hidden states after the last block, and the grown cache.

        positions, segments, branches: as in `positions.Places`; no branches: nothing is shared.
        row: ids of the rows in the global batch, from which dropout draws; None: no dropout.
        source: what an encoder reads; None: the same texts, which the decoder then reads one token late, after a 0.
        cache: what `empty_cache` gave, or the call before; it holds these rows' earlier tokens.
        tiles: query and key tile (of `attention.TILE` tokens) of every pair in which a token sees another; None: all.
          Not with a cache or a source.
        embedded: read in place of the tokens' rows of the embedding table.
        types: token types, where the Config has several; None: all are 0.
        """
        c = self.config
        stack = lambda causal, name=None: Stack(
            c, self.dtype, self.dropout, self.remat, self.unroll, self.adapter, causal, name=name
        )
        table = self.param("tokens", nn.initializers.normal(0.02), (c.vocab_size, c.width))
        at = places.Places(
            positions, segments, jnp.zeros_like(segments) if branches is None else branches
        )
        memory, pairs = None, None
        if tiles is not None:
            pairs = Tiles(tiles[..., 0], tiles[..., 1])
        if c.kind == "encoder_decoder":
            if cache is not None and "memory" in cache:
                memory = cache["memory"]
            else:
                if source is None:
                    source = Source(tokens, positions, segments)
                    tokens = jnp.where(positions == 0, 0, jnp.roll(tokens, 1, axis=1))
                there = places.Places(
                    source.positions, source.segments, jnp.zeros_like(source.segments)
                )
                x = self._embed(table[source.tokens], source.positions, row)
                memory = stack(False, "encoder")(x, there, row, tiles=pairs)[0], there
        main = stack(c.kind != "encoder", "stack")
        nn.share_scope(self, main)
        x = self._embed(table[tokens] if embedded is None else embedded, positions, row, types)
        x, grown = main(x, at, row, memory, cache, pairs)
        return x, grown if grown is None or memory is None else grown | {"memory": memory}

    def _embed(self, x, positions, row, types=None):
        c, normal = self.config, nn.initializers.normal(0.02)
        x = x * c.embedding_scale
        if c.positions == "learned":
            where = positions + c.first_position
            x = x + self.param("positions", normal, (c.max_positions, c.width))[where]
        if c.token_types:
            table = self.param("types", normal, (c.token_types, c.width))
            x = x + (table[:1][None] if types is None else table[types])
        if c.norm_at == "post":
            x = Norm(c.norm, c.norm_eps, name="embedding_norm")(x)
        return Dropout(self.dropout)(x, row)


def empty_cache(config: Config, rows: int, slots: int, dtype: str = "float32") -> dict[str, Any]:
    """A cache for `slots` tokens of each row; keys and values [L, R, K, S, E] are kept in `dtype`.

    Heads stand before slots, as products over them read: else every step would transpose the cache.
    """
    shape = (config.layers, rows, config.kv_heads, slots, config.head_width)
    nowhere = jnp.zeros((rows, slots), jnp.int32)
    return {
        "key": jnp.zeros(shape, dtype),
        "value": jnp.zeros(shape, dtype),
        "places": (nowhere, nowhere, nowhere),
        "length": jnp.zeros((), jnp.int32),
    }


class LanguageModel(nn.Module):
    """Hidden states to logits over the next token, by the input embeddings or by a table of its own."""

    transformer: Transformer

    @nn.compact
    def __call__(
        self, *inputs: Any, at: Int[Array, "R L"] | None = None, **options: Any
    ) -> tuple[Float[Array, "R L V"], dict[str, Any] | None]:
        """Logits and cache; arguments as of `Transformer`. at: the places whose logits are wanted; None: all."""
        hidden, cache = self.transformer(*inputs, **options)
        if at is not None:
            hidden = jnp.take_along_axis(hidden, at[..., None], axis=1)
        return self.unembed(hidden, few=cache is not None), cache

    @nn.nowrap
    def unembed(self, hidden: Float[Array, "R L D"], *, few: bool = False) -> Float[Array, "R L V"]:
        """Logits of hidden states, of few ones as `project_few`; to be called while the module is applied."""
        c, dtype = self.transformer.config, self.transformer.dtype
        if c.tied:
            table = self.transformer.get_variable("params", "tokens")
        else:
            shape = (c.vocab_size, c.width)
            table = self.param("unembed", nn.initializers.normal(0.02), shape)
        if few:
            return project_few(hidden, table, dtype) * c.logit_scale
        logits = jnp.einsum(
            "rtd,vd->rtv",
            hidden.astype(dtype),
            table.astype(dtype),
            precision=PRECISION[dtype],
            preferred_element_type=jnp.float32,
        )
        return logits * c.logit_scale
