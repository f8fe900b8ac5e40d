"""A language model with what its training reads of it.

Legend: R rows, T tokens, S tokens that an encoder reads, L tokens to predict and P texts in a row, V vocabulary.
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
        score_at: Int[Array, "R P"] | None = None,
        row: Int[Array, " R"] | None = None,
        branches: Int[Array, "R T"] | None = None,
        tiles: Int[Array, "R N 2"] | None = None,
        encoder_tokens: Int[Array, "R S"] | None = None,
        encoder_positions: Int[Array, "R S"] | None = None,
        encoder_segments: Int[Array, "R S"] | None = None,
    ) -> dict[str, Array]:
        """{"logits" [R, L, V]} over the token after each of `source_at`, and what the critic says of the states there.

        score_at: each text's last token; a critic of states says of these "end_values" [R, P].
        Other arguments as of `Transformer`; encoder_*: its `source`, all of them or none.
        """
        source = None
        if encoder_tokens is not None:
            assert encoder_positions is not None and encoder_segments is not None
            source = Source(encoder_tokens, encoder_positions, encoder_segments)
        hidden, _ = self.transformer(
            tokens, positions, segments, row, branches, source, tiles=tiles
        )
        take = lambda x, at: jnp.take_along_axis(x, at[..., None], axis=1)
        at_sources = take(hidden, source_at)
        offered = {"logits": self.unembed(at_sources)}
        if self.critic_transformer is not None:
            own, _ = self.critic_transformer(
                tokens, positions, segments, None, branches, tiles=tiles
            )
            hidden, at_sources = own, take(own, source_at)
        if self.critic is not None:
            offered |= self.critic(at_sources)
        if isinstance(self.critic, Value) and score_at is not None:
            offered["end_values"] = self.critic(take(hidden, score_at))["values"]
        return offered
