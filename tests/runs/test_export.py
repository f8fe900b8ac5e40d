"""Runs as Hugging Face folders, which read again give the same scores; the reference loads them by hand."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rmjax.build import model
from rmjax.data.encode import encode
from rmjax.data.records import RatedText
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import export, presets, safetensors
from rmjax.models.heads import Scalar
from rmjax.runs import export as run_export
from rmjax.runs import reward, scoring
from rmjax.train import parallel
from tests.runs.conftest import config

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


def base(folder, hf):
    """A model folder of random weights, as published."""
    shape = presets.llama(hf) if hf["model_type"] == "llama" else presets.bert(hf)
    module = model.reward_model(shape, Scalar(), "last", dtype="float32")
    params = jax.tree.map(np.asarray, model.initialize(module, {}, jax.random.key(0)))
    made = export.reward_model(
        shape, params, np.ones((16, 1)), np.zeros(1), pooling="last", pad_id=0
    )
    prefix = "model." if hf["model_type"] == "llama" else "backbone."
    arrays = {
        k.removeprefix(prefix): v for k, v in made.arrays.items() if not k.startswith("score.")
    }
    folder.mkdir()
    save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf))
    (folder / "tokenizer.json").write_text(Tokenizer.bytes().to_json())
    return folder


def scores_of(folder):
    """Scores by what the exported folder alone holds."""
    backbone = model.pretrained(source=str(folder))
    module = model.reward_model(backbone.config, Scalar(), backbone.pooling, dtype="float32")
    params = model.initialize(module, backbone.weights, jax.random.key(5))
    layout = parallel.one_device(lambda path: None, 1)
    score = scoring.make_score(module.apply, layout, {}, 1, backbone.tokenizer.pad_id)
    known = {"tokenizer": backbone.tokenizer.to_json(), "template": None, "config": {"max_length": 128},
             "transformer": vars(backbone.config), "pooling": backbone.pooling}  # fmt: skip
    return score(params, encode(TEXTS, model.reader_of(known)).examples)


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
    reward.run(config=lines, workdir=str(tmp_path / "run"))
    done = run_export.run(workdir=str(tmp_path / "run"), output=str(tmp_path / "out"))
    assert done["remote_code"] == code == (tmp_path / "out/modeling_rmjax.py").exists()
    want = scoring.load(tmp_path / "run").records(TEXTS)
    assert np.ptp(want) > 1e-4
    np.testing.assert_allclose(scores_of(tmp_path / "out"), want, rtol=1e-4, atol=1e-5)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["pad_token_id"] == 0 and written["label2id"] == {"score": 0}
    with pytest.raises(UserError, match="exists; name a new folder"):
        run_export.run(workdir=str(tmp_path / "run"), output=str(tmp_path / "out"))


def test_what_has_no_architecture_is_refused(rated, tmp_path):
    with pytest.raises(UserError, match="cannot be exported: no Hugging Face architecture"):
        run_export.run(workdir=str(rated[0]), output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="--seed=3: the run has seeds 0 to 0"):
        run_export.run(workdir=str(rated[0]), output=str(tmp_path / "out"), seed=3)


@pytest.mark.parametrize("hf", [LLAMA, BERT], ids=["llama", "bert"])
def test_the_config_written_is_the_config_read(hf):
    read = lambda hf: safetensors.FAMILIES[hf["model_type"]].config(hf)
    assert read(export.hugging_face(read(hf))) == read(hf)
    scaled = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 64, "rope_theta": 9.0}  # fmt: skip
    for changes in ({"model_type": "qwen3", "head_dim": 6}, {"rope_parameters": scaled}):
        shape = presets.llama(LLAMA | changes)
        assert presets.llama(export.hugging_face(shape)) == shape
