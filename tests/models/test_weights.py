"""From a Hugging Face folder to parameters by name, exactly; where each parameter lives on a mesh."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors.numpy import save_file

from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models import heads, names, presets, shardings
from rmjax.models.outputs import Outputs
from rmjax.models.safetensors import load
from rmjax.models.transformer import Config, LanguageModel, Transformer
from rmjax.train.state import flatten

HF = {
    "model_type": "bert", "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 5, "type_vocab_size": 2, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}  # fmt: skip


def parameters(config, head=None):
    """Shapes by path, nothing computed."""
    module = heads.RewardModel(Transformer(config), head or heads.Scalar(), "mean")
    one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    made = jax.eval_shape(module.init, jax.random.key(0), one, one, one, one)["params"]
    return {path: x.shape for path, x in flatten(made).items()}


def write(folder, hf=HF, prefix="", **changes):
    """A folder as published, of random arrays; returns them by stored name."""
    rng, shapes = np.random.default_rng(0), parameters(presets.bert(HF))
    stored = {"pooler.dense.bias": np.zeros(8, np.float32)}
    for name in names.BERT:
        shape = shapes[f"transformer/{name.path}"]
        stacked = "{}" in name.stored
        shape = shape[1:] if stacked else shape
        for layer in range(HF["num_hidden_layers"] if stacked else 1):
            array = rng.normal(size=shape[::-1] if name.transpose else shape)
            stored[name.stored.format(layer)] = array.astype(np.float32)
    stored = {prefix + k: x for k, x in (stored | changes).items() if x is not None}
    (folder / "config.json").write_text(json.dumps(hf))
    save_file(stored, folder / "model.safetensors")
    return stored


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_every_stored_array_becomes_its_parameter(tmp_path, prefix):
    stored = write(tmp_path, prefix=prefix)
    config, params, *_ = load(tmp_path)
    assert config == Config(
        kind="encoder", vocab_size=11, width=8, layers=3, heads=2, kv_heads=2, head_width=4, mlp_width=16,
        max_positions=5, token_types=2, positions="learned", first_position=0, norm="layer", norm_at="post",
        norm_eps=1e-12, activation="gelu", gated=False, biases="all", qk_norm=False, attention_scale=0.5,
        embedding_scale=1.0, logit_scale=1.0, tied=True, rope_base=0.0, rope_scaling=(), windows=(0, 0, 0),
        local_rope_base=0.0, relative_buckets=0, relative_distance=0,
    )  # fmt: skip
    ours = {p: s for p, s in parameters(config).items() if p.startswith("transformer/")}
    assert {path: x.shape for path, x in params.items()} == ours
    layer = prefix + "encoder.layer.2."
    for path, name in (
        ("attention/value/kernel", "attention.self.value.weight"),
        ("attention/output/kernel", "attention.output.dense.weight"),
        ("down/kernel", "output.dense.weight"),
        ("down/bias", "output.dense.bias"),
        ("mlp_norm/scale", "output.LayerNorm.weight"),
        ("attention_norm/bias", "attention.output.LayerNorm.bias"),
    ):
        np.testing.assert_array_equal(
            params[f"transformer/blocks/{path}"][2], stored[layer + name].T
        )
    np.testing.assert_array_equal(
        params["transformer/types"], stored[prefix + "embeddings.token_type_embeddings.weight"]
    )


def test_the_table_names_each_array_and_each_parameter_once():
    for field in ("stored", "path"):
        found = [getattr(name, field) for name in names.BERT]
        assert len(set(found)) == len(found)
    for name in names.BERT:
        assert ("{}" in name.stored) == name.path.startswith("blocks/")
        assert name.transpose == name.path.endswith("/kernel")


def test_missing_and_surplus_arrays_are_named(tmp_path):
    gone = "encoder.layer.1.output.dense.bias"
    more = {"cls.bias": np.zeros(2, np.float32)}
    for changes, missing, surplus in (
        ({gone: None}, rf"\['{gone}'\]", "none"),
        (more, "none", r"\['cls.bias'\]"),
        ({gone: None, **more}, rf"\['{gone}'\]", r"\['cls.bias'\]"),
    ):
        write(tmp_path, **changes)
        with pytest.raises(UserError, match=f"missing {missing}, surplus {surplus}"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "xlnet"}, "model_type is 'xlnet', none of bert, roberta, mpnet, gpt2"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' is not supported"),
        ({"hidden_act": "swish"}, "activation 'swish' is none of"),
        ({"vocab_size": None}, "has no key 'vocab_size'"),
    ],
)
def test_a_config_that_is_not_this_bert_is_refused(tmp_path, changes, message):
    write(tmp_path, {k: v for k, v in (HF | changes).items() if v is not None})
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 12}, r"model\.safetensors does not fit its config, which makes other shapes: "
         r"transformer/tokens \(11, 8\), not \(12, 8\)$"),
        ({"hidden_size": 16}, r"transformer/tokens \(11, 8\), not \(11, 16\); .*; and \d+ others$"),
        ({"num_attention_heads": 0}, r"config\.json: cannot be read as a model: .*zero"),
        ({"num_hidden_layers": -1}, r"config\.json: .*layers must be a whole number from 1, got -1"),
        ({"layer_norm_eps": float("nan")}, r"config\.json: .*norm_eps must be a finite number, got nan"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_named(tmp_path, changes, message):
    write(tmp_path, HF | changes)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors"):
        load(tmp_path)


def test_first_berts_norms_and_pretraining_heads_are_known(tmp_path):
    want = write(tmp_path)
    _, params, pooling, *_ = load(tmp_path)
    modern = [key for key in want if "LayerNorm" in key]
    first = lambda key: key.replace("m.weight", "m.gamma").replace("m.bias", "m.beta")
    changes = dict.fromkeys(modern) | {first(key): want[key] for key in modern}
    write(tmp_path, **changes, **{"cls.predictions.bias": np.zeros(11, np.float32)})
    _, again, other, *_ = load(tmp_path)
    assert pooling == other == ""
    for path, array in params.items():
        np.testing.assert_array_equal(array, again[path])


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_parts_with_an_index_in_half_precision_are_read(tmp_path, stored):
    arrays = {k: x.astype(jnp.dtype(stored)) for k, x in write(tmp_path).items()}
    (tmp_path / "model.safetensors").unlink()
    first, second = dict(list(arrays.items())[:20]), dict(list(arrays.items())[20:])
    index = {}
    for name, part in (("a.safetensors", first), ("b.safetensors", second)):
        save_file(part, tmp_path / name)
        index |= dict.fromkeys(part, name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    _, params, *_ = load(tmp_path)
    found, want = params["transformer/tokens"], arrays["embeddings.word_embeddings.weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, want.astype(np.float32))
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UserError, match="b.safetensors"):
        load(tmp_path)


def test_a_classifier_without_its_inner_layer_is_refused(tmp_path):
    write(tmp_path, **{"classifier.weight": np.zeros((2, 8), np.float32)})
    with pytest.raises(UserError, match="a classifier of whole texts needs 'pooler.dense.weight'"):
        load(tmp_path)


def config_of(folder, **changes):
    """Changes config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_head_of_other_outputs_than_its_config_says_is_an_error(tmp_path):
    shapes = {"weight": (8, 8), "bias": (8,)}
    inner = {f"bert.pooler.dense.{part}": np.zeros(s, np.float32) for part, s in shapes.items()}
    write(tmp_path, **inner, **{"classifier.weight": np.zeros((2, 8), np.float32)})
    config_of(tmp_path, architectures=["BertForSequenceClassification"], id2label={"0": "LABEL_0"})
    with pytest.raises(UserError, match="the head has 2 outputs, and config.json says 1"):
        load(tmp_path)
    config_of(tmp_path, id2label={"1": "good", "0": "bad"})
    assert load(tmp_path).outputs == Outputs("classes", ("bad", "good"))
    config_of(tmp_path, problem_type="regression")
    found = load(tmp_path)
    assert found.outputs.kind == "attributes" and "head/attributes/kernel" in found.weights
    config_of(tmp_path, id2label={"0": "a", "2": "b"})
    with pytest.raises(UserError, match="numbers its labels 0, 2"):
        load(tmp_path)
    assert load(tmp_path, head=False).outputs is None  # a new one is trained
    write(tmp_path)
    config_of(tmp_path, architectures=["BertForSequenceClassification"])
    with pytest.raises(
        UserError, match="says BertForSequenceClassification, but the weights hold no head"
    ):
        load(tmp_path)
    assert load(tmp_path, head=False).outputs is None


