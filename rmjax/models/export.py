"""A reward model as a Hugging Face folder: in transformers' own architecture where that says it, else with code.

Legend: D width, C outputs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmjax.models import names
from rmjax.models.transformer import Config

CODE = Path(__file__).with_name("modeling_rmjax.py.txt")
_CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


class Export(NamedTuple):
    """What goes into config.json and model.safetensors; `code`: whether modeling_rmjax.py goes beside them."""

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    code: bool


def reward_model(
    config: Config,
    params: Mapping[str, np.ndarray],
    kernel: np.ndarray,
    bias: np.ndarray,
    *,
    pooling: str,
    pad_id: int,
    labels: tuple[str, ...] = (),
) -> Export:
    """Sequence classification of the transformer's parameters (by path) and a linear head.

    kernel [D, C], bias [C]: of the head. labels: names of the outputs of a classifier; none of a scalar score.
    Raises: ValueError where no Hugging Face architecture has this transformer.
    """
    inner = hugging_face(config)
    stored = _stored(config, params)
    made: dict[str, Any] = {
        "num_labels": kernel.shape[1],
        "pad_token_id": pad_id,
        "dtype": "float32",
    }
    if labels:
        made["id2label"] = {str(i): name for i, name in enumerate(labels)}
        made["label2id"] = {name: i for i, name in enumerate(labels)}
    else:
        made["id2label"], made["label2id"] = {"0": "score"}, {"score": 0}
    del made["num_labels"]  # transformers counts the labels
    score = {"score.weight": np.ascontiguousarray(kernel.T)}
    family = _CLASSES.get(inner["model_type"])
    # Pairwise losses leave the bias where it began, but for rounding.
    if family and pooling == "last" and np.all(np.abs(bias) < 1e-5):
        native = {"architectures": [f"{family}ForSequenceClassification"]}
        return Export(
            inner | made | native, {f"model.{k}": v for k, v in stored.items()} | score, False
        )
    outer = {
        "model_type": "rmjax_reward",
        "architectures": ["RewardModel"],
        "auto_map": {
            "AutoConfig": "modeling_rmjax.RewardConfig",
            "AutoModelForSequenceClassification": "modeling_rmjax.RewardModel",
        },
        "backbone": inner,
        "pooling": pooling,
    }
    arrays = {f"backbone.{k}": v for k, v in stored.items()} | score | {"score.bias": bias}
    return Export(outer | made, arrays, True)


def _stored(config: Config, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The transformer's parameters under their stored names."""
    table = names.BERT if config.kind == "encoder" else names.llama(config)
    found = {}
    for name in table:
        value = np.asarray(params[f"transformer/{name.path}"], np.float32)
        layers = enumerate(value) if "{}" in name.stored else [(0, value)]
        for i, one in layers:
            found[name.stored.format(i)] = np.ascontiguousarray(one.T if name.transpose else one)
    return found


def hugging_face(config: Config) -> dict[str, Any]:
    """The config.json of a transformer; the inverse of `presets.bert` and `presets.llama`.

    Raises: ValueError where neither has it.
    """
    c = config
    sizes = {
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.mlp_width,
        "max_position_embeddings": c.max_positions,
    }
    if (c.kind, c.positions, c.norm_at) == ("encoder", "learned", "post") and c.token_types:
        acts = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
        return sizes | {
            "model_type": "bert",
            "type_vocab_size": c.token_types,
            "hidden_act": acts[c.activation],
            "layer_norm_eps": c.norm_eps,
        }
    if (c.kind, c.positions, c.norm, c.norm_at) != ("decoder", "rotary", "rms", "pre"):
        raise ValueError(
            "no Hugging Face architecture has this transformer; only those of pretrained models"
        )
    kind = (
        "qwen3"
        if c.qk_norm
        else "qwen2"
        if c.biases == "qkv"
        else "mistral"
        if any(c.windows)
        else "llama"
    )
    windows = {w for w in c.windows if w}
    return sizes | {
        "model_type": kind,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tied,
        "rope_parameters": _rope(c),
        "sliding_window": max(windows, default=None),
        "layer_types": ["sliding_attention" if w else "full_attention" for w in c.windows],
        "use_sliding_window": bool(windows),
    }


def _rope(config: Config) -> dict[str, Any]:
    base = {"rope_theta": config.rope_base}
    match tuple(config.rope_scaling):
        case ():
            return base | {"rope_type": "default"}
        case (factor,):
            return base | {"rope_type": "linear", "factor": factor}
        case (factor, low, high, original):
            more = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high}
            return (
                base
                | more
                | {"rope_type": "llama3", "original_max_position_embeddings": int(original)}
            )
    raise ValueError(
        f"rope scaling {config.rope_scaling} is none that `positions.frequencies` reads"
    )
