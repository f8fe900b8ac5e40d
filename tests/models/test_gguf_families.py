"""GGUF files as llama.cpp's converter makes them of each family: the reference's logits, and what is refused."""

import json
import math
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import gguf as ours
from rmjax.models import gguf_config, presets
from rmjax.models.transformer import LanguageModel, Transformer
from rmjax.train.state import collections

GOLDEN = Path(__file__).parents[1] / "golden/families"
ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}  # of those with another name
PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    *(chr(0x3B1 + i) for i in range(45)),
]  # 48, as the golden vocabularies
SENTENCEPIECE = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": PIECES,
    "tokenizer.ggml.scores": [0.0] * 3 + [-float(i) for i in range(45)],
    "tokenizer.ggml.token_type": [2, 3, 3, *[1] * 45],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


def write(path, architecture, known, arrays):
    """A file with these metadata and float32 arrays."""
    writer = gguf.GGUFWriter(path, architecture)
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in known.items():
        add[type(value)](key, value)
    for name, array in arrays.items():
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def converted(family):
    """Architecture, metadata and arrays that the converter makes of a golden family."""
    hf = json.loads((GOLDEN / family / "config.json").read_text())
    architecture = ARCHITECTURES.get(family, family)
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    get = lambda *names: next(hf[name] for name in names if name in hf)
    layers, heads = get("num_hidden_layers", "n_layer"), get("num_attention_heads", "n_head")
    known = {
        "block_count": layers,
        "context_length": get("max_position_embeddings", "n_positions"),
        "embedding_length": get("hidden_size", "n_embd"),
        "feed_forward_length": get("intermediate_size", "n_inner"),
        "attention.head_count": heads,
    }
    if family == "gpt2":
        known["attention.layer_norm_epsilon"] = hf["layer_norm_epsilon"]
    else:
        rope = hf["rope_parameters"]
        rope = rope.get("full_attention", rope)
        known |= {
            "attention.head_count_kv": hf["num_key_value_heads"],
            "attention.layer_norm_rms_epsilon": hf["rms_norm_eps"],
            "rope.freq_base": float(rope["rope_theta"]),
        }
    if "head_dim" in hf:
        known["attention.key_length"] = known["rope.dimension_count"] = hf["head_dim"]
    if family in ("mistral", "gemma3_text"):
        known["attention.sliding_window"] = hf["sliding_window"]
    names = gguf.get_tensor_name_map(kind, layers)
    arrays = {}
    for key, array in load_file(GOLDEN / family / "model.safetensors").items():
        stem, _, suffix = key.rpartition(".")
        if stem.endswith(("c_attn", "c_proj", "c_fc")):
            array = array.T
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            count = hf["num_attention_heads" if "q_proj" in stem else "num_key_value_heads"]
            halves = array.reshape(count, 2, len(array) // count // 2, -1)
            array = halves.swapaxes(1, 2).reshape(array.shape)
        if architecture == "gemma3" and stem.endswith("norm"):
            array = array + 1
        arrays[f"{names.get_name(stem)}.{suffix}"] = array
    if family == "llama":
        known["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        arrays["rope_freqs.weight"] = llama3_factors(hf["head_dim"], **rope)
    if architecture == "gemma3":
        known |= {
            "rope.scaling.type": "linear",
            "rope.scaling.factor": rope["factor"],
            "rope.freq_base_swa": float(hf["rope_parameters"]["sliding_attention"]["rope_theta"]),
            "attention.sliding_window_pattern": 2,
        }
        # A file does not say how queries are scaled; the golden one is another than its head width.
        for name in [name for name in arrays if "attn_q_norm" in name]:
            arrays[name] = arrays[name] * math.sqrt(hf["head_dim"] / hf["query_pre_attn_scalar"])
    known = {f"{architecture}.{key}": value for key, value in known.items()}
    return architecture, known, arrays


def llama3_factors(
    width,
    *,
    rope_theta,
    factor,
    low_freq_factor,
    high_freq_factor,
    original_max_position_embeddings: int,
    rope_type="llama3",
):
    """What each frequency is divided by, one after the other as the converter has it."""
    found, original = [], original_max_position_embeddings
    for i in range(0, width, 2):
        wavelength = 2 * math.pi * rope_theta ** (i / width)
        if wavelength < original / high_freq_factor:
            found.append(1.0)
        elif wavelength > original / low_freq_factor:
            found.append(factor)
        else:
            smooth = original / wavelength - low_freq_factor
            smooth /= high_freq_factor - low_freq_factor
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3_text"])
def test_logits_are_the_references(family, tmp_path):
    architecture, known, arrays = converted(family)
    write(tmp_path / "model.gguf", architecture, known | SENTENCEPIECE, arrays)
    made = ours.load(tmp_path / "model.gguf")
    golden = np.load(GOLDEN / family / "golden.npz")
    tokens = jnp.asarray(golden["tokens"])
    at = jnp.tile(jnp.arange(tokens.shape[1]), (len(tokens), 1))
    apply = jax.jit(LanguageModel(Transformer(made.config)).apply)
    logits, _ = apply(collections(made.weights), tokens, at, jnp.ones_like(tokens))
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4)
    assert (made.bos_token, made.eos_token) == ("<s>", "</s>")
    assert Tokenizer.from_json(made.tokenizer).encode(["αβ"], 9)[0].tolist() == [1, 0, 3, 4]


LLAMA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 131072,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 500000.0,
    "tokenizer.ggml.tokens": PIECES,
}
LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}


