"""The Config's switches beyond those of the small presets: cache, branches, windows, rotation, adapters, T5."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.models import positions, presets
from rmjax.models.layers import Adapter
from rmjax.models.transformer import LanguageModel, Source, Transformer, empty_cache

R, T, VOCAB = 2, 9, 30
TOKENS = jax.random.randint(jax.random.key(0), (R, T), 0, VOCAB)
POSITIONS = jnp.tile(jnp.arange(T), (R, 1))
ONE = jnp.ones((R, T), jnp.int32)
SMALL = presets.decoder(VOCAB, 16, 3, 16)
ROTARY = dataclasses.replace(
    SMALL, positions="rotary", rope_base=100.0, kv_heads=1, norm="rms", biases="none", gated=True,
    activation="silu", qk_norm=True, windows=(3, 0, 3), local_rope_base=10.0, norm_at="both", embedding_scale=2.0,
    tied=False, rope_scaling=(2.0,),
)  # fmt: skip
T5 = dataclasses.replace(
    SMALL, kind="encoder_decoder", positions="relative", relative_buckets=8, relative_distance=6, norm="rms",
    biases="none", activation="relu", attention_scale=1.0, logit_scale=0.25,
)  # fmt: skip
CONFIGS = {"learned": SMALL, "rotary": ROTARY, "relative": T5}
LORA = Adapter(rank=2, scale=0.5, dropout=0.0, targets="(query|value|down)$")


def make(config, **options):
    """(variables moved from their start, the compiled apply) of a language model."""
    module = LanguageModel(Transformer(config, **options))
    variables = jax.jit(module.init)(jax.random.key(1), TOKENS, POSITIONS, ONE)
    rng = np.random.default_rng(1)
    variables["params"] = jax.tree.map(
        lambda x: jnp.asarray(x + 0.3 * rng.normal(size=x.shape), jnp.float32), variables["params"]
    )
    return variables, jax.jit(module.apply)


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_pass(name):
    config = CONFIGS[name]
    variables, apply = make(config)
    source = Source(TOKENS[:, ::-1], POSITIONS, ONE) if name == "relative" else None
    whole, none = apply(variables, TOKENS, POSITIONS, ONE, source=source)
    assert none is None
    cache, found = empty_cache(config, R, T + 3), []
    for start, stop in ((0, 4), *((t, t + 1) for t in range(4, T))):
        part = (x[:, start:stop] for x in (TOKENS, POSITIONS, ONE))
        logits, cache = apply(variables, *part, source=source, cache=cache)
        source = None  # the cache keeps what the encoder made of it
        found.append(logits)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole, rtol=1e-4, atol=1e-5)


def test_a_cache_of_rows_padded_on_the_left_is_that_of_the_texts_alone():
    variables, apply = make(ROTARY)
    short = 3  # tokens of row 1, which stand at the end of the first six
    segments = ONE.at[1, : 6 - short].set(0)
    places = POSITIONS.at[1].set(jnp.maximum(POSITIONS[1] - (6 - short), 0))
    cache, found = empty_cache(ROTARY, R, T), []
    for start, stop in ((0, 6), (6, 7), (7, 8)):
        part = (x[:, start:stop] for x in (TOKENS, places, segments))
        logits, cache = apply(variables, *part, cache=cache)
        found.append(logits)
    own = TOKENS[1:, 6 - short : 8]
    alone, _ = apply(variables, own, POSITIONS[1:, : own.shape[1]], jnp.ones_like(own))
    got = jnp.concatenate(found, axis=1)[1, 6 - short :]
    np.testing.assert_allclose(got, alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [SMALL, ROTARY], ids=["learned", "rotary"])
def test_completions_after_a_shared_prompt_are_as_if_each_followed_it_alone(config):
    variables, apply = make(config)
    prompt, first, second = (np.asarray(TOKENS[0, a:b]) for a, b in ((0, 4), (4, 6), (6, 9)))
    branches = np.repeat([0, 1, 2], [4, 2, 3])
    places = np.concatenate([np.arange(4), 4 + np.arange(2), 4 + np.arange(3)])
    row = [jnp.asarray(x)[None] for x in (TOKENS[0], places)]
    shared, _ = apply(variables, *row, ONE[:1], branches=jnp.asarray(branches)[None])
    for branch, own in ((1, first), (2, second)):
        text = jnp.asarray(np.concatenate([prompt, own]))[None]
        at = jnp.arange(text.shape[1])[None]
        alone, _ = apply(variables, text, at, jnp.ones_like(text))
        np.testing.assert_allclose(
            shared[0, branches == branch], alone[0, 4:], rtol=1e-4, atol=1e-5
        )


def test_a_window_hides_what_lies_further_back():
    config = dataclasses.replace(ROTARY, windows=(3, 3, 3))
    variables, apply = make(config)
    before = apply(variables, TOKENS, POSITIONS, ONE)[0]
    after = apply(variables, TOKENS.at[:, 0].add(1) % VOCAB, POSITIONS, ONE)[0]
    reached = np.any(np.asarray(before != after), axis=(0, 2))
    np.testing.assert_array_equal(reached, np.arange(T) <= 6)  # three layers of two tokens back


def test_rotated_products_depend_on_distance_alone():
    x, y = jax.random.normal(jax.random.key(3), (2, 1, T, 1, 6))
    at = jnp.tile(jnp.array([[4]]), (1, T))
    turn = lambda where: positions.rotations(where, 6, 100.0, (), 0.0)(None)
    product = lambda shift: jnp.sum(
        positions.rotate(x, turn(POSITIONS[:1] + shift)) * positions.rotate(y, turn(at + shift)), -1
    )
    np.testing.assert_allclose(product(0), product(7), atol=1e-4)
    assert np.abs(product(0) - jnp.sum(x * y, -1)).max() > 0.1


def test_rope_scalings_are_the_formulas():
    plain = positions.frequencies(10_000.0, 64, ())
    np.testing.assert_allclose(plain, 10_000.0 ** (-np.arange(32) / 32), rtol=1e-6)
    np.testing.assert_allclose(positions.frequencies(10_000.0, 64, (4.0,)), plain / 4, rtol=1e-6)
    scaled = positions.frequencies(10_000.0, 64, (8.0, 1.0, 4.0, 512.0))
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(scaled[wavelength < 128], plain[wavelength < 128], rtol=1e-6)
    np.testing.assert_allclose(scaled[wavelength > 512], plain[wavelength > 512] / 8, rtol=1e-6)
    between = (wavelength > 128) & (wavelength < 512)
    ratio = (scaled / plain)[between]
    assert between.sum() > 2 and np.all((ratio > 1 / 8) & (ratio < 1))


def test_relative_buckets_are_exact_near_and_logarithmic_far():
    table = jnp.arange(8.0)[:, None]
    back = jnp.arange(12)[None, :, None] - jnp.arange(12)[None, None, :]
    bias = np.asarray(positions.relative_bias(table, back, 8, causal=True))[0, 0]
    np.testing.assert_array_equal(bias[11], [7, 7, 7, 7, 7, 6, 5, 4, 3, 2, 1, 0])
    assert not bias[0].any()  # what lies ahead is of no concern
    bias = np.asarray(positions.relative_bias(table, back, 8, causal=False))[0, 0]
    np.testing.assert_array_equal(bias[4, :9], [3, 2, 2, 1, 0, 5, 6, 6, 7])


def test_a_t5_reads_its_own_texts_one_token_late():
    variables, apply = make(T5)
    segments = jnp.array([[1] * 4 + [2] * 5, [1] * 6 + [0] * 3])
    places = jnp.array([[*range(4), *range(5)], [*range(6), 0, 0, 0]])
    packed = apply(variables, TOKENS, places, segments)[0]
    text, at = TOKENS[:1, 4:], POSITIONS[:1, :5]
    late = jnp.concatenate([jnp.zeros((1, 1), jnp.int32), text[:, :-1]], axis=1)
    source = Source(text, at, jnp.ones_like(text))
    alone = apply(variables, late, at, jnp.ones_like(text), source=source)[0]
    np.testing.assert_allclose(packed[0, 4:], alone[0], rtol=1e-4, atol=1e-5)


def test_a_fresh_adapter_changes_nothing_and_a_trained_one_is_its_product():
    plain, run = make(ROTARY)
    variables, adapted = make(ROTARY, adapter=LORA)
    variables |= plain
    names = {"query", "value"}
    assert variables["lora"]["transformer"]["blocks"]["attention"].keys() == names
    inputs = (TOKENS, POSITIONS, ONE)
    fresh = adapted(variables, *inputs)[0]
    np.testing.assert_array_equal(fresh, run(plain, *inputs)[0])
    rng = np.random.default_rng(2)
    lora = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), variables["lora"]
    )
    got = adapted(variables | {"lora": lora}, *inputs)[0]
    blocks, thin = plain["params"]["transformer"]["blocks"], lora["transformer"]["blocks"]
    for own, pair in (
        *((blocks["attention"][n], thin["attention"][n]) for n in names),
        (blocks["down"], thin["down"]),
    ):
        own["kernel"] = own["kernel"] + 0.5 * jnp.einsum("ldr,lrf->ldf", pair["a"], pair["b"])
    want = run(plain, *inputs)[0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    assert np.abs(got - fresh).max() > 0.1


def test_an_adapters_dropout_is_on_its_own_product_alone():
    config = dataclasses.replace(LORA, dropout=0.5)
    variables, apply = make(SMALL, adapter=config)
    inputs, row = (TOKENS, POSITIONS, ONE), jnp.array([1, 2])
    on = lambda v: apply(v, *inputs, row, rngs={"dropout": jax.random.key(0)})[0]
    np.testing.assert_array_equal(on(variables), apply(variables, *inputs)[0])  # 0 times anything
    moved = variables | {"lora": jax.tree.map(lambda x: x + 0.2, variables["lora"])}
    assert np.abs(on(moved) - apply(moved, *inputs)[0]).max() > 1e-2


def test_a_float32_cache_under_bfloat16_products_holds_what_those_round_to():
    variables, apply = make(ROTARY, dtype="bfloat16")
    caches = [empty_cache(ROTARY, R, T, dtype) for dtype in ("float32", "bfloat16")]
    (wide, kept), (half, want) = (
        apply(variables, TOKENS, POSITIONS, ONE, cache=cache) for cache in caches
    )
    for name in ("key", "value"):
        assert kept[name].dtype == jnp.float32
        rounded = kept[name][0].astype(jnp.bfloat16)  # the first layer's, before any sums differ
        np.testing.assert_array_equal(kept[name][0], rounded.astype(jnp.float32))
        np.testing.assert_array_equal(rounded, want[name][0])
    np.testing.assert_allclose(wide, half, atol=5e-2)
