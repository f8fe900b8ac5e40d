"""Every family agrees with the reference implementation, padded, packed and cached; real weights continue a text."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from rmjax import assets
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import gguf, heads, names, presets, safetensors
from rmjax.models.transformer import LanguageModel, Source, Transformer, empty_cache
from rmjax.train.state import collections

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES, CLASSIFIERS = (
    sorted(path.name for path in (GOLDEN / kind).iterdir()) for kind in ("families", "classifiers")
)
DECODERS = [name for name in FAMILIES if name not in ("bert", "roberta", "mpnet")]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """(config, variables, golden numbers, the compiled apply); of encoders without logits, hidden states."""
    folder = GOLDEN / "families" / request.param
    config, weights, pooling, *_ = safetensors.load(folder)
    assert pooling == "" and all(path.startswith(("transformer/", "unembed")) for path in weights)
    golden = dict(np.load(folder / "golden.npz"))
    module = Transformer(config)
    apply = jax.jit((module if config.kind == "encoder" else LanguageModel(module)).apply)
    if config.kind != "encoder":
        golden["made"] = golden.pop("logits")
        return config, collections(weights), golden, apply
    golden["made"] = golden["hidden"]
    return config, {"params": collections(weights)["params"]["transformer"]}, golden, apply


def places(tokens):
    return jnp.tile(jnp.arange(tokens.shape[1]), (len(tokens), 1)), jnp.ones_like(tokens)


def test_families_are_those_the_loader_knows():
    assert {name.removesuffix("_gated") for name in FAMILIES} == set(safetensors.FAMILIES)


def test_logits_and_hidden_states_are_the_references(family):
    config, variables, golden, apply = family
    tokens = jnp.asarray(golden["tokens"])
    made, _ = apply(variables, tokens, *places(tokens))
    np.testing.assert_allclose(made, golden["made"], rtol=1e-4, atol=1e-4)
    if config.kind != "encoder":
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
    made = np.asarray(apply(variables, row, positions, segments)[0])[0, : 2 * count]
    want = golden["made"].reshape(2 * count, -1)
    np.testing.assert_allclose(made, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", DECODERS, indirect=True)
def test_decoding_with_a_cache_gives_the_same(family):
    config, variables, golden, apply = family
    tokens = jnp.asarray(golden["tokens"])
    at, segments = places(tokens)
    options, cache, found = {}, empty_cache(config, *tokens.shape), []
    if config.kind == "encoder_decoder":
        options["source"] = Source(tokens, at, segments)
        tokens = jnp.pad(tokens, [(0, 0), (1, 0)])[:, :-1]
    for start, stop in ((0, 12), *((t, t + 1) for t in range(12, tokens.shape[1]))):
        part = (x[:, start:stop] for x in (tokens, at, segments))
        logits, cache = apply(variables, *part, cache=cache, **options)
        found.append(logits)
    got = jnp.concatenate(found, axis=1)
    np.testing.assert_allclose(got, golden["made"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_of_texts_give_the_references_outputs(name):
    folder = GOLDEN / "classifiers" / name
    config, weights, pooling, *_ = safetensors.load(folder)
    golden = np.load(folder / "golden.npz")
    outputs, hidden = golden["logits"].shape[1], "head/dense/kernel" in weights
    made = (
        heads.Scalar(hidden=hidden)
        if outputs == 1
        else heads.Classes(values=tuple(map(float, range(outputs))), hidden=hidden)
    )
    module = heads.RewardModel(Transformer(config), made, pooling)
    kind = "score" if outputs == 1 else "logits"
    tokens = jnp.asarray(golden["tokens"])
    at, own = places(tokens)
    own = own.at[0, 8:].set(0)
    last = jnp.array([[7], [10]])
    found = jax.jit(module.apply)(collections(weights), tokens, at, own, last)[kind]
    np.testing.assert_allclose(found.reshape(2, outputs), golden["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_table_takes_it_gives_back(name):
    folder = GOLDEN / "families" / name
    config, weights, *_ = safetensors.load(folder)
    family = safetensors.FAMILIES[name.removesuffix("_gated")]
    stored = {
        k.removeprefix(family.prefix): x for k, x in load_file(folder / "model.safetensors").items()
    }
    given = names.give(weights, family.table(config), config.layers)
    assert given.keys() <= stored.keys()
    for key, array in given.items():
        np.testing.assert_allclose(array, stored[key], rtol=0, atol=1e-6)
    again = names.take(given, family.table(config), config.layers)
    for path, array in again.items():
        np.testing.assert_array_equal(array, weights[path])
    assert weights.keys() - again.keys() <= {"unembed"}


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
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
            "'yarn' is none of default",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            presets.llama(hf | changes)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bert", "is_decoder", True),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "activation_function", "tanh"),
        ("gemma3_text", "final_logit_softcapping", 30.0),
        ("gemma3_text", "use_bidirectional_attention", True),
        ("t5", "num_decoder_layers", 3),
        ("t5", "feed_forward_proj", "gated-tanh"),
    ],
)
def test_what_a_family_has_that_a_block_has_not_is_refused(name, key, value):
    hf = json.loads((GOLDEN / "families" / name / "config.json").read_text())
    with pytest.raises(ValueError, match=f"{key}|tanh"):
        safetensors.FAMILIES[name].config(hf | {key: value})


def test_the_first_configs_of_gemma_3_and_t5_are_read():
    hf = json.loads((GOLDEN / "families/gemma3_text/config.json").read_text())
    want = presets.gemma3(hf)
    found = hf.pop("rope_parameters")
    kinds = hf.pop("layer_types")
    assert kinds == ["sliding_attention", "full_attention"]
    older = hf | {
        "sliding_window_pattern": 2,
        "rope_theta": found["full_attention"]["rope_theta"],
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_local_base_freq": found["sliding_attention"]["rope_theta"],
    }
    assert presets.gemma3(older) == want
    hf = json.loads((GOLDEN / "families/t5/config.json").read_text())
    want = presets.t5(hf)
    for key in (
        "scale_decoder_outputs",
        "feed_forward_proj",
        "num_decoder_layers",
        "tie_word_embeddings",
    ):
        hf.pop(key)
    assert presets.t5(hf) == want
    apart = presets.t5(hf | {"tie_word_embeddings": False})
    assert (apart.tied, apart.logit_scale, want.logit_scale) == (False, 1.0, 24**-0.5)


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
