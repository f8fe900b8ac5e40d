"""Cached decoding is the whole pass, of every family; samples depend on their keys alone; what is drawn; ends."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rmjax.models import presets
from rmjax.models.transformer import LanguageModel, Source, Transformer
from rmjax.sampling import draw, generate
from rmjax.sampling.filters import Settings

VOCAB, B, P, K, C = 19, 3, 6, 2, 5
GPT = presets.decoder(VOCAB, 16, 2, 32)
LLAMA = dataclasses.replace(
    GPT, positions="rotary", rope_base=100.0, kv_heads=1, norm="rms", biases="none", gated=True, activation="silu",
)  # fmt: skip
FAMILIES = {
    "gpt2": GPT,
    "llama": LLAMA,
    "mistral": dataclasses.replace(LLAMA, windows=(3, 3)),
    "qwen3": dataclasses.replace(LLAMA, qk_norm=True, tied=False, biases="qkv"),
    "gemma3": dataclasses.replace(
        LLAMA, norm_at="both", windows=(3, 0), local_rope_base=10.0, embedding_scale=4.0, activation="gelu_tanh",
    ),
    "t5": dataclasses.replace(
        GPT, kind="encoder_decoder", positions="relative", relative_buckets=8, relative_distance=6, norm="rms",
        biases="none", activation="relu", attention_scale=1.0, logit_scale=0.25,
    ),
}  # fmt: skip
LENGTHS = jnp.array([6, 3, 1])
TOKENS = np.array(jax.random.randint(jax.random.key(5), (B, P), 1, VOCAB))
GREEDY = Settings(C, temperature=0.0)
SAMPLED = Settings(C, temperature=0.7, stop_tokens=(2, 3))  # one for most tests, as each compiles


@functools.cache
def make(name):
    """(model, variables moved from their start); layers are unrolled in one family and scanned in the others."""
    model = LanguageModel(Transformer(FAMILIES[name], unroll=2 if name == "gpt2" else 1))
    one = jnp.ones((1, 1), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(1), one, one, one)
    rng = np.random.default_rng(1)
    move = lambda x: jnp.asarray(x + 0.3 * rng.normal(size=x.shape), jnp.float32)
    return model, jax.tree.map(move, variables)


def run(name, settings, tokens=TOKENS, lengths=LENGTHS, ids=(0, 1, 2), samples=K, seed=0):
    keys = generate.sample_keys(jax.random.key(seed), jnp.array(ids), samples)
    made = generate.generate(*make(name), jnp.asarray(tokens), lengths, keys, settings)
    return jax.tree.map(np.asarray, made)


@functools.cache
def forward(name):
    return jax.jit(make(name)[0].apply)


def logits_after(name, prompt, completion):
    """Of each token of the completion, and of the one after: a whole pass without cache [.., V]."""
    _, variables = make(name)
    row = lambda x: jnp.asarray(x, jnp.int32)[None]
    if name == "t5":
        read = row(np.pad([0, *completion], (0, C - len(completion))))
        at = jnp.arange(C + 1)[None]
        source = Source(row(prompt), row(np.arange(len(prompt))), row(np.ones(len(prompt))))
        logits = forward(name)(variables, read, at, jnp.ones_like(read), source=source)[0]
        return np.asarray(logits[0, : len(completion) + 1])
    text = np.pad([*prompt, *completion], (0, P + C - len(prompt) - len(completion)))
    at = jnp.arange(P + C)[None]
    logits = forward(name)(variables, row(text), at, jnp.ones_like(at))[0]
    return np.asarray(logits[0, len(prompt) - 1 : len(prompt) + len(completion)])


def prompts():
    return [TOKENS[i, P - n :] for i, n in enumerate(LENGTHS)]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_decoding_is_that_of_whole_passes(name):
    made = run(name, GREEDY)
    for own, prompt in zip(made.tokens, prompts(), strict=True):
        found = []
        while len(found) < C:
            found.append(int(np.argmax(logits_after(name, prompt, found)[-1])))
        np.testing.assert_array_equal(own, [found] * K)


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probs_are_those_of_a_whole_pass(name):
    made = run(name, SAMPLED)
    for b, prompt in enumerate(prompts()):
        for k in range(K):
            n = made.lengths[b, k]
            own = made.tokens[b, k, :n]
            logits = logits_after(name, prompt, own.tolist())[:-1]
            want = jax.nn.log_softmax(logits / SAMPLED.temperature)[np.arange(n), own]
            np.testing.assert_allclose(made.log_probs[b, k, :n], want, rtol=1e-4, atol=1e-4)
    assert len(np.unique(made.tokens.reshape(-1, C), axis=0)) > B  # samples of a prompt differ


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "t5"])
def test_filters_leave_the_log_probs_of_the_policy(name):
    settings = Settings(C, 0.7, top_k=4, top_p=0.9, repetition_penalty=1.5)
    made = run(name, settings)
    for b, prompt in enumerate(prompts()):
        own = made.tokens[b, 0]
        logits = logits_after(name, prompt, own.tolist())[:-1]
        want = jax.nn.log_softmax(logits / 0.7)[np.arange(C), own]
        np.testing.assert_allclose(made.log_probs[b, 0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "t5"])
def test_samples_depend_on_prompt_and_id_alone(name):
    settings = SAMPLED
    made = run(name, settings)
    noise = TOKENS.copy()
    noise[1, : P - 3], noise[2, : P - 1] = 7, 11  # what stands in the padding
    longer = np.pad(noise, [(0, 0), (2, 0)])
    order = [2, 0]
    for other, rows in (
        (run(name, settings, noise), [0, 1, 2]),
        (run(name, settings, longer), [0, 1, 2]),
        (run(name, settings, TOKENS[order], LENGTHS[jnp.array(order)], tuple(order)), order),
    ):
        np.testing.assert_array_equal(other.tokens, made.tokens[rows])
        np.testing.assert_allclose(other.log_probs, made.log_probs[rows], rtol=1e-4, atol=1e-5)
    more = run(name, settings, samples=K + 1)
    np.testing.assert_array_equal(more.tokens[:, :K], made.tokens)
    assert np.any(run(name, settings, seed=1).tokens != made.tokens)
    assert np.any(run(name, settings, ids=(1, 1, 2)).tokens[0] != made.tokens[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_that_share_a_prompt_are_those_of_prompts_alone(name):
    settings = SAMPLED
    made = run(name, settings)
    keys = generate.sample_keys(jax.random.key(0), jnp.arange(B), K).reshape(B * K, 1)
    tokens, lengths = jnp.repeat(jnp.asarray(TOKENS), K, axis=0), jnp.repeat(LENGTHS, K)
    alone = generate.generate(*make(name), tokens, lengths, keys, settings)
    for shared, own in zip(made, alone, strict=True):
        own = np.asarray(own).reshape(shared.shape)
        np.testing.assert_allclose(shared, own, rtol=1e-4, atol=1e-5)


def test_a_completion_ends_with_its_stop_token_and_padding_follows():
    settings = Settings(12, temperature=1.5, stop_tokens=(2, 3, 5), pad_token=17)
    made = run("gpt2", settings, samples=20)
    assert 0 < made.stopped.mean() < 1
    after = np.arange(12) >= made.lengths[..., None]
    assert np.all(made.tokens[after] == 17) and not made.log_probs[after].any()
    assert np.all(made.log_probs[~after] < 0)
    last = np.take_along_axis(made.tokens, made.lengths[..., None] - 1, axis=-1)[..., 0]
    stop = np.isin(made.tokens, settings.stop_tokens) & ~after
    np.testing.assert_array_equal(stop.any(-1), made.stopped)
    assert np.all(np.isin(last, settings.stop_tokens) == made.stopped)
    assert np.all(stop.sum(-1) <= 1) and np.all(made.lengths[~made.stopped] == 12)


def test_no_stop_token_comes_before_the_minimum():
    settings = Settings(8, stop_tokens=tuple(range(10)), min_new_tokens=4)
    made = run("llama", settings, samples=20)
    assert made.stopped.any() and made.lengths.min() == 5
    assert run("llama", settings._replace(min_new_tokens=0), samples=20).lengths.min() < 5


def test_decoding_stops_where_enough_rows_have_ended_and_goes_on_from_there():
    model, variables = make("gpt2")
    settings = Settings(12, stop_tokens=tuple(range(6)))
    keys = generate.sample_keys(jax.random.key(0), jnp.arange(B), K)
    weights = generate.layered(variables, "float32")
    compiled = jax.jit(generate.decode, static_argnames=("model", "settings"))
    state = generate.start(model, weights, jnp.asarray(TOKENS), LENGTHS, keys, settings)
    want = run("gpt2", settings)
    ends = np.sort(want.lengths.max(axis=1))
    assert ends[0] < ends[-1] < 12  # else the next lines show nothing
    for enough in (1, 2, 3):
        state = compiled(model, weights, state, settings, enough)
        assert (int(state.cache["length"]) - (P - 1)) // K == ends[enough - 1]
    for got, whole in zip(state.samples, want, strict=True):
        np.testing.assert_allclose(got, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(1),
        Settings(1, temperature=0.6),
        Settings(1, temperature=1.3, top_k=4),
        Settings(1, top_p=0.7),
        Settings(1, min_p=0.2),
    ],
    ids=str,
)
def test_tokens_are_drawn_by_their_probabilities(settings):
    count = 4000
    tokens = run("gpt2", settings, samples=count).tokens[0, :, 0]
    logits = logits_after("gpt2", prompts()[0], [])[-1].astype(np.float64) / settings.temperature
    shares = np.exp(logits - logits.max())
    order = np.argsort(-shares)
    if settings.top_k:
        shares[order[settings.top_k :]] = 0
    if settings.top_p < 1:
        total = np.cumsum(shares[order]) / shares.sum()
        shares[order[1 + np.searchsorted(total, settings.top_p) :]] = 0
    shares[shares < settings.min_p * shares.max()] = 0
    shares /= shares.sum()
    seen = np.bincount(tokens, minlength=VOCAB)
    assert not seen[shares == 0].any()
    common = shares * count >= 5
    pool = lambda x: np.append(x[common], x[~common].sum())
    expected, found = pool(shares * count), pool(seen)
    expected, found = expected[expected > 0], found[expected > 0]
    assert len(expected) > 1
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-3


def test_draws_over_many_lanes_are_by_weight():
    vocabulary, count = 300, 20_000
    logits = np.random.default_rng(0).normal(size=vocabulary) * 1.5
    weights = draw.weigh(jnp.asarray(logits, jnp.float32)[None])
    np.testing.assert_allclose(draw.log_total(weights)[0], np.log(np.exp(logits).sum()), rtol=1e-6)
    weights = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), weights)
    keys = jax.random.split(jax.random.key(0), count)
    found = np.bincount(draw.categorical(keys, weights), minlength=vocabulary)
    shares = np.exp(logits) / np.exp(logits).sum()
    common = shares * count >= 5
    pool = lambda x: np.append(x[common], x[~common].sum())
    assert stats.chisquare(pool(found), pool(shares * count)).pvalue > 1e-3


def test_repetition_penalty_sees_the_prompt_and_what_was_drawn():
    settings = Settings(12, temperature=0.0, repetition_penalty=50.0)
    made = run("gpt2", settings)
    plain = run("gpt2", settings._replace(repetition_penalty=1.0))
    distinct = lambda x: len(set(x.tolist()))
    for b, prompt in enumerate(prompts()):
        assert distinct(made.tokens[b, 0]) > distinct(plain.tokens[b, 0])
        first = logits_after("gpt2", prompt, [])[-1].copy()
        first[prompt] = np.where(first > 0, first / 50, first * 50)[prompt]
        assert made.tokens[b, 0, 0] == np.argmax(first)


def test_prompts_are_padded_on_the_left():
    batch = generate.padded([np.array([5]), np.array([6, 7, 8])], 3, 9)
    assert batch["tokens"].tolist() == [[9, 9, 5], [6, 7, 8]]
    assert batch["lengths"].tolist() == [1, 3] and batch["tokens"].dtype == np.int32


def test_what_cannot_be_generated_is_refused():
    with pytest.raises(ValueError, match="38 tokens together; the model has 32 positions"):
        run("gpt2", Settings(32))
    run("llama", Settings(27, temperature=0.0))  # 33 tokens: no table ends
    with pytest.raises(ValueError, match="top_p must be in"):
        run("gpt2", Settings(4, top_p=0.0))
    encoder = LanguageModel(Transformer(dataclasses.replace(GPT, kind="encoder")))
    keys = generate.sample_keys(jax.random.key(0), jnp.arange(B), K)
    with pytest.raises(ValueError, match="an encoder cannot generate"):
        generate.generate(encoder, make("gpt2")[1], jnp.asarray(TOKENS), LENGTHS, keys, GREEDY)


@pytest.mark.parametrize(("name", "kept"), [("gpt2", jnp.float32), ("llama", jnp.bfloat16)])
def test_a_cache_is_bfloat16_where_a_cpu_writes_that_in_place(name, kept):
    _, variables = make(name)
    half = LanguageModel(Transformer(FAMILIES[name], "bfloat16"))
    keys = generate.sample_keys(jax.random.key(0), jnp.arange(B), K)
    begin = lambda v: generate.start(
        half, generate.layered(v, "bfloat16"), jnp.asarray(TOKENS), LENGTHS, keys, GREEDY
    )
    cache = jax.eval_shape(begin, variables).cache
    assert {x.dtype for name in ("key", "value") for x in cache[name]} == {jnp.dtype(kept)}
