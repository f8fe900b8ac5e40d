"""Pretrained weights from a Hugging Face folder, exactly: every stored array is used or named as unused."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from rmjax.errors import UserError
from rmjax.models import names, presets
from rmjax.models.transformer import Config


def load_bert(folder: Path) -> tuple[Config, dict[str, np.ndarray]]:
    """The Config and the float32 parameters (by path, "transformer/tokens", ...) of a BERT folder.

    folder: holds `config.json` and `model.safetensors`.
    Raises: UserError naming the file and the missing or surplus keys.
    """
    try:
        hf = json.loads((folder / "config.json").read_text())
        config = presets.bert(hf)
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a handle, not a mapping)
    except SafetensorError as error:
        raise UserError(
            f"{folder}/model.safetensors: cannot be read: {error}; is it whole, or a git-lfs pointer?"
        ) from error
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: {error}; a model folder needs config.json and model.safetensors"
        ) from error
    except (KeyError, ValueError) as error:
        raise UserError(f"{folder}/config.json: cannot be read as BERT: {error}") from error
    stored = {key.removeprefix("bert."): value for key, value in stored.items()}
    return config, _rename(stored, names.BERT, names.BERT_UNUSED, config.layers, str(folder))


def _rename(
    stored: Mapping[str, np.ndarray],
    table: Sequence[names.Name],
    unused: Sequence[str],
    layers: int,
    where: str,
) -> dict[str, np.ndarray]:
    wanted = {n.stored.format(i) for n in table for i in range(layers)}
    missing, surplus = wanted - stored.keys(), stored.keys() - wanted - set(unused)
    if missing or surplus:
        raise UserError(
            f"{where}/model.safetensors does not fit its config.json: "
            f"missing {sorted(missing) or 'none'}, surplus {sorted(surplus) or 'none'}"
        )
    params = {}
    for name in table:
        stacked = "{}" in name.stored
        parts = [stored[name.stored.format(i)] for i in (range(layers) if stacked else [0])]
        parts = [np.asarray(p.T if name.transpose else p, np.float32) for p in parts]
        params[f"transformer/{name.path}"] = np.stack(parts) if stacked else parts[0]
    return params
