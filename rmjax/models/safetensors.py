"""Pretrained weights from a Hugging Face folder, exactly: every stored array is used or named as unused."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError, safe_open

from rmjax.errors import UserError
from rmjax.models import names, outputs, presets
from rmjax.models.outputs import Outputs
from rmjax.models.transformer import Config, Transformer


class Family(NamedTuple):
    """How a `model_type` is read: its Config, its names, stored names that are not used, their prefix, its head."""

    config: Callable[[Mapping[str, Any]], Config]
    table: Callable[[Config], Sequence[names.Name]]
    unused: tuple[str, ...]
    prefix: str
    head: names.Head = names.SCORE
    pad_id: int | None = None  # of a config.json that does not name it


_LLAMA = Family(presets.llama, names.llama, names.LLAMA_UNUSED, "model.")
FAMILIES: Mapping[str, Family] = {
    "bert": Family(
        presets.bert, lambda config: names.BERT, names.BERT_UNUSED, "bert.", names.BERT_HEAD
    ),
    "roberta": Family(
        presets.bert,
        lambda config: names.BERT,
        names.ROBERTA_UNUSED,
        "roberta.",
        names.ROBERTA_HEAD,
    ),
    "mpnet": Family(
        presets.mpnet,
        lambda config: names.MPNET,
        names.ROBERTA_UNUSED,
        "mpnet.",
        names.ROBERTA_HEAD,
    ),
    "gpt2": Family(presets.gpt2, lambda config: names.GPT2, names.GPT2_UNUSED, "transformer."),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    "gemma3_text": Family(presets.gemma3, names.gemma3, names.LLAMA_UNUSED, "model.", pad_id=0),
    "t5": Family(presets.t5, names.t5, names.T5_UNUSED, "transformer.", names.T5_HEAD),
}
# The model_type of a reward model that no family has; modeling_rmjax.py computes it.
EXPORTED = "rmjax_reward"


class Stored(NamedTuple):
    """What a model folder holds.

    weights: float32 by path: "transformer/tokens", ...; "unembed" where output embeddings are others than the input
      ones; of a classifier "head/score/kernel", ... ("head/logits/..." if it has several outputs, or
      "head/attributes/...").
    pooling: what that classifier reads; "" without one.
    outputs: what its outputs are; None without one.
    unscored: the token that its texts are scored before, where they end with it (transformers takes the last token
      that is not pad_token_id); None: there is none.
    end: the token whose last one is scored, as in T5's own classifiers; None: the last token is, whichever it is.
    """

    config: Config
    weights: dict[str, np.ndarray]
    pooling: str
    outputs: Outputs | None = None
    unscored: int | None = None
    end: int | None = None
    dtype: str = "float32"  # that the arrays are stored in


def load(folder: Path, *, head: bool = True) -> Stored:
    """What a model folder holds.

    folder: holds `config.json` and `model.safetensors`, or parts with `model.safetensors.index.json`.
    head: False leaves a classifier's head out, whatever it is.
    Raises: UserError naming the file and the missing or surplus keys, or the families there are.
    """
    try:
        hf = json.loads((folder / "config.json").read_text())
        exported = hf["model_type"] == EXPORTED
        inner = hf["backbone"] if exported else hf
        family = FAMILIES.get(inner["model_type"])
        if family is None:
            known = ", ".join(FAMILIES)
            raise ValueError(f"model_type is {inner['model_type']!r}, none of {known}")
        config = family.config(inner)
        if exported:
            own = names.EXPORTED_HEAD._replace(
                pooling=hf["pooling"], dense="dense" if hf.get("hidden") else ""
            )
            family = family._replace(prefix="backbone.", head=own)
        if outputs.of_steps(hf):
            family = family._replace(head=_of_tokens(inner["model_type"]))
        stored = _read(folder)
        dtype = str(next(iter(stored.values())).dtype) if stored else "float32"
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: {error}; a model folder needs config.json and model.safetensors"
        ) from error
    except KeyError as error:
        raise UserError(f"{folder}/config.json: has no key {error}; is it whole?") from error
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{folder}/config.json: cannot be read as a model: {error}") from error
    stored = {_modern(key.removeprefix(family.prefix)): value for key, value in stored.items()}
    where = f"{folder}/model.safetensors"
    found, weights = _head(stored, family.head, hf, where) if head else _headless(stored, family)
    other = stored.get("lm_head.weight")
    if config.kind == "encoder_decoder" and other is not None:  # transformers 5 calls every T5 tied
        config = dataclasses.replace(config, tied=np.array_equal(other, stored["shared.weight"]))
    weights = rename(stored, family, config, where) | weights
    if found is None:
        return Stored(config, weights, "", dtype=dtype)
    unscored = None
    if config.kind == "decoder" and found.kind != "steps" and family.head.pooling == "last":
        key, usual = ("unscored_token_id", None) if exported else ("pad_token_id", family.pad_id)
        unscored = hf.get(key, usual)
        unscored = None if unscored is None or unscored < 0 else unscored
    t5 = config.kind == "encoder_decoder" and not exported
    end = int(hf.get("eos_token_id", 1)) if t5 else None
    return Stored(config, weights, family.head.pooling, found, unscored, end, dtype)


def _of_tokens(model_type: str) -> names.Head:
    """Where a classifier of tokens has its outputs.

    Raises: ValueError of a family that has none here.
    """
    if model_type == "t5":
        raise ValueError("token classification by a T5 is not supported")
    return names.Head(
        "classifier" if model_type in ("bert", "roberta", "mpnet", "gpt2") else "score", "", "last"
    )


def _headless(stored: dict[str, np.ndarray], family: Family) -> tuple[None, dict[str, np.ndarray]]:
    """Takes a classifier's arrays out of `stored`."""
    for layer in filter(None, (family.head.output, family.head.dense)):
        for part in ("weight", "bias"):
            stored.pop(f"{layer}.{part}", None)
    return None, {}


