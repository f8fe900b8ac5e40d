"""Decoder families agree with the reference implementation, padded, packed and cached; real weights continue a text."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax import assets
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import gguf, presets, safetensors
from rmjax.models.transformer import LanguageModel, Transformer, empty_cache
from rmjax.train.state import collections

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES = sorted(path.name for path in (GOLDEN / "families").iterdir())


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """(config, variables, golden numbers, the compiled apply)."""
    folder = GOLDEN / "families" / request.param
    config, weights, _ = safetensors.load(folder)
    golden = np.load(folder / "golden.npz")
    apply = jax.jit(LanguageModel(Transformer(config)).apply)
    return config, collections(weights), golden, apply


def places(tokens):
    return jnp.tile(jnp.arange(tokens.shape[1]), (len(tokens), 1)), jnp.ones_like(tokens)


def test_families_are_those_the_loader_knows():
    assert {"bert", *FAMILIES} == set(safetensors.FAMILIES)


def test_logits_and_hidden_states_are_the_references(family):
    config, variables, golden, apply = family
    tokens = jnp.asarray(golden["tokens"])
    logits, _ = apply(variables, tokens, *places(tokens))
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4)
    own = {"params": variables["params"]["transformer"]}
    hidden, _ = jax.jit(Transformer(config).apply)(own, tokens, *places(tokens))
    np.testing.assert_allclose(hidden, golden["hidden"], rtol=1e-4, atol=1e-4)


def test_packed_and_padded_rows_give_the_same(family):
    _, variables, golden, apply = family
    tokens = golden["tokens"]
    count = tokens.shape[1]
    row = jnp.asarray(np.concatenate([tokens[0], tokens[1], np.full(5, 7)]))[None]
    segments = jnp.asarray(np.repeat([1, 2, 0], [count, count, 5]))[None]
    positions = jnp.asarray(np.concatenate([np.arange(count)] * 2 + [np.zeros(5, int)]))[None]
    logits = np.asarray(apply(variables, row, positions, segments)[0])[0, : 2 * count]
    want = golden["logits"].reshape(2 * count, -1)
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4)


def test_decoding_with_a_cache_gives_the_same(family):
    config, variables, golden, apply = family
    tokens = jnp.asarray(golden["tokens"])
    at, segments = places(tokens)
    cache, found = empty_cache(config, *tokens.shape), []
    for start, stop in ((0, 12), *((t, t + 1) for t in range(12, tokens.shape[1]))):
        part = (x[:, start:stop] for x in (tokens, at, segments))
        logits, cache = apply(variables, *part, cache=cache)
        found.append(logits)
    got = jnp.concatenate(found, axis=1)
    np.testing.assert_allclose(got, golden["logits"], rtol=1e-4, atol=1e-4)


def test_smollm2_continues_a_text_as_the_reference_does():
    golden = np.load(GOLDEN / "smollm2.npz")
    stored = gguf.load(next(assets.folder("smollm2").glob("*.gguf")))
    prompt = Tokenizer.from_json(stored.tokenizer).encode([str(golden["text"])], 64)[0]
    np.testing.assert_array_equal(prompt, golden["tokens"])
    variables = collections({k: jnp.asarray(w) for k, w in stored.weights.items()})
    apply = jax.jit(LanguageModel(Transformer(stored.config)).apply)
    tokens, found = jnp.asarray(prompt)[None], []
    at, cache = jnp.arange(tokens.shape[1])[None], empty_cache(stored.config, 1, 64)
    while len(found) < 32:
        logits, cache = apply(variables, tokens, at, jnp.ones_like(tokens), cache=cache)
        found.append(int(jnp.argmax(logits[0, -1])))
        tokens, at = jnp.array([[found[-1]]]), at[:, -1:] + 1
    assert found == golden["continued"].tolist()


def test_what_a_block_does_not_compute_is_refused():
    hf = json.loads((GOLDEN / "families/llama/config.json").read_text())
    for changes, message in (
        ({"attention_bias": True}, "attention_bias is not supported"),
        ({"hidden_act": "gelu"}, "'gelu' is not 'silu'"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
            "'yarn' is none of default",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            presets.llama(hf | changes)


def test_older_configs_say_rotation_and_windows_otherwise():
    hf = json.loads((GOLDEN / "families/llama/config.json").read_text())
    base = hf["rope_parameters"].pop("rope_theta")
    older = hf | {"rope_theta": base, "rope_scaling": hf.pop("rope_parameters")}
    older.pop("rope_parameters", None)
    new = json.loads((GOLDEN / "families/llama/config.json").read_text())
    assert presets.llama(older) == presets.llama(new)
    linear = older | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    assert presets.llama(linear).rope_scaling == (2.0,)
    qwen = json.loads((GOLDEN / "families/qwen2/config.json").read_text())
    qwen.pop("layer_types", None)
    sliding = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    assert presets.llama(qwen | sliding).windows == (0, 4)


def test_a_file_that_is_no_gguf_is_named(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model" * 10)
    with pytest.raises(UserError, match=r"model\.gguf: cannot be read as GGUF"):
        gguf.load(path)
