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
    return Config(
        vocab_size=hf["vocab_size"],
        width=hf["hidden_size"],
        layers=hf["num_hidden_layers"],
        heads=hf["num_attention_heads"],
        mlp_width=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        token_types=hf["type_vocab_size"],
        causal=False,
        pre_norm=False,
        activation=_BERT_ACTIVATIONS[hf["hidden_act"]],
        norm_eps=hf["layer_norm_eps"],
    )


def encoder(vocab_size: int, width: int, layers: int, max_positions: int) -> Config:
    """A BERT-shaped encoder: post-norm, heads of 32 or less, an MLP of 4 widths."""
    return Config(
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=max(width // 32, 2),
        mlp_width=4 * width,
        max_positions=max_positions,
        token_types=0,
        causal=False,
        pre_norm=False,
        activation="gelu",
        norm_eps=1e-12,
    )


def decoder(vocab_size: int, width: int, layers: int, max_positions: int) -> Config:
    """A GPT-2-shaped decoder: causal, pre-norm, tanh GELU."""
    shape = vars(encoder(vocab_size, width, layers, max_positions))
    return Config(
        **shape | {"causal": True, "pre_norm": True, "activation": "gelu_tanh", "norm_eps": 1e-5}
    )
