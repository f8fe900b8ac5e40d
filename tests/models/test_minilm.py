"""The pretrained encoder agrees with the reference implementation, alone and packed."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rmjax import assets
from rmjax.data.examples import singles
from rmjax.data.pipeline import score_batches
from rmjax.errors import UserError
from rmjax.models.safetensors import load
from rmjax.models.transformer import Transformer
from rmjax.train.state import unflatten

GOLDEN = np.load(Path(__file__).parents[1] / "golden/minilm.npz")
TEXTS = [GOLDEN[f"tokens_{i}"] for i in range(3)]


@pytest.fixture(scope="module")
def minilm():
    return load(assets.folder("minilm"))


@pytest.fixture(scope="module")
def hidden(minilm):
    """hidden(texts, dtype) -> their hidden states, all packed into one row of 64."""
    config, weights, *_ = minilm
    params = {"params": unflatten(weights)["transformer"]}
    apply = {dtype: jax.jit(Transformer(config, dtype).apply) for dtype in ("float32", "bfloat16")}

    def states(texts, dtype="float32"):
        [(batch, order, places)] = score_batches(singles(texts), pad_id=0, budget=64)
        assert batch["tokens"].shape == (1, 64)
        inputs = [batch[k] for k in ("tokens", "positions", "segments")]
        found = np.asarray(apply[dtype](params, *inputs)[0])[0]
        own = {
            int(t): found[batch["segments"][0] == p + 1] for t, p in zip(order, places, strict=True)
        }
        return [own[i] for i in range(len(texts))]

    return states


def test_hidden_states_are_the_references_alone_and_packed(hidden):
    alone = [hidden([text])[0] for text in TEXTS]
    for i, (single, packed) in enumerate(zip(alone, hidden(TEXTS), strict=True)):
        np.testing.assert_allclose(single, GOLDEN[f"hidden_{i}"], atol=1e-4)
        np.testing.assert_allclose(packed, GOLDEN[f"hidden_{i}"], atol=1e-4)


def test_bfloat16_products_stay_close(hidden):
    [full], [half] = hidden(TEXTS[:1]), hidden(TEXTS[:1], "bfloat16")
    assert 1e-6 < np.max(np.abs(full - half)) < 2e-2 * np.max(np.abs(full))


def test_missing_and_surplus_keys_fail_with_their_names(tmp_path):
    source = assets.folder("minilm")
    stored = load_file(source / "model.safetensors")
    stored["extra.weight"] = stored.pop("embeddings.LayerNorm.bias")
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"missing \['embeddings.LayerNorm.bias'\], surplus \['extra.weight'\]"
    ):
        load(tmp_path)


def test_embedding_tables_are_where_the_file_has_them(minilm):
    config, weights, *_ = minilm
    assert (config.layers, config.width, config.heads) == (6, 384, 12)
    assert sum(w.size for w in jax.tree.leaves(weights)) == 22_565_376
    stored = load_file(assets.folder("minilm") / "model.safetensors")
    kernel = weights["transformer/blocks/up/kernel"]
    np.testing.assert_array_equal(kernel[3], stored["encoder.layer.3.intermediate.dense.weight"].T)
