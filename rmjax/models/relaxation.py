"""Drawn tokens that pass a gradient: hard forward, backward a softmax with the noise that drew them.

Legend: *B any axes, V vocabulary, D width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def noise_of(
    key: Key[Array, ""], logits: Float[Array, "*B V"], drawn: Int[Array, "*B"]
) -> Float[Array, "*B V"]:
    """Gumbel noise given that it drew these tokens: `drawn` is the largest of logits + noise; no gradient.

    Over tokens drawn from softmax(logits) it is independent Gumbel noise: the largest sum is Gumbel at the logits'
    logsumexp, whichever token has it, and the others are Gumbel at their logits, cut off there.
    Source: Maddison, Tarlow & Minka 2014 (A* sampling, arXiv:1411.0030) section 3.
    """
    first, rest = jax.random.split(key)
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    most = total + jax.random.gumbel(first, total.shape)
    others = -jnp.logaddexp(-most, -(logits + jax.random.gumbel(rest, logits.shape)))
    own = jax.nn.one_hot(drawn, logits.shape[-1], dtype=bool)
    return jax.lax.stop_gradient(jnp.where(own, most, others) - logits)


def slope(
    table: Float[Array, "V D"],
    logits: Float[Array, "*B V"],
    noise: Float[Array, "*B V"],
    *,
    temperature: float,
) -> Float[Array, "*B D"]:
    """What a drawn token's embedding gains: 0, with the gradient of softmax((logits + noise) / temperature) @ table.

    temperature: > 0; low ones come near the draw's own gradient, whose variance grows.
    Source: Jang et al. 2017 (arXiv:1611.01144) section 2.2, straight-through; Bengio et al. 2013 (arXiv:1308.3432).
    """
    share = jax.nn.softmax((logits + noise) / temperature, axis=-1)
    soft = jnp.einsum("...v,vd->...d", share, table)
    return soft - jax.lax.stop_gradient(soft)
