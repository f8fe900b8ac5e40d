"""Runs as Hugging Face folders, which read again give the same scores; the reference loads them by hand."""

import ast
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rmjax.data import chat
from rmjax.data.encode import encode
from rmjax.data.records import RatedText
from rmjax.data.tokenizer import Layout, Tokenizer
from rmjax.errors import UserError
from rmjax.inference import backbones, scoring, stored
from rmjax.models import export, hugging_face, presets, safetensors
from rmjax.models.heads import Scalar
from rmjax.runs import export as run_export
from rmjax.runs import train_reward
from rmjax.train import forward, parallel
from tests.golden import parity
from tests.runs.conftest import config

FAMILIES = Path(__file__).parents[1] / "golden/families"
LLAMA = {
    "model_type": "llama", "vocab_size": 259, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
    "rope_theta": 100.0, "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 259, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 256, "type_vocab_size": 2, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}  # fmt: skip
TEXTS = [
    RatedText("", "", "", text, 0.0) for text in ("a", "good and long enough", "bad", "ümlaut" * 9)
]
PAIRS = [
    RatedText("", "", "", text, 0.0, prompt=prompt)
    for prompt, text in (("Why?", "So."), ("Name a prime: ", "7 is"), ("é" * 9, " no"))
]


def base(folder, hf):
    """A model folder of random weights, as published."""
    shape = presets.llama(hf) if hf["model_type"] == "llama" else presets.bert(hf)
    module = backbones.reward_model(shape, Scalar(), "last", dtype="float32")
    params = jax.tree.map(np.asarray, backbones.initialize(module, {}, jax.random.key(0)))
    head = export.Head(export.Linear(np.ones((16, 1)), np.zeros(1)))
    made = export.reward_model(shape, params, head, pooling="last", pad_id=0)
    prefix = "model." if hf["model_type"] == "llama" else "backbone."
    arrays = {
        k.removeprefix(prefix): v for k, v in made.arrays.items() if not k.startswith("score.")
    }
    folder.mkdir()
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf))
    (folder / "tokenizer.json").write_text(Tokenizer.bytes().to_json())
    return folder


def scores_of(folder, records=TEXTS):
    """Scores by what the exported folder alone holds."""
    return stored.load(str(folder)).records(records)


