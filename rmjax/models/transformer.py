"""The one transformer: a Config whose switches cover the families, and a Block that is scanned.

Legend: R rows, T tokens, D width, L layers.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmjax.models.layers import Attention, Dense, Dropout, LayerNorm, gelu

ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What a checkpoint decides; so nothing here has a default."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    max_positions: int
    token_types: int  # 0: no token-type embedding
    causal: bool
    pre_norm: bool  # norms before attention and MLP, and one at the end; else after (BERT)
    activation: str
    norm_eps: float

    def __post_init__(self):
        """Raises: ValueError on sizes that do not fit together."""
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}"
            )


class Block(nn.Module):
    """Attention and MLP with residual connections."""

    config: Config
    dtype: str
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "R T D"], mask: Bool[Array, "R 1 T T"], row: Int[Array, " R"] | None
    ) -> tuple[Float[Array, "R T D"], None]:
        """The next layer's input, and nothing for the scan to collect."""
        c = self.config

        def mlp(y):
            hidden = ACTIVATIONS[c.activation](Dense(c.mlp_width, self.dtype, name="up")(y))
            return Dense(c.width, self.dtype, name="down")(hidden)

        attention = Attention(c.heads, self.dtype, name="attention")
        for name, part in (("attention_norm", lambda y: attention(y, mask)), ("mlp_norm", mlp)):
            norm = LayerNorm(c.norm_eps, name=name)
            y = Dropout(self.dropout)(part(norm(x) if c.pre_norm else x), row)
            x = x + y if c.pre_norm else norm(x + y)
        return x, None


class Transformer(nn.Module):
    """Token ids to hidden states; packed texts (segments) do not see each other."""

    config: Config
    dtype: str = "float32"  # of products; sums, norms and parameters are float32
    dropout: float = 0.0
    remat: bool = False  # keep only block inputs for the backward pass
    unroll: int = 1  # blocks per iteration of the scan

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "R T"],
        positions: Int[Array, "R T"],
        segments: Int[Array, "R T"],
        row: Int[Array, " R"] | None = None,
    ) -> Float[Array, "R T D"]:
        """Hidden states after the last block.

        positions: of each token in its own text, from 0.
        segments: 1, 2, ... for the texts of a row, 0 for padding.
        row: ids of the rows in the global batch, from which dropout draws; None: no dropout.
        """
        c = self.config
        normal = nn.initializers.normal(0.02)
        x = self.param("tokens", normal, (c.vocab_size, c.width))[tokens]
        x = x + self.param("positions", normal, (c.max_positions, c.width))[positions]
        if c.token_types:
            x = x + self.param("types", normal, (c.token_types, c.width))[:1][None]
        if not c.pre_norm:
            x = LayerNorm(c.norm_eps, name="embedding_norm")(x)
        x = Dropout(self.dropout)(x, row)
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType] (typed as int)
            length=c.layers,
            unroll=self.unroll,
        )
        x, _ = stack(c, self.dtype, self.dropout, name="blocks")(
            x, attention_mask(segments, c.causal), row
        )
        return LayerNorm(c.norm_eps, name="final_norm")(x) if c.pre_norm else x


def attention_mask(segments: Int[Array, "R T"], causal: bool) -> Bool[Array, "R 1 T T"]:
    """Which query (third axis) sees which key (last): its own text's tokens; with causal, up to itself."""
    mask = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0)
    if causal:
        steps = jnp.arange(segments.shape[1])
        mask &= (steps[:, None] >= steps[None, :])[None]
    return mask[:, None]