def _modern(key: str) -> str:
    """The first BERTs' norms were gamma and beta."""
    return re.sub(r"LayerNorm\.(gamma|beta)$", lambda m: f"LayerNorm.{_NORM[m[1]]}", key)


_NORM = {"gamma": "weight", "beta": "bias"}


def _head(
    stored: dict[str, np.ndarray], names_of: names.Head, hf: Mapping[str, Any], where: str
) -> tuple[Outputs | None, dict[str, np.ndarray]]:
    """What a classifier's outputs are, and its arrays by path, taken out of `stored`; None and {} where it has none.

    Raises: UserError if config.json says other outputs, or the layer before them is missing.
    """
    kernel = stored.pop(f"{names_of.output}.weight", None)
    made = outputs.read(hf, None if kernel is None else len(kernel), where)
    if made is None or kernel is None:
        return None, {}
    name = {"score": "score", "attributes": "attributes"}.get(made.kind, "logits")
    bias = stored.pop(f"{names_of.output}.bias", np.zeros(len(kernel)))
    found = {f"head/{name}/kernel": kernel.T, f"head/{name}/bias": bias}
    if names_of.dense:
        try:
            found["head/dense/kernel"] = stored.pop(f"{names_of.dense}.weight").T
            found["head/dense/bias"] = stored.pop(f"{names_of.dense}.bias")
        except KeyError as error:
            raise UserError(
                f"{where}: a classifier of whole texts needs {error}; this one is another kind"
            ) from error
    return made, {path: np.asarray(array, np.float32) for path, array in found.items()}


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
    table = family.table(config)
    wanted = {n.stored.format(i) for n in table for i in range(config.layers)}
    spare = lambda key: any(key == name or key.endswith(f".{name}") for name in family.unused)
    missing = wanted - stored.keys()
    surplus = {key for key in stored.keys() - wanted if not spare(key)}
    if missing or surplus:
        raise UserError(
            f"{where} does not fit its config: "
            f"missing {sorted(missing) or 'none'}, surplus {sorted(surplus) or 'none'}"
        )
    params = names.take(stored, table, config.layers)
    _check_shapes(params, config, where)
    if not config.tied and "lm_head.weight" in stored:
        params["unembed"] = np.asarray(stored["lm_head.weight"], np.float32)
    return params


def _check_shapes(params: Mapping[str, np.ndarray], config: Config, where: str) -> None:
    """Raises: UserError where an array has another shape than the config makes it."""
    one = jnp.zeros((1, 1), jnp.int32)
    made = jax.eval_shape(Transformer(config).init, jax.random.key(0), one, one, one)
    wanted: Any = flatten_dict({"transformer": made["params"]}, sep="/")
    other = [
        f"{path} {array.shape}, not {wanted[path].shape}"
        for path, array in params.items()
        if array.shape != wanted[path].shape
    ]
    if other:
        more = f"; and {len(other) - 3} others" if len(other) > 3 else ""
        shown = "; ".join(other[:3]) + more
        raise UserError(f"{where} does not fit its config, which makes other shapes: {shown}")