def test_presets_differ_where_they_say():
    encoder, decoder = (f(99, 96, 4, 7) for f in (presets.encoder, presets.decoder))
    assert (encoder.vocab_size, encoder.width, encoder.layers, encoder.max_positions) == (
        99,
        96,
        4,
        7,
    )
    assert (encoder.heads, encoder.mlp_width, presets.encoder(9, 16, 1, 7).heads) == (3, 384, 2)
    changed = {"kind", "norm_at", "activation", "norm_eps"}
    before, after = dataclasses.asdict(encoder), dataclasses.asdict(decoder)
    assert {k for k in before if before[k] != after[k]} == changed
    assert (decoder.kind, decoder.norm_at) == ("decoder", "pre")


def test_large_parameters_are_split_over_fsdp_and_tensor_and_the_rest_is_everywhere():
    config = dataclasses.replace(presets.encoder(64, 32, 2, 32), token_types=2)
    found = {path: shardings.spec(path) for path in parameters(config, heads.Scalar(ties=True))}
    block = "transformer/blocks"
    into = ("attention/query", "attention/key", "attention/value", "up")
    out = ("attention/output", "down")
    want = {f"{block}/{at}/kernel": PartitionSpec(None, "fsdp", "tensor") for at in into}
    want |= {f"{block}/{at}/bias": PartitionSpec(None, "tensor") for at in into}
    want |= {f"{block}/{at}/kernel": PartitionSpec(None, "tensor", "fsdp") for at in out}
    want |= {f"transformer/{at}": PartitionSpec("fsdp", "tensor") for at in ("tokens", "positions")}
    assert want.keys() < found.keys()
    assert found == dict.fromkeys(found, PartitionSpec()) | want
    shapes = parameters(config, heads.Scalar(ties=True))
    assert all(len(axes) <= len(shapes[path]) for path, axes in found.items())
    big = {path for path, shape in shapes.items() if np.prod(shape) >= 32 * 32}
    assert big <= want.keys()


