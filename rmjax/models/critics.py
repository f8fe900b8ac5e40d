"""What says how much a state is worth: heads on hidden states, of the policy's transformer or of one of their own.

Legend: R rows, L tokens to predict, D width, V vocabulary.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmjax.models.layers import Dense

Hidden = Float[Array, "R L D"]


class Value(nn.Module):
    """V(s), linear in the hidden state; 0 at first (Ziegler et al. 2019)."""

    @nn.compact
    def __call__(self, hidden: Hidden) -> dict[str, Array]:
        """{"values" [R, L]}, in reward units."""
        zeros = nn.initializers.zeros
        kernel = self.param("kernel", zeros, (hidden.shape[-1],))
        bias = self.param("bias", zeros, ())
        return {"values": jnp.einsum("rld,d->rl", hidden, kernel, precision="highest") + bias}


class ActionValue(nn.Module):
    """Q(s, a) of every token a of the vocabulary, linear in the hidden state; 0 at first."""

    tokens: int
    dtype: str

    @nn.compact
    def __call__(self, hidden: Hidden) -> dict[str, Array]:
        """{"action_values" [R, L, V]}, in reward units: the largest array of a step, beside the logits."""
        zeros = nn.initializers.zeros
        return {
            "action_values": Dense(self.tokens, self.dtype, kernel_init=zeros, name="q")(hidden)
        }
