"""Model sizes: from a Hugging Face config, and small ones that start from nothing."""

from collections.abc import Mapping
from typing import Any

from rmjax.models.transformer import Config

_BERT_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu"}


def bert(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face BERT `config.json`.

    Raises: KeyError where a key is missing; ValueError where this is not the BERT that Block computes.
    """
    if hf["model_type"] != "bert":
        raise ValueError(f"model_type is {hf['model_type']!r}, not 'bert'")
    if hf.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"position_embedding_type {hf['position_embedding_type']!r} is not supported"
        )
    if hf["hidden_act"] not in _BERT_ACTIVATIONS:
        raise ValueError(f"hidden_act {hf['hidden_act']!r} is none of {sorted(_BERT_ACTIVATIONS)}")
    layers, heads, width = hf["num_hidden_layers"], hf["num_attention_heads"], hf["hidden_size"]
    return _bert_like(
        vocab_size=hf["vocab_size"],
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        attention_scale=(width // heads) ** -0.5,
        mlp_width=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        token_types=hf["type_vocab_size"],
        windows=(0,) * layers,
        activation=_BERT_ACTIVATIONS[hf["hidden_act"]],
        norm_eps=hf["layer_norm_eps"],
    )


def _bert_like(**sizes: Any) -> Config:
    fixed: dict[str, Any] = {
        "kind": "encoder",
        "positions": "learned",
        "first_position": 0,
        "norm": "layer",
        "norm_at": "post",
        "gated": False,
        "biases": "all",
        "qk_norm": False,
        "embedding_scale": 1.0,
        "logit_scale": 1.0,
        "tied": True,
        "rope_base": 0.0,
        "rope_scaling": (),
        "local_rope_base": 0.0,
        "relative_buckets": 0,
        "relative_distance": 0,
    }
    return Config(**fixed | sizes)


def encoder(vocab_size: int, width: int, layers: int, max_positions: int) -> Config:
    """A BERT-shaped encoder: post-norm, heads of 32 or less, an MLP of 4 widths."""
    heads = max(width // 32, 2)
    return _bert_like(
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        attention_scale=(width // heads) ** -0.5,
        mlp_width=4 * width,
        max_positions=max_positions,
        token_types=0,
        windows=(0,) * layers,
        activation="gelu",
        norm_eps=1e-12,
    )


def decoder(vocab_size: int, width: int, layers: int, max_positions: int) -> Config:
    """A GPT-2-shaped decoder: causal, pre-norm, tanh GELU."""
    shape = vars(encoder(vocab_size, width, layers, max_positions))
    causal = {"kind": "decoder", "norm_at": "pre", "activation": "gelu_tanh", "norm_eps": 1e-5}
    return Config(**shape | causal)