def test_every_familys_projections_are_split():
    llama = {
        "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 40, "max_position_embeddings": 8, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    }  # fmt: skip
    t5 = {
        "vocab_size": 64, "d_model": 32, "d_ff": 40, "d_kv": 8, "num_layers": 1, "num_heads": 4,
        "layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 8, "feed_forward_proj": "gated-gelu",
    }  # fmt: skip
    for config in (presets.llama(llama), presets.t5(t5)):
        language = LanguageModel(Transformer(dataclasses.replace(config, tied=False)))
        one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        made = jax.eval_shape(language.init, jax.random.key(0), one, one, one)["params"]
        for path, x in flatten(made).items():
            wide = path.endswith("/kernel") or path in ("unembed", "transformer/tokens")
            assert (shardings.spec(path) != PartitionSpec()) == wide, path
            assert len(shardings.spec(path)) <= x.ndim
    assert shardings.spec("lora/transformer/blocks/attention/query/a") == PartitionSpec()


def test_a_file_that_is_no_safetensors_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="model.safetensors: cannot be read: .*git-lfs"):
        load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "tokenizer.json").write_text(Tokenizer.bytes().to_json())
    with pytest.raises(UserError, match="tokenizer.json has 259 tokens, the weights beside it 11"):
        backbones.pretrained(source=str(tmp_path))
