"""The config.json of a transformer: the inverse of `presets`, family by family."""

from collections.abc import Callable, Mapping
from typing import Any

from rmjax.models.safetensors import FAMILIES
from rmjax.models.transformer import Config

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}


def describe(config: Config) -> dict[str, Any]:
    """The config.json of the first family that has this transformer: read again, it gives the same Config.

    Raises: ValueError where no family has it.
    """
    for model_type, write in _WRITERS.items():
        hf = {"model_type": model_type, "dtype": "float32", **write(config)}
        try:
            if FAMILIES[model_type].config(hf) == config:
                return hf
        except (ValueError, ZeroDivisionError):  # the family has no such thing
            continue
    raise ValueError(f"no Hugging Face architecture ({', '.join(_WRITERS)}) has this transformer")


def _sizes(c: Config) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.mlp_width,
        "max_position_embeddings": c.max_positions,
        "tie_word_embeddings": c.tied,
    }


def _bert(c: Config) -> dict[str, Any]:
    return _sizes(c) | {
        "type_vocab_size": c.token_types,
        "hidden_act": _ACTIVATIONS[c.activation],
        "layer_norm_eps": c.norm_eps,
    }


def _roberta(c: Config) -> dict[str, Any]:
    return _bert(c) | {"pad_token_id": c.first_position - 1}


def _mpnet(c: Config) -> dict[str, Any]:
    own = _bert(c) | {"relative_attention_num_buckets": c.relative_buckets, "pad_token_id": 1}
    del own["type_vocab_size"]
    return own


def _gpt2(c: Config) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "n_embd": c.width,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_inner": c.mlp_width,
        "n_positions": c.max_positions,
        "activation_function": _ACTIVATIONS[c.activation],
        "layer_norm_epsilon": c.norm_eps,
        "tie_word_embeddings": c.tied,
    }


def _llama(c: Config) -> dict[str, Any]:
    windows = {w for w in c.windows if w}
    return _sizes(c) | {
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "hidden_act": _ACTIVATIONS[c.activation],
        "rms_norm_eps": c.norm_eps,
        "rope_parameters": _rope(c.rope_base, c.rope_scaling),
        "sliding_window": max(windows, default=None),
        "layer_types": ["sliding_attention" if w else "full_attention" for w in c.windows],
    }


def _qwen(c: Config) -> dict[str, Any]:
    return _llama(c) | {"use_sliding_window": any(c.windows)}


def _gemma3(c: Config) -> dict[str, Any]:
    own = _llama(c)
    own.pop("hidden_act")
    scalar = c.attention_scale**-2
    return own | {
        "hidden_activation": {"gelu_tanh": "gelu_pytorch_tanh"}.get(c.activation, c.activation),
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
        "rope_parameters": {
            "full_attention": _rope(c.rope_base, c.rope_scaling),
            "sliding_attention": _rope(c.local_rope_base, ()),
        },
    }


def _t5(c: Config) -> dict[str, Any]:
    act = "gelu" if c.activation == "gelu_tanh" and c.gated else _ACTIVATIONS[c.activation]
    return {
        "vocab_size": c.vocab_size,
        "d_model": c.width,
        "d_kv": c.head_width,
        "d_ff": c.mlp_width,
        "num_layers": c.layers,
        "num_heads": c.heads,
        "n_positions": c.max_positions,
        "layer_norm_epsilon": c.norm_eps,
        "feed_forward_proj": f"gated-{act}" if c.gated else act,
        "tie_word_embeddings": c.tied,
        "scale_decoder_outputs": c.logit_scale != 1.0,
        "relative_attention_num_buckets": c.relative_buckets,
        "relative_attention_max_distance": c.relative_distance,
        "decoder_start_token_id": 0,
    }


def _rope(base: float, scaling: Any) -> dict[str, Any]:
    found = {"rope_theta": base, "rope_type": ("default", "linear", "", "", "llama3")[len(scaling)]}
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    found |= dict(zip(names, scaling, strict=False))
    if len(scaling) == 4:
        found[names[-1]] = int(scaling[-1])
    return found


_WRITERS: Mapping[str, Callable[[Config], dict[str, Any]]] = {
    "bert": _bert,
    "roberta": _roberta,
    "mpnet": _mpnet,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "gemma3_text": _gemma3,
    "t5": _t5,
}
