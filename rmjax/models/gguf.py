"""Pretrained weights, tokenizer and chat template of a GGUF file."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from rmjax.errors import UserError
from rmjax.models import gguf_config, gguf_tokenizer, names
from rmjax.models.safetensors import FAMILIES, rename
from rmjax.models.transformer import Config


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

    Architectures: llama (with Mistral), qwen2, qwen3, gpt2, gemma3; with the numbers that llama.cpp's converter writes.
    Raises: UserError naming the file and what of it cannot be read.
    """
    try:
        reader = gguf.GGUFReader(str(path))
        known = {key: field.contents() for key, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        rates = tensors.pop("rope_freqs.weight", None)
        hf = gguf_config.describe(
            known,
            tied="output.weight" not in tensors,
            rates=None if rates is None else _array(rates),
        )
        family = FAMILIES[hf["model_type"]]
        config = family.config(hf)
        tokenizer = gguf_tokenizer.describe(known)
        architecture = known["general.architecture"]
        stored = {_name(name, architecture): _array(tensor) for name, tensor in tensors.items()}
    except KeyError as error:
        raise UserError(f"{path}: its metadata have no {error}; is it a whole model?") from error
    except (OSError, ValueError, IndexError, NotImplementedError) as error:
        raise UserError(f"{path}: cannot be read as GGUF: {error}") from error
    if architecture == "llama":
        for key, value in stored.items():
            if key.endswith(("q_proj.weight", "k_proj.weight")):
                stored[key] = _unpermuted(value, config.head_width)
    own = family._replace(table=lambda config: names.stored_in_gguf(family.table(config)))
    weights = rename(stored, own, config, str(path))
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


def _name(stored: str, architecture: str) -> str:
    for theirs, ours in names.GGUF[architecture]:
        if stored.startswith(theirs) or theirs.startswith("."):
            stored = stored.replace(theirs, ours, 1)
    return stored


def _unpermuted(kernel: np.ndarray, head_width: int) -> np.ndarray:
    """Rows [heads * E, D] in the order of rotation by halves: the converter interleaves the halves of each head."""
    split = kernel.reshape(-1, head_width // 2, 2, kernel.shape[1])
    return split.swapaxes(1, 2).reshape(kernel.shape)
