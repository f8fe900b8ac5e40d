"""Beam search finds what looking at every completion finds, and with one beam is greedy decoding."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.models import presets
from rmjax.models.transformer import LanguageModel, Transformer
from rmjax.sampling import beam, generate
from rmjax.sampling.filters import Settings

VOCAB, C, STOPS = 4, 3, (1, 3)
TOKENS = jnp.array([[2, 0, 1], [3, 3, 2]])
LENGTHS = jnp.array([3, 1])


@functools.cache
def make():
    model = LanguageModel(Transformer(presets.decoder(VOCAB, 8, 1, 16)))
    one = jnp.ones((1, 1), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(1), one, one, one)
    rng = np.random.default_rng(3)
    move = lambda x: jnp.asarray(x + 0.5 * rng.normal(size=x.shape), jnp.float32)
    return model, jax.tree.map(move, variables)


@functools.cache
def forward():
    return jax.jit(make()[0].apply)


def every_completion(prompt):
    """{completion: log p}: those that stop by a stop token, and those of C tokens."""
    _, variables = make()
    going = [t for t in range(VOCAB) if t not in STOPS]
    ended = [
        (*start, stop) for n in range(C) for start in itertools.product(going, repeat=n) for stop in STOPS
    ]  # fmt: skip
    found = {}
    for own in [*ended, *itertools.product(going, repeat=C)]:
        text = np.pad([*prompt, *own], (0, 3 + C - len(prompt) - len(own)))  # one shape
        at = jnp.arange(len(text))[None]
        logits = forward()(variables, jnp.asarray(text)[None], at, jnp.ones_like(at))[0]
        log_probs = np.asarray(jax.nn.log_softmax(logits[0]))
        found[own] = sum(log_probs[len(prompt) - 1 + i, t] for i, t in enumerate(own))
    assert np.exp(list(found.values())).sum() == pytest.approx(1, abs=1e-5)
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_a_wide_search_is_exhaustive(penalty):
    wide = 8
    made = beam.search(
        *make(), TOKENS, LENGTHS, beams=wide, max_new_tokens=C, stop_tokens=STOPS, length_penalty=penalty
    )  # fmt: skip
    for b, n in enumerate(LENGTHS):
        every = every_completion(TOKENS[b, 3 - n :].tolist())
        score = {own: p / ((5 + len(own)) / 6) ** penalty for own, p in every.items()}
        for w, own in enumerate(sorted(score, key=lambda own: -score[own])[:wide]):
            length = int(made.lengths[b, w])
            assert tuple(made.tokens[b, w, :length].tolist()) == own
            assert not made.tokens[b, w, length:].any()
            assert bool(made.stopped[b, w]) == (own[-1] in STOPS)
            np.testing.assert_allclose(made.log_probs[b, w], every[own], rtol=1e-4)
            np.testing.assert_allclose(made.scores[b, w], score[own], rtol=1e-4)


@pytest.mark.parametrize("stops", [(), STOPS])
def test_one_beam_is_greedy(stops):
    made = beam.search(*make(), TOKENS, LENGTHS, beams=1, max_new_tokens=8, stop_tokens=stops)
    keys = generate.sample_keys(jax.random.key(0), jnp.arange(2), 1)
    settings = Settings(8, temperature=0.0, stop_tokens=stops)
    greedy = generate.generate(*make(), TOKENS, LENGTHS, keys, settings)
    np.testing.assert_array_equal(made.tokens, greedy.tokens)
    np.testing.assert_array_equal(made.lengths, greedy.lengths)
    np.testing.assert_array_equal(made.stopped, greedy.stopped)
    np.testing.assert_allclose(made.log_probs, greedy.log_probs.sum(-1), rtol=1e-4)


def test_what_was_not_found_is_said_so():
    made = beam.search(
        *make(), TOKENS, LENGTHS, beams=8, max_new_tokens=1, stop_tokens=STOPS
    )  # there are four completions of one token
    np.testing.assert_array_equal(made.lengths, [[1] * 4 + [0] * 4] * 2)
    assert np.all(np.isneginf(made.scores[:, 4:])) and not made.tokens[:, 4:].any()
    assert set(made.tokens[0, :4, 0].tolist()) == set(range(VOCAB))


def test_values_outside_their_range_are_refused():
    search = functools.partial(beam.search, *make(), TOKENS, LENGTHS)
    with pytest.raises(ValueError, match="beams must be at least 1"):
        search(beams=0, max_new_tokens=3)
    with pytest.raises(ValueError, match="length_penalty must not be negative"):
        search(beams=2, max_new_tokens=3, length_penalty=-1.0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        search(beams=2, max_new_tokens=0)
