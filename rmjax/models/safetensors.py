"""Pretrained weights from a Hugging Face folder, exactly: every stored array is used or named as unused."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from rmjax.errors import UserError
from rmjax.models import names, presets
from rmjax.models.transformer import Config


class Family(NamedTuple):
    """How a `model_type` is read: its Config, its names, stored names that are not used, and prefixes of those."""

    config: Callable[[Mapping[str, Any]], Config]
    table: Callable[[Config], Sequence[names.Name]]
    unused: tuple[str, ...]
    prefix: str


_LLAMA = Family(presets.llama, names.llama, names.LLAMA_UNUSED, "model.")
FAMILIES: Mapping[str, Family] = {
    "bert": Family(presets.bert, lambda config: names.BERT, names.BERT_UNUSED, "bert."),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
}


class Stored(NamedTuple):
    """A Config, float32 parameters by path ("transformer/tokens", ...), and the pooling that is stored, else ""."""

    config: Config
    weights: dict[str, np.ndarray]
    pooling: str


def load(folder: Path) -> Stored:
    """What a model folder holds; of a reward model also "head/score/kernel" and perhaps "head/score/bias".

    folder: holds `config.json` and `model.safetensors`, or parts with `model.safetensors.index.json`.
    Raises: UserError naming the file and the missing or surplus keys, or the families there are.
    """
    try:
        hf = json.loads((folder / "config.json").read_text())
        pooling, prefix = "", None
        if hf["model_type"] == "rmjax_reward":  # our own export
            pooling, prefix, hf = hf["pooling"], "backbone.", hf["backbone"]
        family = FAMILIES.get(hf["model_type"])
        if family is None:
            raise ValueError(f"model_type is {hf['model_type']!r}, none of {', '.join(FAMILIES)}")
        config = family.config(hf)
        stored = _read(folder)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: {error}; a model folder needs config.json and model.safetensors"
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{folder}/config.json: cannot be read as a model: {error}") from error
    head = {k: stored.pop(k) for k in ("score.weight", "score.bias") if k in stored}
    family = family if prefix is None else family._replace(prefix=prefix)
    weights = rename(stored, family, config, f"{folder}/model.safetensors")
    if head and not pooling:
        pooling = "last"  # as transformers' own classifiers of decoders read it
    return Stored(config, weights | _head(head), pooling)


def _head(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A scalar score's parameters; transformers' own architectures have no bias, which is 0 then."""
    if not stored:
        return {}
    kernel = np.asarray(stored["score.weight"], np.float32).T
    bias = np.asarray(stored.get("score.bias", np.zeros(kernel.shape[1])), np.float32)
    name = "score" if kernel.shape[1] == 1 else "logits"
    return {f"head/{name}/kernel": kernel, f"head/{name}/bias": bias}


def _read(folder: Path) -> dict[str, np.ndarray]:
    """Every stored array, of one file or of all that the index names."""
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    stored: dict[str, np.ndarray] = {}
    for name in files:
        try:
            # Numpy knows bfloat16 by ml_dtypes, which jax brings.
            with safe_open(folder / name, framework="flax") as file:
                for key in file.keys():  # noqa: SIM118 (a handle, not a mapping)
                    stored[key] = np.asarray(file.get_tensor(key))
        except SafetensorError as error:
            raise UserError(
                f"{folder}/{name}: cannot be read: {error}; is it whole, or a git-lfs pointer?"
            ) from error
    return stored


def rename(
    stored: Mapping[str, np.ndarray], family: Family, config: Config, where: str
) -> dict[str, np.ndarray]:
    """Stored arrays as float32 parameters by path, those of layers stacked.

    Raises: UserError with the missing and the surplus names.
    """
    stored = {key.removeprefix(family.prefix): value for key, value in stored.items()}
    table, layers = family.table(config), config.layers
    wanted = {n.stored.format(i) for n in table for i in range(layers)}
    spare = lambda key: any(key == name or key.endswith(f".{name}") for name in family.unused)
    missing = wanted - stored.keys()
    surplus = {key for key in stored.keys() - wanted if not spare(key)}
    if missing or surplus:
        raise UserError(
            f"{where} does not fit its config.json: "
            f"missing {sorted(missing) or 'none'}, surplus {sorted(surplus) or 'none'}"
        )
    params = {}
    for name in table:
        stacked = "{}" in name.stored
        parts = [stored[name.stored.format(i)] for i in (range(layers) if stacked else [0])]
        parts = [np.asarray(p.T if name.transpose else p, np.float32) for p in parts]
        params[f"transformer/{name.path}"] = np.stack(parts) if stacked else parts[0]
    if not config.tied and "lm_head.weight" in stored:
        params["unembed"] = np.asarray(stored["lm_head.weight"], np.float32)
    return params
