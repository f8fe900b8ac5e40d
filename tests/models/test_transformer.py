"""The transformer against a float64 loop; causality, packing, dropout, rematerialization."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rmjax.models import presets
from rmjax.models.transformer import Transformer
from rmjax.train.state import flatten

R, T, VOCAB = 2, 10, 30
CONFIGS = {
    "encoder": dataclasses.replace(presets.encoder(VOCAB, 8, 2, T), token_types=2),
    "decoder": presets.decoder(VOCAB, 8, 2, T),
}
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (R, T))
SEGMENTS = np.array([[1] * 4 + [2] * 5 + [0], [1] * 7 + [0] * 3])
POSITIONS = np.array([[*range(4), *range(5), 0], [*range(7), 0, 0, 0]])


def make(name, **options):
    """(parameters moved from their start, a compiled apply)."""
    module = Transformer(CONFIGS[name], **options)
    inputs = [jnp.zeros((1, 1), jnp.int32)] * 3
    params = jax.jit(module.init)(jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: jnp.array(x + 0.3 * rng.normal(size=x.shape), jnp.float32), params
    )
    return params, jax.jit(module.apply)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    params, apply = make(request.param)
    run = lambda tokens, positions=POSITIONS, segments=SEGMENTS: np.asarray(
        apply(params, *map(jnp.asarray, (tokens, positions, segments)))[0]
    )
    return CONFIGS[request.param], params, run


def reference(config, params, tokens):
    """Hidden states of one text [T, D], without scan, masks or packing."""
    p = {k: np.asarray(x, np.float64) for k, x in flatten(params["params"]).items()}

    def norm(x, at, layer=...):
        scale, bias = p[f"{at}/scale"][layer], p[f"{at}/bias"][layer]
        y = x - x.mean(-1, keepdims=True)
        return y / np.sqrt((y**2).mean(-1, keepdims=True) + config.norm_eps) * scale + bias

    def dense(x, at, i):
        return x @ p[f"blocks/{at}/kernel"][i] + p[f"blocks/{at}/bias"][i]

    def attention(x, i):
        split = lambda at: dense(x, f"attention/{at}", i).reshape(len(x), config.heads, -1)
        q, k, v = (split(at) for at in ("query", "key", "value"))
        logits = np.einsum("the,she->hts", q, k) / np.sqrt(q.shape[-1])
        if config.kind == "decoder":
            logits = np.where(np.tri(len(x)), logits, -np.inf)
        mixed = np.einsum("hts,she->the", special.softmax(logits, axis=-1), v)
        return dense(mixed.reshape(len(x), -1), "attention/output", i)

    def mlp(x, i):
        h = dense(x, "up", i)
        smooth = special.ndtr(h) if config.activation == "gelu" else (
            0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        )  # fmt: skip
        return dense(h * smooth, "down", i)

    x = p["tokens"][tokens] + p["positions"][np.arange(len(tokens))]
    if config.norm_at == "post":
        x = norm(x + p["types"][0], "embedding_norm")
    for i in range(config.layers):
        for at, part in (("blocks/attention_norm", attention), ("blocks/mlp_norm", mlp)):
            x = (
                x + part(norm(x, at, i), i)
                if config.norm_at == "pre"
                else norm(x + part(x, i), at, i)
            )
    return norm(x, "final_norm") if config.norm_at == "pre" else x


def test_packed_texts_are_those_of_the_reference_alone(model):
    config, params, run = model
    hidden = run(TOKENS)
    for row, segment in ((0, 1), (0, 2), (1, 1)):
        own = SEGMENTS[row] == segment
        want = reference(config, params, TOKENS[row, own])
        np.testing.assert_allclose(hidden[row, own], want, rtol=1e-4, atol=1e-4)


def test_a_token_reaches_its_own_text_only_and_in_a_decoder_nothing_before(model):
    config, _, run = model
    before = run(TOKENS)
    at = 6  # of the second text of row 0, which is tokens 4 to 8
    tokens = TOKENS.copy()
    tokens[0, at] = (tokens[0, at] + 1) % VOCAB
    changed = np.any(run(tokens) != before, axis=-1)
    want = np.zeros((R, T), bool)
    want[0, (at if config.kind == "decoder" else 4) : 9] = True
    np.testing.assert_array_equal(changed[SEGMENTS > 0], want[SEGMENTS > 0])


def test_what_padding_holds_is_not_seen(model):
    _, _, run = model
    other = np.where(SEGMENTS == 0, 17, TOKENS)
    hidden, want = run(other), run(TOKENS)
    np.testing.assert_array_equal(hidden[SEGMENTS > 0], want[SEGMENTS > 0])
    assert np.all(np.isfinite(hidden))


def dropped(**options):
    """(parameters, f(parameters, row ids) -> hidden states) of a decoder."""
    params, apply = make("decoder", **options)
    inputs = [jnp.asarray(x) for x in (TOKENS, POSITIONS, SEGMENTS)]
    rngs = {"dropout": jax.random.key(0)}
    return params, lambda params, row: apply(params, *inputs, row, rngs=rngs)[0]


def gradient(**options):
    params, hidden = dropped(dropout=0.2, **options)
    at = jnp.cos(jnp.arange(R * T * 8.0)).reshape(R, T, 8)
    total = lambda params: jnp.sum(hidden(params, jnp.array([3, 8])) * at)
    return jax.jit(jax.value_and_grad(total))(params)


def test_remat_and_unrolling_change_no_gradient_dropout_included():
    got, want = gradient(remat=True, unroll=2), gradient()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), got, want)


def test_dropout_is_by_row_id_and_off_without():
    params, hidden = dropped(dropout=0.2)
    run = lambda row: np.asarray(hidden(params, row if row is None else jnp.array(row)))
    on, moved, without = run([3, 8]), run([8, 8]), run(None)
    np.testing.assert_array_equal(on[1], moved[1])
    assert np.abs(on[0] - moved[0]).max() > 1e-2
    assert np.abs(on - without).max(axis=(1, 2)).min() > 1e-2
    params, hidden = dropped(dropout=0.0)
    np.testing.assert_array_equal(without, run([3, 8]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, "heads 2 is not a multiple of kv_heads 3"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"windows": (0,)}, "windows has 1 numbers for 2 layers"),
        ({"positions": "rotary"}, "positive rope_base"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIGS["decoder"], **changes)
