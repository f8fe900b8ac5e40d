"""The reward that a tuned policy implies, from its log-probabilities and those of what it was tuned from.

Legend: R rows, T tokens, L tokens to predict and P scored texts in a row, V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rmjax.models.transformer import LanguageModel


def text_log_probs(
    logits: Float[Array, "R T V"],
    tokens: Int[Array, "R T"],
    target_at: Int[Array, "R L"],
    text_of: Int[Array, "R L"],
    texts: int,
) -> Float[Array, "R P"]:
    """log p of each packed text's completion, in nats: summed over its tokens to predict, the stop token among them.

    target_at: places of the tokens to predict. text_of: the text that each is of; P and above where there is none.
    texts: P.
    """
    ahead = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
    found = jnp.take_along_axis(ahead, tokens[:, 1:, None], axis=-1)[..., 0]
    own = jnp.take_along_axis(jnp.pad(found, ((0, 0), (1, 0))), target_at, axis=1)
    of = text_of[:, :, None] == jnp.arange(texts)[None, None]
    return jnp.sum(jnp.where(of, own[:, :, None], 0.0), axis=1)


def create(
    policy: LanguageModel, reference: LanguageModel, beta: float
) -> Callable[[Mapping[str, Any], Mapping[str, Array]], dict[str, Array]]:
    """Returns score(variables, batch) -> {"score" [R, P]} of a packed batch of completions behind their prompts.

    variables: {"params": {"policy": ..., "reference": ...}}. The score is beta * (log pi - log pi_ref) of the
    completion with its stop token, as DPO trains it. It is only defined up to a function of the prompt: compare it
    within prompts.
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

    def score(variables, batch):
        found = {}
        for name, module in models.items():
            own = {"params": variables["params"][name]}
            read = [batch[key] for key in ("tokens", "positions", "segments")]
            logits, _ = module.apply(own, *read)
            count = batch["score_at"].shape[1]
            found[name] = text_log_probs(
                logits, batch["tokens"], batch["target_at"], batch["text_of"], count
            )
        return {"score": beta * (found["policy"] - found["reference"])}

    return score