def scaling(rates=None, **known):
    own = {f"llama.{key.replace('__', '.')}": value for key, value in known.items()}
    hf = gguf_config.describe(LLAMA | own, tied=True, rates=rates)
    return presets.llama(hf).rope_scaling


def test_rotation_is_scaled_as_the_file_says():
    assert scaling() == ()
    assert scaling(rope__scaling__type="linear", rope__scaling__factor=4.0) == (4.0,)
    assert scaling(rope__scaling__factor=4.0) == scaling(rope__scale_linear=4.0) == (4.0,)
    assert scaling(rope__scaling__type="none", rope__scaling__factor=4.0) == ()
    rates = llama3_factors(128, **LLAMA3)
    assert scaling(rates) == (32.0, 1.0, 4.0, 8192.0)
    assert 1.0 < rates[31] < 32.0  # one of the blend


@pytest.mark.parametrize(
    ("rates", "known", "message"),
    [
        (None, {"rope__scaling__type": "yarn"}, "rope scaling 'yarn' in GGUF is not supported"),
        ({"low_freq_factor": 2.0}, {}, "is not Llama 3's scaling with low_freq_factor 1"),
        ({"original_max_position_embeddings": 4096}, {}, "original_max_position_embeddings 8192"),
        ({}, {"rope__scaling__factor": 2.0}, "rope_freqs.weight with linear scaling"),
        ({}, {"attention__key_length": 64, "rope__dimension_count": 64}, "is not Llama 3's"),
        (None, {"rope__dimension_count": 64}, "rotation of 64 of a head's 128 channels"),
    ],
)
def test_other_scalings_are_refused_with_the_reason(rates, known, message):
    if rates is not None:
        rates = llama3_factors(128, **LLAMA3 | rates)
    with pytest.raises(ValueError, match=message):
        scaling(rates, **known)


def test_a_scaling_that_differs_a_little_is_refused():
    rates = llama3_factors(128, **LLAMA3)
    rates[31] *= 1.0002
    with pytest.raises(ValueError, match="no other is supported; take the model's folder"):
        scaling(rates)


def gemma(**known):
    own = {f"gemma3.{key.removeprefix('llama.')}": x for key, x in LLAMA.items() if "llama." in key}
    own |= {"gemma3.attention.key_length": 64, "gemma3.attention.sliding_window": 512}
    own |= {f"gemma3.{key.replace('__', '.')}": value for key, value in known.items()}
    base = {"general.architecture": "gemma3", "tokenizer.ggml.tokens": PIECES}
    return presets.gemma3(gguf_config.describe(base | own, tied=True, rates=None))


def test_gemma_3_has_what_its_file_leaves_out():
    made = gemma(block_count=7)
    assert made.windows == (512, 512, 512, 512, 512, 0, 512)
    assert (made.rope_base, made.local_rope_base) == (500000.0, 10000.0)
    assert made.attention_scale == 64**-0.5 and made.embedding_scale == 16.0
    assert gemma(block_count=62).attention_scale == 128**-0.5  # 27B, by width / heads
    assert gemma(attention__sliding_window_pattern=[True, False]).windows == (512, 0)
    assert gemma(attention__sliding_window=0).windows == (0, 0)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0 is not supported"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0 is not supported"),
        ({"attention__sliding_window_pattern": [True]}, "has 1 values for 2 layers"),
    ],
)
def test_what_gemma_3_has_not_is_refused(known, message):
    with pytest.raises(ValueError, match=message):
        gemma(**known)


def test_windows_are_mistrals_and_not_qwens():
    hf = gguf_config.describe(LLAMA | {"llama.attention.sliding_window": 7}, tied=True, rates=None)
    assert presets.llama(hf).windows == (7, 7)
    qwen = {key.replace("llama", "qwen2"): value for key, value in LLAMA.items()}
    qwen |= {"general.architecture": "qwen2", "qwen2.attention.sliding_window": 131072}
    assert presets.llama(gguf_config.describe(qwen, tied=True, rates=None)).windows == (0, 0)
    qwen |= {"qwen2.attention.sliding_window": 7}
    with pytest.raises(ValueError, match="sliding window in Qwen's GGUF"):
        gguf_config.describe(qwen, tied=True, rates=None)


def test_a_missing_key_and_a_wrong_scaling_name_the_file(tmp_path):
    architecture, known, arrays = converted("llama")
    path = tmp_path / "model.gguf"
    write(path, architecture, known | SENTENCEPIECE | {"llama.rope.scaling.type": "yarn"}, arrays)
    with pytest.raises(
        UserError, match=r"model\.gguf: cannot be read as GGUF: rope scaling 'yarn'"
    ):
        ours.load(path)
    del known["llama.block_count"]
    write(path, architecture, known | SENTENCEPIECE, arrays)
    with pytest.raises(UserError, match=r"model\.gguf: its metadata have no 'block_count'"):
        ours.load(path)


def test_a_language_model_with_embeddings_of_its_own_keeps_them(tmp_path):
    architecture, known, arrays = converted("gpt2")
    arrays["output.weight"] = arrays["token_embd.weight"] + 1
    write(tmp_path / "model.gguf", architecture, known | SENTENCEPIECE, arrays)
    made = ours.load(tmp_path / "model.gguf")
    assert not made.config.tied
    np.testing.assert_array_equal(made.weights["unembed"], arrays["output.weight"])
