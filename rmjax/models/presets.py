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


_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")


def llama(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face `config.json` of LLaMA, Mistral, Qwen2 or Qwen3.

    Raises: KeyError where a key is missing; ValueError where Block does not compute this model.
    """
    kind = hf["model_type"]
    if kind not in _LLAMA_LIKE:
        raise ValueError(f"model_type is {kind!r}, none of {', '.join(_LLAMA_LIKE)}")
    for key in ("attention_bias", "mlp_bias"):
        if hf.get(key):
            raise ValueError(f"{key} is not supported")
    if hf["hidden_act"] != "silu":
        raise ValueError(f"hidden_act {hf['hidden_act']!r} is not 'silu'")
    layers, heads = hf["num_hidden_layers"], hf["num_attention_heads"]
    head_width = hf.get("head_dim") or hf["hidden_size"] // heads
    base, scaling = _rope(hf)
    return Config(
        kind="decoder",
        vocab_size=hf["vocab_size"],
        width=hf["hidden_size"],
        layers=layers,
        heads=heads,
        kv_heads=hf.get("num_key_value_heads") or heads,
        head_width=head_width,
        mlp_width=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        token_types=0,
        positions="rotary",
        first_position=0,
        norm="rms",
        norm_at="pre",
        norm_eps=hf["rms_norm_eps"],
        activation="silu",
        gated=True,
        biases="qkv" if kind == "qwen2" else "none",
        qk_norm=kind == "qwen3",
        attention_scale=head_width**-0.5,
        embedding_scale=1.0,
        logit_scale=1.0,
        tied=hf["tie_word_embeddings"],
        rope_base=base,
        rope_scaling=scaling,
        windows=_windows(hf, layers),
        local_rope_base=0.0,
        relative_buckets=0,
        relative_distance=0,
    )


def _rope(hf: Mapping[str, Any]) -> tuple[float, tuple[float, ...]]:
    """Base and scaling, as transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters) write them."""
    found = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    base = found.get("rope_theta", hf.get("rope_theta"))
    if base is None:
        raise KeyError("rope_theta")
    match found.get("rope_type", found.get("type", "default")):
        case "default":
            return float(base), ()
        case "linear":
            return float(base), (float(found["factor"]),)
        case "llama3":
            keys = ("factor", "low_freq_factor", "high_freq_factor")
            original = found["original_max_position_embeddings"]
            return float(base), (*(float(found[k]) for k in keys), float(original))
        case other:
            raise ValueError(f"rope scaling {other!r} is none of default, linear, llama3")


def _windows(hf: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Each layer's sliding window, 0 for none: of Mistral's all layers, of Qwen's those from max_window_layers on."""
    window = hf.get("sliding_window") or 0
    kinds = hf.get("layer_types")
    if kinds:
        return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    if hf["model_type"] == "mistral":
        return (window,) * layers
    if not hf.get("use_sliding_window"):
        return (0,) * layers
    return tuple(window if i >= hf["max_window_layers"] else 0 for i in range(layers))


def encoder(vocab_size: int, width: int, layers: int, max_positions: int) -> Config:
    """A BERT-shaped encoder: post-norm, heads of 32 or less, an MLP of 4 widths.

    Raises: ValueError if the heads do not divide the width.
    """
    heads = max(width // 32, 2)
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of its {heads} heads")
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
