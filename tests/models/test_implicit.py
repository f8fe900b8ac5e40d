"""The implicit reward is the difference of log-probabilities of each packed text, whatever it is packed with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.models import implicit, presets
from rmjax.models.transformer import LanguageModel, Transformer

VOCAB = 20
CONFIG = presets.decoder(VOCAB, 8, 1, 16)
# Two rows of texts of 4, 3 and 5, 2 tokens; the last slot of a row holds none.
SEGMENTS = jnp.array([[1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 2, 2, 0]])
POSITIONS = jnp.array([[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 2, 3, 4, 0, 1, 0]])
ENDS = jnp.array([[3, 6], [4, 6]])
# The tokens to predict of each text: from its third, second, fourth and second on; no text is number 2.
TARGETS = jnp.array([[2, 3, 5, 6], [3, 4, 6, 0]])
TEXTS = jnp.array([[0, 0, 1, 1], [0, 0, 1, 2]])
FIRST = np.array([[2, 1], [3, 1]])


def test_scores_are_those_of_each_completion_alone():
    module = LanguageModel(Transformer(CONFIG))
    tokens = jax.random.randint(jax.random.key(0), SEGMENTS.shape, 0, VOCAB)
    policy, reference = (
        jax.tree.map(lambda x: 5 * x, module.init(jax.random.key(i), tokens, POSITIONS, SEGMENTS)["params"])
        for i in range(2)
    )  # fmt: skip
    score = implicit.create(module, module, beta=0.3)
    variables = {"params": {"policy": policy, "reference": reference}}
    batch = {"tokens": tokens, "positions": POSITIONS, "segments": SEGMENTS, "score_at": ENDS}
    got = score(variables, batch | {"target_at": TARGETS, "text_of": TEXTS})["score"]
    for row, place in np.ndindex(2, 2):
        own = tokens[row][SEGMENTS[row] == place + 1][None]
        at, one = jnp.arange(own.shape[1])[None], jnp.ones_like(own)
        want = 0.0
        for params, sign in ((policy, 1), (reference, -1)):
            logits, _ = module.apply({"params": params}, own, at, one)
            log_probs = np.asarray(jax.nn.log_softmax(logits[0], axis=-1), np.float64)
            want += sign * sum(
                log_probs[t - 1, own[0, t]] for t in range(FIRST[row, place], own.shape[1])
            )
        np.testing.assert_allclose(got[row, place], 0.3 * want, rtol=1e-4, atol=1e-5)


def test_what_is_no_policy_is_refused():
    module = LanguageModel(Transformer(CONFIG))
    encoder = LanguageModel(Transformer(dataclasses.replace(CONFIG, kind="encoder")))
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        implicit.create(module, module, beta=0.0)
    with pytest.raises(ValueError, match="the reference is no causal language model"):
        implicit.create(module, encoder, beta=0.1)
