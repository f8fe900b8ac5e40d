"""The reward that a tuned policy implies, from its log-probabilities and those of what it was tuned from.

Legend: R rows, T tokens, V vocabulary, P scored texts in a row.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmjax.models.transformer import LanguageModel


def text_log_probs(
    logits: Float[Array, "R T V"],
    tokens: Int[Array, "R T"],
    positions: Int[Array, "R T"],
    segments: Int[Array, "R T"],
    score_at: Int[Array, "R P"],
) -> Float[Array, "R P"]:
    """log p of each packed text, all tokens but its first, in nats.

    score_at: index of each text's last token.
    """
    ahead = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
    found = jnp.take_along_axis(ahead, tokens[:, 1:, None], axis=-1)[..., 0]
    found = jnp.where(positions > 0, jnp.pad(found, ((0, 0), (1, 0))), 0.0)
    text = jnp.take_along_axis(segments, score_at, axis=1)
    own = (segments[:, :, None] == text[:, None, :]) & (segments > 0)[:, :, None]
    return jnp.sum(jnp.where(own, found[:, :, None], 0.0), axis=1)


def create(policy: LanguageModel, reference: LanguageModel, beta: float) -> Callable[..., Any]:
    """Returns apply(variables, tokens, positions, segments, score_at) -> {"score" [R, P]} as of a reward model.

    variables: {"params": {"policy": ..., "reference": ...}}. The score is beta * (log pi - log pi_ref) of the whole
    text. What a prompt adds is the same for all of its completions, and the reward is only defined up to that:
    compare it within prompts.
    beta: the coefficient that the policy was tuned with, > 0.
    Raises: ValueError if it is not, or a model is not causal.
    Source: Rafailov et al. 2023 (arXiv:2305.18290) eq. 5, without its partition function.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    models = {"policy": policy, "reference": reference}
    for name, module in models.items():
        if module.transformer.config.kind != "decoder":
            raise ValueError(f"the {name} is no causal language model")

    def apply(variables, tokens, positions, segments, score_at):
        found = {}
        for name, module in models.items():
            own = {"params": variables["params"][name]}
            logits, _ = module.apply(own, tokens, positions, segments)
            found[name] = text_log_probs(logits, tokens, positions, segments, score_at)
        return {"score": beta * (found["policy"] - found["reference"])}

    return apply
