"""An encoder–decoder as a policy: each prompt is read once, and what packed rows say is what each text says alone.

The same texts come as texts of their own, as pairs and as samples of prompts; rows differ.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.data import language, pipeline
from rmjax.data.encode import Reader
from rmjax.data.language import Reads
from rmjax.data.records import Pair, Text
from rmjax.data.tokenizer import Tokenizer
from rmjax.models import presets
from rmjax.models.critics import Value
from rmjax.models.policy import Policy
from rmjax.models.transformer import LanguageModel, Source, Transformer
from rmjax.rl import packing
from rmjax.sampling.filters import Settings
from rmjax.sampling.generate import Samples, generate, padded, sample_keys
from rmjax.train import forward, state

TOKENIZER = Tokenizer.bytes()
CONFIG = presets.encoder_decoder(TOKENIZER.vocab_size, width=16, layers=2, max_positions=64)
TRANSFORMER = Transformer(CONFIG)
POLICY, MODEL = Policy(TRANSFORMER, critic=Value()), LanguageModel(TRANSFORMER)
READS = Reads(Reader(TOKENIZER, None, 10**6, True), (2,), encoder=True)
TEMPERATURE = 0.7
B, K, C = 6, 3, 5
RATIO = 2.0
TIGHT = packing.Bounds(B, 24, 12, K, 8, 8, 1, 1, 0, RATIO)
LOOSE = TIGHT._replace(row_length=64, places=24)
RNG = np.random.default_rng(0)


@functools.cache
def params():
    one = jnp.ones((1, 1), jnp.int32)
    made = state.flatten(
        jax.jit(POLICY.init)(jax.random.key(0), one, one - 1, one, one - 1)["params"]
    )
    # Far from uniform: what is read, and where, is to be seen in the numbers.
    return {path: x if path.endswith("scale") else 8 * x for path, x in made.items()}


def said(length):
    return "".join(chr(97 + i) for i in RNG.integers(0, 26, length))


def records(pairs):
    found = []
    for i in range(12):
        prompt, answers = said(1 + 3 * i % 17), [said(n) for n in RNG.integers(1, 15, 2)]
        pair = Pair(f"{i}", "d", "o", prompt, *answers)
        found.append(pair if pairs else Text(f"{i}", "d", "o", answers[0], prompt))
    return found


def samples_and_data():
    """K samples to each of B prompts, and texts of a data set behind them."""
    ids = language.prompts([said(n) for n in RNG.integers(1, 9, B)], READS, 12).ids
    lengths = RNG.integers(1, C + 1, (B, K)).astype(np.int32)
    tokens = RNG.integers(3, 259, (B, K, C)).astype(np.int32)
    made = Samples(tokens, np.zeros((B, K, C), np.float32), lengths, lengths < C)
    prompts = packing.Prompts(ids, np.arange(B), [""] * B, [""] * B)
    data = language.encode(records(pairs=False), READS, 40).examples
    data = packing.chosen(data, np.arange(12))
    return packing.joined(packing.as_examples(made, prompts, RATIO), data)


TEXTS = language.encode(records(pairs=False), READS, 40).examples
PAIRS = language.encode(records(pairs=True), READS, 40, compare=True).examples
ROLLOUT = samples_and_data()


def batch_of(examples):
    return pipeline.batches(examples, seed=0, epochs=1.0, batch_size=12)[0]


def numbered(examples, batch, rollout=False):
    """The number of each text by its (row, place)."""
    found = {}
    for row, place in np.argwhere(np.diff(batch["text_of"], prepend=-1, axis=1) != 0):
        text = int(batch["text_of"][row, place])
        if text == batch["score_at"].shape[1]:
            continue
        if rollout:
            number = int(batch["record"][row, text])
            number += 0 if batch["text_weight"][row, text] > 0 else B * K
        else:
            number = int(batch["text"][row, text])
        found[int(row), text] = number
    assert sorted(found.values()) == [*range(len(examples.tokens))]
    return found


def in_rows(texts):
    """tokens, positions and segments of texts, one a row."""
    tokens, segments = np.zeros((2, len(texts), max(map(len, texts))), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)], segments[row, : len(text)] = text, 1
    at = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    return tuple(map(jnp.asarray, (tokens, at, segments)))


def alone(trained, examples):
    """log p of each token after the first, each text a row of its own with its own prompt: [N, T - 1]."""
    tokens, *places = in_rows(examples.tokens)
    source = Source(*in_rows(examples.encoder_tokens))
    own = {k: x for k, x in trained.items() if not k.startswith("critic")}
    logits, _ = MODEL.apply(state.collections(own), tokens, *places, source=source)
    log_p = jax.nn.log_softmax(logits / TEMPERATURE)[:, :-1]
    return jnp.take_along_axis(log_p, tokens[:, 1:, None], axis=2)[..., 0]


FORWARD = forward.language(POLICY.apply, temperature=TEMPERATURE)
RUN = jax.jit(lambda trained, batch: FORWARD(trained, {}, batch, None))
CASES = {
    "texts": (TEXTS, lambda: batch_of(TEXTS)),
    "pairs": (PAIRS, lambda: batch_of(PAIRS)),
    "samples": (ROLLOUT, lambda: packing.lay(ROLLOUT, B, TIGHT)),
    "samples in long rows": (ROLLOUT, lambda: packing.lay(ROLLOUT, B, LOOSE)),
}


@pytest.mark.parametrize("case", CASES)
def test_log_probs_are_those_of_each_text_alone(case):
    examples, make = CASES[case]
    batch = make()
    assert batch["segments"].max() > 1 and batch["encoder_segments"].max() > 1  # packed
    found = RUN(params(), batch)
    want = np.asarray(jax.jit(lambda p: alone(p, examples))(params()))
    for (row, place), text in numbered(examples, batch, "samples" in case).items():
        at, length = batch["text_of"][row] == place, len(examples.tokens[text]) - 1
        np.testing.assert_allclose(found["log_probs"][row, at], want[text, :length], atol=1e-5)
        total = want[text, :length].sum()
        assert found["sequence_log_probs"][row, place] == pytest.approx(total, abs=5e-5)
        assert found["lengths"][row, place] == length
    assert np.ptp(want[:, 0]) > 1  # prompts tell


@pytest.mark.parametrize("case", ["pairs", "samples"])
def test_the_encoder_reads_a_shared_prompt_once(case):
    examples, make = CASES[case]
    batch = make()
    assert (batch["branches"] > 0).any()
    once = [int(group[0]) for group in examples.fixed]
    tokens = [examples.encoder_tokens[i] for i in once]
    read = batch["encoder_tokens"][batch["encoder_segments"] > 0]
    assert sorted(read) == sorted(np.concatenate(tokens))
    assert len(read) < sum(map(len, examples.encoder_tokens))
    for row, segments in enumerate(batch["encoder_segments"]):
        assert {*segments} - {0} == {*batch["segments"][row]} - {0}  # each decoder has its encoder


def gradient(examples, make, rollout):
    """Of a sum over tokens that each weigh differently, whatever row they are in."""
    batch = make()
    spread = np.zeros((len(examples.tokens), int(examples.lengths.max()) - 1), np.float32)
    spread[:] = np.random.default_rng(1).normal(size=spread.shape)
    weight = np.zeros(batch["text_of"].shape, np.float32)
    for (row, place), text in numbered(examples, batch, rollout).items():
        at = batch["text_of"][row] == place
        weight[row, at] = spread[text, : at.sum()]

    def total(p):
        return jnp.sum(RUN(p, jax.tree.map(jnp.asarray, batch))["log_probs"] * weight)

    def whole(p):
        counted = np.arange(spread.shape[1])[None] < examples.lengths[:, None] - 1
        return jnp.sum(jnp.where(counted, alone(p, examples) * spread, 0.0))

    return jax.jit(jax.grad(total))(params()), jax.jit(jax.grad(whole))(params())


@pytest.mark.parametrize("case", CASES)
def test_gradients_do_not_depend_on_packing(case):
    found, want = gradient(*CASES[case], "samples" in case)
    for path, value in want.items():
        size = max(float(jnp.abs(value).max()), 1.0)
        np.testing.assert_allclose(found[path] / size, value / size, atol=1e-5, err_msg=path)
    assert float(jnp.abs(want["transformer/encoder/blocks/up/kernel"]).max()) > 0.1


def test_what_was_sampled_is_what_training_computes():
    said_to = [said(n) for n in (1, 9, 4, 6, 2, 7)]
    ids = language.prompts(said_to, READS, 12).ids
    keys = sample_keys(jax.random.key(3), jnp.arange(B), K)
    settings = Settings(C, TEMPERATURE, stop_tokens=tuple(range(2, 60)))
    own = {k: x for k, x in params().items() if not k.startswith("critic")}
    given = padded(ids, 12, 0)
    made = generate(
        MODEL, state.collections(own), given["tokens"], given["lengths"], keys, settings
    )
    made = jax.tree.map(np.asarray, made)
    assert len({*made.lengths.ravel()}) > 1
    prompts = packing.Prompts(ids, np.arange(B), said_to, said_to)
    batch = packing.lay(packing.as_examples(made, prompts, RATIO), B, TIGHT._replace(data_rows=0))
    where = packing.Places.of(batch, B * K, C)
    found = RUN(params(), batch)
    got = where.unpack(np.asarray(found["log_probs"])).reshape(B, K, C)
    np.testing.assert_allclose(got, made.log_probs, atol=1e-4)
    assert found["values"].shape == batch["text_of"].shape  # a critic reads the decoder
