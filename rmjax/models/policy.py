"""A language model with what its training reads of it.

Legend: R rows, T tokens, S tokens that an encoder reads, L tokens to predict, V vocabulary.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from rmjax.models.critics import ActionValue, Value
from rmjax.models.transformer import LanguageModel, Source, Transformer

CRITIC = "critic"  # begins the paths of parameters that no language model has


class Policy(LanguageModel):
    """A language model for training: what its losses read of the tokens to predict in packed rows."""

    critic: Value | ActionValue | None = None
    # A decoder that the critic reads; None: the policy's transformer.
    critic_transformer: Transformer | None = None

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
        """{"logits" [R, L, V]} over the token after each of `source_at`, and what the critic says of the states there.

        Other arguments as of `Transformer`; encoder_*: its `source`, all of them or none.
        """
        source = None
        if encoder_tokens is not None:
            assert encoder_positions is not None and encoder_segments is not None
            source = Source(encoder_tokens, encoder_positions, encoder_segments)
        hidden, _ = self.transformer(
            tokens, positions, segments, row, branches, source, tiles=tiles
        )
        at_sources = lambda x: jnp.take_along_axis(x, source_at[..., None], axis=1)
        hidden = at_sources(hidden)
        offered = {"logits": self.unembed(hidden)}
        if self.critic_transformer is not None:
            own, _ = self.critic_transformer(
                tokens, positions, segments, None, branches, tiles=tiles
            )
            hidden = at_sources(own)
        return offered if self.critic is None else offered | self.critic(hidden)
