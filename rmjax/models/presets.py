"""Model sizes: from a Hugging Face config, and small ones that start from nothing."""

from collections.abc import Mapping
from typing import Any

from rmjax.models.transformer import Config

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation {name!r} is none of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _refuse(hf: Mapping[str, Any], **only: Any) -> None:
    """Raises: ValueError where a key is there with another value than Block computes, named here."""
    for key, known in only.items():
        if hf.get(key, known) != known:
            raise ValueError(f"{key} {hf[key]!r} is not supported")


def bert(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face `config.json` of BERT or RoBERTa.

    Raises: KeyError where a key is missing; ValueError where this is not the BERT that Block computes.
    """
    _refuse(hf, position_embedding_type="absolute", is_decoder=False)
    layers, heads, width = hf["num_hidden_layers"], hf["num_attention_heads"], hf["hidden_size"]
    return _bert_like(
        vocab_size=hf["vocab_size"],
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        first_position=hf["pad_token_id"] + 1 if hf["model_type"] == "roberta" else 0,
        token_types=hf["type_vocab_size"],
        activation=_activation(hf["hidden_act"]),
        norm_eps=hf["layer_norm_eps"],
    )


def mpnet(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face `config.json` of MPNet: learned positions, and T5's bias by distance.

    Raises: as `bert`.
    """
    _refuse(hf, relative_attention_num_buckets=32)  # transformers has 32 whatever the config says
    layers, heads, width = hf["num_hidden_layers"], hf["num_attention_heads"], hf["hidden_size"]
    return _bert_like(
        vocab_size=hf["vocab_size"],
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        first_position=2,  # behind that of padding, which transformers counts as token 1 whatever the config says
        activation=_activation(hf["hidden_act"]),
        norm_eps=hf["layer_norm_eps"],
        relative_buckets=32,
        relative_distance=128,
    )


def gpt2(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face `config.json` of GPT-2.

    Raises: as `bert`.
    """
    _refuse(
        hf,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    layers, heads, width = hf["n_layer"], hf["n_head"], hf["n_embd"]
    return _bert_like(
        kind="decoder",
        norm_at="pre",
        tied=hf.get("tie_word_embeddings", True),
        vocab_size=hf["vocab_size"],
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=hf.get("n_inner") or 4 * width,
        max_positions=hf.get("n_positions") or hf["n_ctx"],
        activation=_activation(hf["activation_function"]),
        norm_eps=hf["layer_norm_epsilon"],
    )


# What a family has not: the switches that change nothing. A preset names all others.
_NEUTRAL: Mapping[str, Any] = {
    "token_types": 0,
    "first_position": 0,
    "gated": False,
    "qk_norm": False,
    "embedding_scale": 1.0,
    "logit_scale": 1.0,
    "rope_base": 0.0,
    "rope_scaling": (),
    "local_rope_base": 0.0,
    "relative_buckets": 0,
    "relative_distance": 0,
}


def _bert_like(*, width: int, layers: int, heads: int, **sizes: Any) -> Config:
    """An encoder as BERT: what `sizes` does not say otherwise, and heads that divide the width."""
    fixed: dict[str, Any] = {
        "kind": "encoder",
        "width": width,
        "layers": layers,
        "heads": heads,
        "kv_heads": heads,
        "head_width": width // heads,
        "attention_scale": (width // heads) ** -0.5,
        "positions": "learned",
        "norm": "layer",
        "norm_at": "post",
        "biases": "all",
        "tied": True,
        "windows": (0,) * layers,
    }
    return Config(**{**_NEUTRAL, **fixed, **sizes})


def _rms_like(**sizes: Any) -> Config:
    """RMS norms and no biases, as LLaMA, Gemma and T5 have: what `sizes` does not say otherwise."""
    fixed = {"norm": "rms", "norm_at": "pre", "biases": "none"}
    return Config(**{**_NEUTRAL, **fixed, **sizes})


def llama(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face `config.json` of LLaMA, Mistral, Qwen2 or Qwen3.

    Raises: KeyError where a key is missing; ValueError where Block does not compute this model.
    """
    kind = hf["model_type"]
    _refuse(hf, mlp_bias=False, attention_bias=False, hidden_act="silu")
    layers, heads = hf["num_hidden_layers"], hf["num_attention_heads"]
    head_width = hf.get("head_dim") or hf["hidden_size"] // heads
    base, scaling = _rope(hf.get("rope_parameters") or hf.get("rope_scaling") or {}, hf)
    return _rms_like(
        kind="decoder",
        vocab_size=hf["vocab_size"],
        width=hf["hidden_size"],
        layers=layers,
        heads=heads,
        kv_heads=hf.get("num_key_value_heads") or heads,
        head_width=head_width,
        mlp_width=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        positions="rotary",
        norm_eps=hf["rms_norm_eps"],
        activation="silu",
        gated=True,
        biases="qkv" if kind == "qwen2" else "none",
        qk_norm=kind == "qwen3",
        attention_scale=head_width**-0.5,
        tied=hf.get("tie_word_embeddings", False),
        rope_base=base,
        rope_scaling=scaling,
        windows=_windows(hf, layers),
    )


def _rope(found: Mapping[str, Any], hf: Mapping[str, Any]) -> tuple[float, tuple[float, ...]]:
    """Base and scaling, as transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters) write them."""
    base = found.get("rope_theta", hf.get("rope_theta", 10_000.0))
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
    """Each layer's sliding window, 0 for none: of Mistral's all layers, of Qwen's those that are said to have one."""
    window = hf.get("sliding_window") or 0
    if hf["model_type"] == "mistral":
        return (window,) * layers
    if hf["model_type"] == "llama" or not hf.get("use_sliding_window"):
        return (0,) * layers
    kinds = hf.get("layer_types")
    if kinds is None:
        return tuple(window if i >= hf["max_window_layers"] else 0 for i in range(layers))
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)


def gemma3(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face `config.json` of a Gemma 3 of text.

    Raises: as `bert`.
    """
    _refuse(
        hf,
        attention_bias=False,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        use_bidirectional_attention=False,
    )
    layers = hf["num_hidden_layers"]
    kinds = hf.get("layer_types")
    if kinds is None:  # every sixth layer sees all
        every = hf["sliding_window_pattern"]
        kinds = ["full_attention" if i % every == 0 else "" for i in range(1, layers + 1)]
    found = hf.get("rope_parameters")
    if found is None:
        base, scaling = _rope(hf.get("rope_scaling") or {}, hf)
        local = hf["rope_local_base_freq"]
    else:
        base, scaling = _rope(found["full_attention"], hf)
        local, other = _rope(found["sliding_attention"], hf)
        if other:
            raise ValueError("rope scaling of layers with a window is not supported")
    return _rms_like(
        kind="decoder",
        vocab_size=hf["vocab_size"],
        width=hf["hidden_size"],
        layers=layers,
        heads=hf["num_attention_heads"],
        kv_heads=hf["num_key_value_heads"],
        head_width=hf["head_dim"],
        mlp_width=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        positions="rotary",
        norm_at="both",
        norm_eps=hf["rms_norm_eps"],
        activation=_activation(hf["hidden_activation"]),
        gated=True,
        qk_norm=True,
        attention_scale=hf["query_pre_attn_scalar"] ** -0.5,
        embedding_scale=hf["hidden_size"] ** 0.5,
        tied=hf.get("tie_word_embeddings", True),
        rope_base=base,
        rope_scaling=scaling,
        windows=tuple(0 if kind == "full_attention" else hf["sliding_window"] for kind in kinds),
        local_rope_base=float(local),
    )


def t5(hf: Mapping[str, Any]) -> Config:
    """The Config of a Hugging Face `config.json` of T5, v1.0 or v1.1; keys left out mean what T5 had first.

    Raises: as `bert`.
    """
    _refuse(hf, decoder_start_token_id=0)
    layers = hf["num_layers"]
    if hf.get("num_decoder_layers", layers) not in (layers, None):
        raise ValueError("num_decoder_layers other than num_layers is not supported")
    _, gated, name = hf.get("feed_forward_proj", "relu").rpartition("gated-")
    tied = hf.get("tie_word_embeddings", True)
    # transformers 5 says so, and of all T5 that they are tied
    scaled = hf.get("scale_decoder_outputs", tied)
    return _rms_like(
        kind="encoder_decoder",
        vocab_size=hf["vocab_size"],
        width=hf["d_model"],
        layers=layers,
        heads=hf["num_heads"],
        kv_heads=hf["num_heads"],
        head_width=hf["d_kv"],
        mlp_width=hf["d_ff"],
        max_positions=hf.get("n_positions", 512),
        positions="relative",
        norm_eps=hf["layer_norm_epsilon"],
        activation="gelu_tanh" if name == "gelu" and gated else _activation(name),
        gated=bool(gated),
        attention_scale=1.0,
        logit_scale=hf["d_model"] ** -0.5 if scaled else 1.0,
        tied=tied,
        windows=(0,) * layers,
        relative_buckets=hf["relative_attention_num_buckets"],
        relative_distance=hf.get("relative_attention_max_distance", 128),
    )


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
        mlp_width=4 * width,
        max_positions=max_positions,
        activation="gelu",
        norm_eps=1e-12,
    )


def decoder(vocab_size: int, width: int, layers: int, max_positions: int) -> Config:
    """A GPT-2-shaped decoder: causal, pre-norm, tanh GELU."""
    shape = vars(encoder(vocab_size, width, layers, max_positions))
    causal = {"kind": "decoder", "norm_at": "pre", "activation": "gelu_tanh", "norm_eps": 1e-5}
    return Config(**shape | causal)


def encoder_decoder(vocab_size: int, width: int, layers: int, max_positions: int) -> Config:
    """A T5-shaped encoder–decoder (v1.1: gated, output embeddings of its own).

    Raises: as `encoder`.
    """
    sizes = encoder(vocab_size, width, layers, max_positions)
    return t5(
        {
            "vocab_size": vocab_size,
            "d_model": width,
            "num_layers": layers,
            "num_heads": sizes.heads,
            "d_kv": sizes.head_width,
            "d_ff": sizes.mlp_width,
            "n_positions": max_positions,
            "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "relative_attention_num_buckets": 32,
        }
    )
