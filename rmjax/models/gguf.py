"""Pretrained weights, tokenizer and chat template of a GGUF file of the LLaMA family."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from rmjax.errors import UserError
from rmjax.models import names, presets
from rmjax.models.safetensors import FAMILIES, rename
from rmjax.models.transformer import Config


def _splits(digits: str) -> str:
    """Where words begin and end in Llama 3's and Qwen 2's tokenizers, which part numbers differently."""
    parts = (
        r"(?i:'(?:s|t|re|ve|m|ll|d))",  # what an English apostrophe joins
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # letters, and one other character before them
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
    return "|".join(parts)


def _byte_level(*, words: bool) -> dict[str, Any]:
    """Bytes as characters; words: split as GPT-2 does first."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": words,
    }


def _split_by(pattern: str) -> list[dict[str, Any]]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return [split, _byte_level(words=False)]


_DIGITS = {"type": "Digits", "individual_digits": True}
_BEFORE: dict[str, list[dict[str, Any]]] = {  # steps before the merges, by tokenizer.ggml.pre
    "gpt-2": [_byte_level(words=True)],
    "smollm": [_DIGITS, _byte_level(words=True)],
    "llama-bpe": _split_by(_splits(r"\p{N}{1,3}")),
    "qwen2": _split_by(_splits(r"\p{N}")),
}
_CONTROL, _USER_DEFINED = 3, 4  # types of tokens that are matched whole; the first are special


class Stored(NamedTuple):
    """What a file holds; `tokenizer` is the text of a tokenizer.json, `template` that of a chat template or ""."""

    config: Config
    weights: dict[str, np.ndarray]
    tokenizer: str
    template: str
    bos_token: str
    eos_token: str


def load(path: Path) -> Stored:
    """Config, float32 parameters by path (dequantized), tokenizer and template.

    Raises: UserError naming the file and what of it cannot be read.
    """
    try:
        reader = gguf.GGUFReader(str(path))
        known = {key: field.contents() for key, field in reader.fields.items()}
        architecture = known["general.architecture"]
        if architecture not in ("llama", "qwen2", "qwen3"):
            raise ValueError(f"architecture {architecture!r} is none of llama, qwen2, qwen3")
        arrays = {t.name: _array(t) for t in reader.tensors}
        config = presets.llama(_config(architecture, known, arrays))
        tokenizer = _tokenizer(known)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path}: cannot be read as GGUF of the LLaMA family: {error}") from error
    stored = {_name(name): array for name, array in arrays.items()}
    if architecture == "llama":
        for key, value in stored.items():
            if key.endswith(("q_proj.weight", "k_proj.weight")):
                stored[key] = _unpermuted(value, config.head_width)
    stored.pop("rope_freqs.weight", None)  # made from the config here
    weights = rename(stored, FAMILIES[architecture], config, str(path))
    tokens = known["tokenizer.ggml.tokens"]
    special = lambda key: tokens[known[key]] if key in known else ""
    return Stored(
        config,
        weights,
        json.dumps(tokenizer, ensure_ascii=False),
        known.get("tokenizer.chat_template", ""),
        special("tokenizer.ggml.bos_token_id"),
        special("tokenizer.ggml.eos_token_id"),
    )


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)


def _name(stored: str) -> str:
    for theirs, ours in names.GGUF:
        if stored.startswith(theirs) or theirs.startswith("."):
            stored = stored.replace(theirs, ours, 1)
    return stored


def _unpermuted(kernel: np.ndarray, head_width: int) -> np.ndarray:
    """Rows [heads * E, D] in the order of rotation by halves: the converter interleaves the halves of each head."""
    split = kernel.reshape(-1, head_width // 2, 2, kernel.shape[1])
    return split.swapaxes(1, 2).reshape(kernel.shape)


def _config(
    architecture: str, known: dict[str, Any], arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The metadata as a Hugging Face config says it."""
    get = lambda key: known[f"{architecture}.{key}"]
    heads = get("attention.head_count")
    if (
        known.get(f"{architecture}.rope.scaling.type", "none") != "none"
        or "rope_freqs.weight" in arrays
    ):
        raise ValueError("rope scaling in GGUF is not supported; take the model's safetensors")
    return {
        "model_type": architecture,
        "vocab_size": len(known["tokenizer.ggml.tokens"]),
        "hidden_size": get("embedding_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": known.get(f"{architecture}.attention.head_count_kv", heads),
        "head_dim": known.get(f"{architecture}.attention.key_length"),
        "intermediate_size": get("feed_forward_length"),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": known.get(f"{architecture}.rope.freq_base", 10_000.0),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in arrays,
    }


def _tokenizer(known: dict[str, Any]) -> dict[str, Any]:
    """A byte-level BPE as a tokenizer.json has it."""
    model, before = known["tokenizer.ggml.model"], known.get("tokenizer.ggml.pre", "gpt-2")
    if model != "gpt2" or before not in _BEFORE:
        raise ValueError(
            f"tokenizer {model!r} with the pre-tokenizer {before!r} is not supported (gpt2 with "
            f"{', '.join(_BEFORE)} is); take the model's folder with its tokenizer.json"
        )
    tokens, types = known["tokenizer.ggml.tokens"], known["tokenizer.ggml.token_type"]
    added = [
        {
            "id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": kind == _CONTROL,
        }
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if before == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _BEFORE[before]},
        "post_processor": _beginning(known, before),
        "decoder": _byte_level(words=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": before == "llama-bpe",  # words that are tokens stay whole
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in known["tokenizer.ggml.merges"]],
        },
    }


def _beginning(known: dict[str, Any], before: str) -> dict[str, Any] | None:
    """What puts the token of beginning before a text, where the model has that; Llama 3 need not say so."""
    if not known.get("tokenizer.ggml.add_bos_token", before == "llama-bpe"):
        return None
    index = known["tokenizer.ggml.bos_token_id"]
    token = known["tokenizer.ggml.tokens"][index]
    bos, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"id": "A", "type_id": 0}
    second = [{**bos}, {"Sequence": {"id": "B", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": text}],
        "pair": [bos, {"Sequence": text}, *second],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }
