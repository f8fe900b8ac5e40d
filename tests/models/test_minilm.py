"""The pretrained encoder agrees with the reference implementation, alone and packed."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rmjax import assets
from rmjax.data.pipeline import score_batches
from rmjax.errors import UserError
from rmjax.models.safetensors import load_bert
from rmjax.models.transformer import Transformer
from rmjax.train.state import unflatten

GOLDEN = np.load(Path(__file__).parents[1] / "golden/minilm.npz")
TEXTS = [GOLDEN[f"tokens_{i}"] for i in range(3)]


@pytest.fixture(scope="module")
def minilm():
    return load_bert(assets.folder("minilm"))


def hidden(minilm, batch, dtype="float32", unroll=1):
    config, weights = minilm
    params = unflatten(weights)["transformer"]
    inputs = [batch[k] for k in ("tokens", "positions", "segments")]
    return np.asarray(Transformer(config, dtype, unroll=unroll).apply({"params": params}, *inputs))


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_states_are_the_references(minilm, packed):
    batches = (
        [score_batches(TEXTS, pad_id=0)]
        if packed
        else [score_batches([t], pad_id=0) for t in TEXTS]
    )
    seen = []
    for batch, texts, places in (b for group in batches for b in group):
        states = hidden(minilm, batch)
        for text, place in zip(texts, places, strict=True):
            row, slot = divmod(int(place), batch["score_at"].shape[1])
            own = states[row][batch["segments"][row] == slot + 1]
            which = int(text) if packed else len(seen)
            np.testing.assert_allclose(own, GOLDEN[f"hidden_{which}"], atol=1e-4)
            seen.append(which)
    assert sorted(seen) == [0, 1, 2]


def test_bfloat16_products_stay_close(minilm):
    batch, _, _ = next(iter(score_batches([TEXTS[0]], pad_id=0)))
    full, half = hidden(minilm, batch), hidden(minilm, batch, "bfloat16", unroll=6)
    own = batch["segments"][0] == 1
    assert 1e-6 < np.max(np.abs(full - half)[0, own]) < 2e-2 * np.max(np.abs(full[0, own]))


def test_missing_and_surplus_keys_fail_with_their_names(tmp_path):
    source = assets.folder("minilm")
    stored = load_file(source / "model.safetensors")
    stored["extra.weight"] = stored.pop("embeddings.LayerNorm.bias")
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"missing \['embeddings.LayerNorm.bias'\], surplus \['extra.weight'\]"
    ):
        load_bert(tmp_path)


def test_embedding_tables_are_where_the_file_has_them(minilm):
    config, weights = minilm
    assert (config.layers, config.width, config.heads) == (6, 384, 12)
    assert sum(w.size for w in jax.tree.leaves(weights)) == 22_565_376
    stored = load_file(assets.folder("minilm") / "model.safetensors")
    kernel = weights["transformer/blocks/up/kernel"]
    np.testing.assert_array_equal(kernel[3], stored["encoder.layer.3.intermediate.dense.weight"].T)
