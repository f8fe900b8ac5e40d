"""What the metadata of a GGUF file say of its transformer, as a Hugging Face config says it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rmjax.models.positions import frequencies

_Read = Callable[[Mapping[str, Any], np.ndarray | None], dict[str, Any]]
_ELSEWHERE = "take the model's folder with its safetensors"


def describe(known: Mapping[str, Any], *, tied: bool, rates: np.ndarray | None) -> dict[str, Any]:
    """The config.json of the model in a file.

    known: the metadata.
    tied: whether the file has no output embeddings of their own.
    rates: the array rope_freqs.weight [E / 2], where there is one.
    Raises: KeyError where the metadata lack a key; ValueError naming what is not supported.
    """
    architecture = known["general.architecture"]
    if architecture not in _READERS:
        raise ValueError(
            f"architecture {architecture!r} is none of {', '.join(_READERS)}; {_ELSEWHERE}"
        )
    start = f"{architecture}."
    own = {key.removeprefix(start): value for key, value in known.items() if key.startswith(start)}
    return {
        "model_type": architecture,
        "vocab_size": len(known["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
    } | _READERS[architecture](own, rates)


def _gpt2(own: Mapping[str, Any], rates: np.ndarray | None) -> dict[str, Any]:
    return {
        "n_embd": own["embedding_length"],
        "n_layer": own["block_count"],
        "n_head": own["attention.head_count"],
        "n_inner": own["feed_forward_length"],
        "n_positions": own["context_length"],
        "layer_norm_epsilon": own["attention.layer_norm_epsilon"],
        "activation_function": "gelu_new",
    }


def _sizes(own: Mapping[str, Any]) -> dict[str, Any]:
    width, heads = own["embedding_length"], own["attention.head_count"]
    return {
        "hidden_size": width,
        "num_hidden_layers": own["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": own.get("attention.head_count_kv", heads),
        "head_dim": own.get("attention.key_length", width // heads),
        "intermediate_size": own["feed_forward_length"],
        "max_position_embeddings": own["context_length"],
        "rms_norm_eps": own["attention.layer_norm_rms_epsilon"],
    }


def _llama(own: Mapping[str, Any], rates: np.ndarray | None) -> dict[str, Any]:
    """LLaMA; with a sliding window it is Mistral, which has no architecture of its own."""
    sizes, window = _sizes(own), own.get("attention.sliding_window")
    kind = {"model_type": "mistral", "sliding_window": window} if window else {}
    return sizes | kind | {"rope_parameters": _rope(own, rates, sizes["head_dim"])}


def _qwen(own: Mapping[str, Any], rates: np.ndarray | None) -> dict[str, Any]:
    window = own.get("attention.sliding_window", 0)
    if 0 < window < own["context_length"]:
        raise ValueError(f"a sliding window in Qwen's GGUF is not supported; {_ELSEWHERE}")
    return _llama({**own, "attention.sliding_window": 0}, rates)


def _gemma3(own: Mapping[str, Any], rates: np.ndarray | None) -> dict[str, Any]:
    """Gemma 3; what the metadata leave out is what llama.cpp takes for it."""
    sizes, window = _sizes(own), own.get("attention.sliding_window", 0)
    layers, head_width = sizes["num_hidden_layers"], sizes["head_dim"]
    cut = own.get("attention.sliding_window_pattern", 6)
    if isinstance(cut, int):  # every so manyth layer sees all
        cut = [(i + 1) % cut != 0 for i in range(layers)]
    if len(cut) != layers:
        raise ValueError(f"sliding_window_pattern has {len(cut)} values for {layers} layers")
    # Of all sizes the one with 62 layers alone (27B) scales queries by its width.
    by_width = sizes["hidden_size"] // sizes["num_attention_heads"]
    return sizes | {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": by_width if layers == 62 else head_width,
        "sliding_window": window,
        "layer_types": ["sliding_attention" if c and window else "full_attention" for c in cut],
        "rope_parameters": {
            "full_attention": _rope(own, rates, head_width),
            "sliding_attention": {"rope_theta": own.get("rope.freq_base_swa", 10_000.0)},
        },
        "attn_logit_softcapping": own.get("attn_logit_softcapping") or None,
        "final_logit_softcapping": own.get("final_logit_softcapping") or None,
    }


def _rope(own: Mapping[str, Any], rates: np.ndarray | None, head_width: int) -> dict[str, Any]:
    """Base and scaling of rotation, as transformers writes them."""
    turned = own.get("rope.dimension_count", head_width)
    if turned != head_width:
        raise ValueError(f"rotation of {turned} of a head's {head_width} channels is not supported")
    base = own.get("rope.freq_base", 10_000.0)
    kind = own.get("rope.scaling.type", "linear")  # a factor alone divides positions
    if kind not in ("none", "linear"):
        raise ValueError(
            f"rope scaling {kind!r} in GGUF is not supported (linear and Llama 3's are); {_ELSEWHERE}"
        )
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 1.0)) or 1.0
    factor = 1.0 if kind == "none" else factor
    if rates is None:
        scaled = {"rope_type": "linear", "factor": factor} if factor != 1.0 else {}
        return {"rope_theta": base, **scaled}
    if factor != 1.0:
        raise ValueError(f"rope_freqs.weight with linear scaling is not supported; {_ELSEWHERE}")
    original = own.get("rope.scaling.original_context_length", 8192)
    return {"rope_theta": base, **_llama3(rates, base, head_width, original)}


def _llama3(rates: np.ndarray, base: float, head_width: int, original: int) -> dict[str, Any]:
    """The scaling whose factors for each frequency [E / 2] are those stored, with the numbers of every Llama 3.

    Raises: ValueError if they are others.
    """
    found = {"factor": float(rates[-1]), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    found["original_max_position_embeddings"] = float(original)
    plain = frequencies(base, head_width, ())
    want = plain / frequencies(base, head_width, tuple(found.values()))
    if rates.shape != want.shape or not np.allclose(rates, want, rtol=1e-4, atol=0.0):
        raise ValueError(
            "rope_freqs.weight is not Llama 3's scaling with low_freq_factor 1, high_freq_factor 4 and "
            f"original_max_position_embeddings {original}, and no other is supported; {_ELSEWHERE}"
        )
    return {"rope_type": "llama3", **found}


_READERS: Mapping[str, _Read] = {
    "llama": _llama,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "gpt2": _gpt2,
    "gemma3": _gemma3,
}