CASES = {
    "decoder": (LLAMA, {"loss": "bradley_terry()", "group_size": 4, "batch_size": 4}, False),
    "adapter": (LLAMA, {"loss": "bradley_terry()", "group_size": 4, "batch_size": 4,
                        "adapter": "lora(rank=2)"}, False),
    "bias": (LLAMA, {"loss": "mse()"}, True),
    "encoder": (BERT, {"loss": "mse()", "normalize": "standardize()"}, True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_exported_model_read_again_scores_the_same(case, tmp_path, capsys):
    hf, lines, code = CASES[case]
    source = base(tmp_path / "base", hf)
    lines = config(
        data="synthetic_ratings(count=60)",
        model=f"pretrained(source={str(source)!r})",
        epochs=1.0,
        **lines,
    )
    train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    done = run_export.run(workdir=str(tmp_path / "run"), output=str(tmp_path / "out"))
    assert done["remote_code"] == code == (tmp_path / "out/modeling_rmjax.py").exists()
    want = scoring.load(tmp_path / "run").records(TEXTS)
    assert np.ptp(want) > 1e-4
    np.testing.assert_allclose(scores_of(tmp_path / "out"), want, rtol=1e-4, atol=1e-5)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["pad_token_id"] == 0 and written["label2id"] == {"score": 0}
    with pytest.raises(UserError, match="exists; name a new folder"):
        run_export.run(workdir=str(tmp_path / "run"), output=str(tmp_path / "out"))


def test_a_peft_folder_holds_what_is_merged_else(tmp_path):
    source = base(tmp_path / "base", LLAMA)
    lines = config(
        data="synthetic_ratings(count=60)", model=f"pretrained(source={str(source)!r})", epochs=1.0,
        loss="bradley_terry()", group_size=4, batch_size=4, adapter="lora(rank=2, targets='(query|down)$')",
    )  # fmt: skip
    train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    for name, peft in (("whole", False), ("peft", True)):
        run_export.run(workdir=str(tmp_path / "run"), output=str(tmp_path / name), peft=peft)
    about = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == str(source) and about["r"] == 2
    assert about["target_modules"] == ["mlp.down_proj", "self_attn.q_proj"]
    before = load_file(source / "model.safetensors")
    merged = load_file(tmp_path / "whole/model.safetensors")
    found = load_file(tmp_path / "peft/adapter_model.safetensors")
    np.testing.assert_array_equal(
        found.pop("base_model.model.score.weight"), merged["score.weight"]
    )
    changed = 0
    for key, array in merged.items():
        own = f"base_model.model.{key.removesuffix('.weight')}.lora_"
        if f"{own}A.weight" in found:
            a, b = found.pop(f"{own}A.weight"), found.pop(f"{own}B.weight")
            want = before[key.removeprefix("model.")] + about["lora_alpha"] / about["r"] * b @ a
            np.testing.assert_allclose(array, want, atol=1e-6)
            changed += np.abs(b @ a).max() > 1e-6
    assert not found and changed == 2 * LLAMA["num_hidden_layers"]


def test_what_peft_has_no_adapters_of_is_refused(rated, tmp_path):
    with pytest.raises(UserError, match="trained without an adapter; leave --peft away"):
        run_export.run(workdir=str(rated[0]), output=str(tmp_path / "out"), peft=True)


def test_a_seed_that_is_not_there_is_refused(rated, tmp_path):
    with pytest.raises(UserError, match="--seed=3: the run has seeds 0 to 0"):
        run_export.run(workdir=str(rated[0]), output=str(tmp_path / "out"), seed=3)


def test_a_model_from_scratch_is_exported_too(rated, tmp_path):
    assert run_export.run(workdir=str(rated[0]), output=str(tmp_path / "out"))["remote_code"]
    want = scoring.load(rated[0]).records(TEXTS)
    np.testing.assert_allclose(scores_of(tmp_path / "out"), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("lines", "call"),
    [
        ({}, 'tokenizer(prompt, completion, return_tensors="pt")'),
        ({"model": "tiny_decoder(width=16, layers=1)"}, 'tokenizer(prompt + completion, return_tensors="pt")'),
        ({"head": "classes()", "loss": "votes()"}, "logits.softmax(-1) @ torch.tensor(["),
    ],
)  # fmt: skip
def test_the_model_card_has_the_code_that_scores_and_the_figures(tmp_path, lines, call):
    home = tmp_path / "run"
    made = config(**lines, data="synthetic_ratings(count=80)", epochs=0.2, validations=1)
    results = train_reward.run(config=made, workdir=str(home))
    run_export.run(workdir=str(home), output=str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    ast.parse(code)
    assert call in code and "trust_remote_code=True" in code
    figure = results["metrics"]["synthetic/pearson"]
    assert f"| synthetic/pearson | {figure['value']:.3f} |" in card


# What is exported of each family's golden model: pooling, whether with a hidden layer and with a bias, and whether
# it takes code. "-before": the score is read before an end token, which is also what pads.
VARIANTS = {
    "bert": ("first", True, True, False),
    "roberta": ("first", True, True, False),
    "gpt2": ("last", False, False, False),
    "llama": ("last", False, False, False),
    "mistral": ("last", False, False, False),
    "qwen2": ("last", False, False, False),
    "qwen3": ("last", True, True, True),
    "gemma3_text": ("last", False, False, False),
    "t5": ("last", True, True, True),
    "t5_gated": ("mean", False, True, True),
    "bert-mean": ("mean", False, True, True),
    "roberta-mean": ("mean", False, True, True),
    "gpt2-mean": ("mean", False, True, True),
    "gemma3_text-bias": ("last", False, True, True),
    "llama-before": ("last", False, False, False),
    "qwen3-before": ("last", False, True, True),
}


def reading(shape, pooling, unscored=None):
    """How a model with the byte tokenizer reads."""
    pairs = Layout(pairs=shape.kind == "encoder")
    tokenizer = Tokenizer.bytes()
    if pairs.pairs:  # as BERT's, whose second segments have a type
        made = json.loads(tokenizer.to_json())
        made["post_processor"]["pair"][-2]["Sequence"]["type_id"] = 1
        made["post_processor"]["pair"][-1]["SpecialToken"]["type_id"] = 1
        tokenizer = Tokenizer.from_json(json.dumps(made))
    typed = shape.token_types > 1
    backbone = backbones.Backbone(
        shape, {}, tokenizer, pooling, layout=pairs, types=typed, unscored=unscored
    )
    return backbones.reader(backbone, 80)


def test_mpnet_goes_out_as_it_came_in(tmp_path):
    came, home, out = (tmp_path / name for name in ("came", "run", "out"))
    parity.write(parity.MODELS["mpnet_scalar"], came)
    lines = config(
        model=f"pretrained(source={str(came)!r})", head="scalar(hidden=True)", data="synthetic_ratings(count=40)",
        schedule="constant(peak=1e-30)", weight_decay=0.0, epochs=0.2, validations=1, max_length=96,
    )  # fmt: skip
    train_reward.run(config=lines, workdir=str(home))
    run_export.run(workdir=str(home), output=str(out))
    about = json.loads((out / "config.json").read_text())
    assert about["architectures"] == ["MPNetForSequenceClassification"]
    records = [RatedText("", "", "", text, 0.0, prompt=prompt) for prompt, text in parity.PAIRS[:4]]
    want = stored.load(str(came)).records(records)
    np.testing.assert_allclose(stored.load(str(out)).records(records), want, rtol=1e-5, atol=1e-5)


def exported(name, target, records=TEXTS):
    """Writes a variant with random weights; returns its scores of the records."""
    pooling, hidden, biased, code = VARIANTS[name]
    shape = safetensors.load(FAMILIES / name.split("-")[0]).config
    # RoBERTa's padding is its positions' first row less 1, and the byte tokenizer's is 0.
    first = 1 if shape.first_position else 0
    shape = dataclasses.replace(shape, vocab_size=259, max_positions=96, first_position=first)
    module = backbones.reward_model(shape, Scalar(hidden=hidden), pooling, dtype="float32")
    params = backbones.initialize(module, {}, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = {
        k: np.asarray(x + 0.2 * rng.normal(size=x.shape), np.float32) for k, x in params.items()
    }
    if not biased:
        params["head/score/bias"] = np.zeros(1, np.float32)
    linear = lambda at: export.Linear(params[f"head/{at}/kernel"], params[f"head/{at}/bias"])
    head = export.Head(linear("score"), linear("dense") if hidden else None)
    reader = reading(shape, pooling, 2 if name.endswith("before") else None)
    pad = run_export.pad_id(reader)
    made = export.reward_model(
        shape, params, head, pooling=pooling, pad_id=pad, unscored=reader.unscored
    )
    assert made.code == code
    files = {"model": made.arrays, "config": made.config}
    run_export.write(target, files, reader, made.config["pad_token_id"], code=made.code)
    layout = parallel.one_device(lambda path: None, 1)
    score = scoring.make_score(forward.scores(module.apply), layout, {}, 1, 0)
    examples = encode(records, reader).examples
    return score(jax.tree.map(jax.numpy.asarray, params), examples)["score"]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_familys_export_read_again_scores_the_same(name, tmp_path):
    for kind, records in (("texts", TEXTS), ("pairs", PAIRS)):
        want = exported(name, tmp_path / kind, records)
        assert np.ptp(want) > 1e-2
        found = scores_of(tmp_path / kind, records)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(path.name for path in FAMILIES.iterdir()))
def test_the_config_written_is_the_config_read(name):
    shape, weights, *_ = safetensors.load(FAMILIES / name)
    hf = hugging_face.describe(shape)
    assert hf["model_type"] == name.removesuffix("_gated")
    assert safetensors.FAMILIES[hf["model_type"]].config(hf) == shape
    published = json.loads((FAMILIES / name / "config.json").read_text())
    # transformers 5 calls every T5 tied, and looks at the arrays.
    apart = {"tie_word_embeddings": False} if name == "t5_gated" else {}
    assert {k: v for k, v in hf.items() if published.get(k, v) != v} == apart
    if shape.kind == "encoder":
        with pytest.raises(ValueError, match="an encoder is no language model"):
            export.language_model(shape, weights)
        return
    stored = load_file(FAMILIES / name / "model.safetensors")
    made = export.language_model(shape, weights)
    assert made.config["architectures"] == published["architectures"]
    assert made.arrays.keys() == stored.keys()
    for key, array in made.arrays.items():
        np.testing.assert_allclose(array, stored[key], rtol=0, atol=1e-6)


def test_what_has_no_architecture_is_refused():
    shape = presets.llama(LLAMA)
    for changes in ({"windows": (0, 3)}, {"norm_at": "both"}, {"attention_scale": 1.0}):
        with pytest.raises(ValueError, match="no Hugging Face architecture"):
            hugging_face.describe(dataclasses.replace(shape, **changes))


def test_padding_is_a_token_that_stands_in_no_text():
    reader = reading(presets.llama(LLAMA), "last")
    assert run_export.pad_id(reader) == 0
    made = json.loads(Tokenizer.bytes().to_json())
    vocabulary = made["model"]["vocab"]
    vocabulary["<no pad>"] = vocabulary.pop("<pad>")
    added = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    ends = [{"id": 2, "content": "</s>"}, {"id": 0, "content": "<no pad>"}]
    for listed, want in ((ends[:1], None), (ends, 0)):
        made["added_tokens"] = [added | token for token in listed]
        other = reader._replace(tokenizer=Tokenizer.from_json(json.dumps(made)))
        assert run_export.pad_id(other) == want
    template = chat.Template("{{ '<no pad>' }}")
    assert run_export.pad_id(other._replace(template=template)) is None
