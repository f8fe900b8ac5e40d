"""Models as Hugging Face folders: in transformers' own architecture where that says it, else with code.

Legend: D width, C outputs.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmjax.models import hugging_face, lora, names
from rmjax.models.layers import Adapter
from rmjax.models.outputs import ORDINAL
from rmjax.models.safetensors import EXPORTED, FAMILIES, Family
from rmjax.models.transformer import Config

CODE = Path(__file__).with_name("modeling_rmjax.py.txt")
_CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "mpnet": "MPNet",
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma3_text": "Gemma3Text",
}
_LANGUAGE = {
    "gpt2": "GPT2LMHeadModel",
    "gemma3_text": "Gemma3ForCausalLM",
    "t5": "T5ForConditionalGeneration",
}


class Export(NamedTuple):
    """What goes into config.json and model.safetensors; `code`: whether modeling_rmjax.py goes beside them."""

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    code: bool


class Linear(NamedTuple):
    """A projection."""

    kernel: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]


class Head(NamedTuple):
    """A linear head, and the tanh layer before it where it has one."""

    score: Linear
    dense: Linear | None = None


def reward_model(
    config: Config,
    params: Mapping[str, np.ndarray],
    head: Head,
    *,
    pooling: str,
    pad_id: int | None,
    unscored: int | None = None,
    labels: tuple[str, ...] = (),
) -> Export:
    """Sequence classification of the transformer's parameters (by path) and a head.

    pad_id: a token that no text ends with, which padding is; None: there is none, and scores need the attention mask.
    unscored: the score is read at the last token that is another than this one, which `pad_id` then is; None: at the
      last token.
    labels: names of the outputs of a classifier, whose score is their mean; none of a scalar score.
    Raises: ValueError where no Hugging Face architecture has this transformer.
    """
    config, params = _with_types(config, params)
    inner = hugging_face.describe(config)
    family = FAMILIES[inner["model_type"]]
    stored = names.give(params, family.table(config), config.layers)
    named = labels or ("score",)
    made: dict[str, Any] = {
        "id2label": {str(i): name for i, name in enumerate(named)},
        "label2id": {name: i for i, name in enumerate(named)},
    }
    if labels:
        made[ORDINAL] = True
    if "pad_token_id" not in inner:  # RoBERTa's decides its positions
        made["pad_token_id"] = 0 if pad_id is None else pad_id
    if _native(inner["model_type"], family, head, pooling, pad_id):
        made["architectures"] = [f"{_CLASSES[inner['model_type']]}ForSequenceClassification"]
        arrays = {family.prefix + key: array for key, array in stored.items()}
        return Export(
            inner | made, arrays | _outer(head, family, biased=family.head.dense != ""), False
        )
    made |= {
        "model_type": EXPORTED,
        "dtype": "float32",
        "architectures": ["RewardModel"],
        "auto_map": {
            "AutoConfig": "modeling_rmjax.RewardConfig",
            "AutoModelForSequenceClassification": "modeling_rmjax.RewardModel",
        },
        "backbone": inner,
        "pooling": pooling,
        "hidden": head.dense is not None,
        "unscored_token_id": unscored,
        "pad_token_id": inner.get("pad_token_id", made.get("pad_token_id")),
    }
    own = family._replace(head=names.EXPORTED_HEAD, prefix="backbone.")
    arrays = {own.prefix + key: array for key, array in stored.items()}
    return Export(made, arrays | _outer(head, own, biased=True), True)


def peft(
    config: Config,
    params: Mapping[str, np.ndarray],
    head: Head,
    adapter: Adapter,
    *,
    pooling: str,
    pad_id: int | None,
    base: str,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """adapter_config.json and the arrays of adapter_model.safetensors: the adapters of `params` and the head.

    base: what PEFT calls the model that they stand beside.
    Raises: ValueError where PEFT has no such adapters, or transformers' own classifier of the family computes
      something else.
    """
    kind = hugging_face.describe(config)["model_type"]
    family = FAMILIES[kind]
    if family.head.dense or not _native(kind, family, head, pooling, pad_id):
        raise ValueError("a PEFT folder needs a classifier that transformers has without code: a decoder, pooling "
                         "'last', a head without bias or hidden layer; export it merged")  # fmt: skip
    table = {f"transformer/{name.path}": name for name in family.table(config)}
    arrays, targets, flat = _outer(head, family, biased=False), set(), True
    for path in params:
        if not (path.startswith(lora.ROOT) and path.endswith("/a")):
            continue
        own = path.removesuffix("/a")
        name = table[f"{own.removeprefix(lora.ROOT)}/kernel"]
        if name.part != (0, 1):
            raise ValueError(f"{name.stored} holds several projections; export it merged")
        stored, flat = name.stored.removesuffix(".weight"), name.transpose
        targets.add(stored.partition("{}.")[2])
        for i, (a, b) in enumerate(zip(params[path], params[f"{own}/b"], strict=True)):
            at = family.prefix + stored.format(i)
            arrays |= {f"{at}.lora_A.weight": a.T, f"{at}.lora_B.weight": b.T}
    named = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.scale * adapter.rank,  # PEFT divides it by the rank
        "lora_dropout": adapter.dropout,
        "target_modules": sorted(targets),
        "modules_to_save": [family.head.output],
        "fan_in_fan_out": not flat,
        "bias": "none",
        "inference_mode": True,
    }
    prefixed = {
        f"base_model.model.{key}": np.ascontiguousarray(array, np.float32)
        for key, array in arrays.items()
    }
    return named, prefixed


def language_model(config: Config, params: Mapping[str, np.ndarray]) -> Export:
    """A causal (or T5's) language model of the parameters of `transformer.LanguageModel` by path.

    Raises: ValueError where no Hugging Face architecture has this transformer.
    """
    hf = hugging_face.describe(config)
    kind = hf["model_type"]
    family = FAMILIES[kind]
    if config.kind == "encoder":
        raise ValueError("an encoder is no language model")
    prefix = "" if kind == "t5" else family.prefix
    stored = names.give(params, family.table(config), config.layers)
    arrays = {prefix + key: array for key, array in stored.items()}
    if not config.tied:
        arrays["lm_head.weight"] = np.asarray(params["unembed"], np.float32)
    hf["architectures"] = [_LANGUAGE.get(kind) or f"{_CLASSES[kind]}ForCausalLM"]
    return Export(hf, arrays, False)


def _native(kind: str, family: Family, head: Head, pooling: str, pad_id: int | None) -> bool:
    """Whether transformers' own classifier of this family computes the same."""
    if kind not in _CLASSES or pooling != family.head.pooling:
        return False
    if family.head.dense:
        return head.dense is not None
    # Pairwise losses leave the bias where it began, but for rounding.
    return (
        head.dense is None and pad_id is not None and bool(np.all(np.abs(head.score.bias) < 1e-5))
    )


def _outer(head: Head, family: Family, *, biased: bool) -> dict[str, np.ndarray]:
    """The head's arrays under the family's names."""
    layers = {family.head.output: head.score}
    if head.dense is not None:
        layers[family.head.dense] = head.dense
    arrays = {
        f"{name}.weight": np.ascontiguousarray(kernel.T) for name, (kernel, _) in layers.items()
    }
    if biased:
        arrays |= {f"{name}.bias": bias for name, (_, bias) in layers.items()}
    return {key: np.asarray(array, np.float32) for key, array in arrays.items()}


def _with_types(
    config: Config, params: Mapping[str, np.ndarray]
) -> tuple[Config, Mapping[str, np.ndarray]]:
    """An encoder without token types as one with a single type of zeros, which every BERT has and no MPNet."""
    if config.kind != "encoder" or config.token_types or config.relative_buckets:
        return config, params
    zeros = {"transformer/types": np.zeros((1, config.width), np.float32)}
    return dataclasses.replace(config, token_types=1), {**params, **zeros}
