"""A language model with what its training reads of it.

Legend: R rows, T tokens, S tokens that an encoder reads, L tokens to predict, V vocabulary.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from rmjax.models.transformer import LanguageModel, Source


class Policy(LanguageModel):
    """A language model for training: what its losses read of the tokens to predict in packed rows."""

    critic: bool = False  # whether hidden states also give values, linearly

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "R T"],
        positions: Int[Array, "R T"],
        segments: Int[Array, "R T"],
        source_at: Int[Array, "R L"],
        row: Int[Array, " R"] | None = None,
        branches: Int[Array, "R T"] | None = None,
        tiles: Int[Array, "R N 2"] | None = None,
        encoder_tokens: Int[Array, "R S"] | None = None,
        encoder_positions: Int[Array, "R S"] | None = None,
        encoder_segments: Int[Array, "R S"] | None = None,
    ) -> dict[str, Array]:
        """{"logits" [R, L, V]} over the token after each of `source_at`, and with a critic {"values" [R, L]} there.

        Other arguments as of `Transformer`; encoder_*: its `source`, all of them or none.
        A critic's values are 0 at first (Ziegler et al. 2019).
        """
        source = None
        if encoder_tokens is not None:
            assert encoder_positions is not None and encoder_segments is not None
            source = Source(encoder_tokens, encoder_positions, encoder_segments)
        hidden, _ = self.transformer(
            tokens, positions, segments, row, branches, source, tiles=tiles
        )
        hidden = jnp.take_along_axis(hidden, source_at[..., None], axis=1)
        offered = {"logits": self.unembed(hidden)}
        if self.critic:
            zeros, width = nn.initializers.zeros, hidden.shape[-1]
            kernel = self.param("value_kernel", zeros, (width,))
            bias = self.param("value_bias", zeros, ())
            offered["values"] = jnp.einsum("rld,d->rl", hidden, kernel, precision="highest") + bias
        return offered
