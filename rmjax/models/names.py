"""Which stored array is which parameter: one table a family, read in both directions.

Ours are flat paths under "transformer/"; block parameters are stacked over layers on their first axis.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmjax.models.transformer import Config


class Name(NamedTuple):
    """A stored array's name ({} stands for the layer) and the path of our parameter."""

    stored: str
    path: str
    transpose: bool = False  # stored as [out, in]
    offset: float = 0.0  # ours is the stored one plus this
    part: tuple[int, int] = (0, 1)  # (which, of how many) equal parts of the stored last axis


def take(
    stored: Mapping[str, np.ndarray], table: Iterable[Name], layers: int
) -> dict[str, np.ndarray]:
    """Float32 parameters by path under "transformer/", those of layers stacked."""

    def one(name: Name, layer: int) -> np.ndarray:
        array, (which, count) = stored[name.stored.format(layer)], name.part
        array = np.asarray(array.T if name.transpose else array, np.float32) + np.float32(
            name.offset
        )
        return np.split(array, count, axis=-1)[which]

    return {
        f"transformer/{name.path}": np.stack([one(name, i) for i in range(layers)])
        if "{}" in name.stored
        else one(name, 0)
        for name in table
    }


def give(params: Mapping[str, Any], table: Iterable[Name], layers: int) -> dict[str, np.ndarray]:
    """The stored arrays of parameters: the inverse of `take`."""
    parts: dict[str, list[np.ndarray]] = {}
    for name in sorted(table, key=lambda name: name.part):
        array = np.asarray(params[f"transformer/{name.path}"], np.float32) - np.float32(name.offset)
        for i, one in enumerate(array) if "{}" in name.stored else [(0, array)]:
            parts.setdefault(name.stored.format(i), []).append(one.T if name.transpose else one)
    return {
        key: np.ascontiguousarray(np.concatenate(found, axis=-1)) for key, found in parts.items()
    }


def _dense(stored: str, path: str) -> tuple[Name, Name]:
    return _kernel(stored, path), Name(f"{stored}.bias", f"{path}/bias")


def _kernel(stored: str, path: str) -> Name:
    return Name(f"{stored}.weight", f"{path}/kernel", True)


def _norm(stored: str, path: str) -> tuple[Name, Name]:
    return _scale(stored, path), Name(f"{stored}.bias", f"{path}/bias")


def _scale(stored: str, path: str) -> Name:
    return Name(f"{stored}.weight", f"{path}/scale")


BERT = (
    Name("embeddings.word_embeddings.weight", "tokens"),
    Name("embeddings.position_embeddings.weight", "positions"),
    Name("embeddings.token_type_embeddings.weight", "types"),
    *_norm("embeddings.LayerNorm", "embedding_norm"),
    *_dense("encoder.layer.{}.attention.self.query", "blocks/attention/query"),
    *_dense("encoder.layer.{}.attention.self.key", "blocks/attention/key"),
    *_dense("encoder.layer.{}.attention.self.value", "blocks/attention/value"),
    *_dense("encoder.layer.{}.attention.output.dense", "blocks/attention/output"),
    *_norm("encoder.layer.{}.attention.output.LayerNorm", "blocks/attention_norm"),
    *_dense("encoder.layer.{}.intermediate.dense", "blocks/up"),
    *_dense("encoder.layer.{}.output.dense", "blocks/down"),
    *_norm("encoder.layer.{}.output.LayerNorm", "blocks/mlp_norm"),
)

_MPNET_ATTENTION = zip("qkvo", ("query", "key", "value", "output"), strict=True)
MPNET = (
    Name("embeddings.word_embeddings.weight", "tokens"),
    Name("embeddings.position_embeddings.weight", "positions"),
    *_norm("embeddings.LayerNorm", "embedding_norm"),
    *(
        name
        for stored, ours in _MPNET_ATTENTION
        for name in _dense(
            f"encoder.layer.{{}}.attention.attn.{stored}", f"blocks/attention/{ours}"
        )
    ),
    *_norm("encoder.layer.{}.attention.LayerNorm", "blocks/attention_norm"),
    *_dense("encoder.layer.{}.intermediate.dense", "blocks/up"),
    *_dense("encoder.layer.{}.output.dense", "blocks/down"),
    *_norm("encoder.layer.{}.output.LayerNorm", "blocks/mlp_norm"),
    Name("encoder.relative_attention_bias.weight", "relative"),
)

# Stored, and no part of the hidden states: the heads of pretraining, a table of 0, 1, 2, ...
_PARTS = ("weight", "bias")
BERT_UNUSED = (
    "embeddings.position_ids",
    "cls.predictions.bias",
    *(f"pooler.dense.{part}" for part in _PARTS),
    *(f"cls.predictions.{name}.{part}"
      for name in ("transform.dense", "transform.LayerNorm", "decoder") for part in _PARTS),
    *(f"cls.seq_relationship.{part}" for part in _PARTS),
)  # fmt: skip
ROBERTA_UNUSED = (
    "embeddings.position_ids",
    "lm_head.bias",
    *(f"pooler.dense.{part}" for part in _PARTS),
    *(f"lm_head.{name}.{part}" for name in ("dense", "layer_norm", "decoder") for part in _PARTS),
)


def _conv(stored: str, path: str, part: tuple[int, int] = (0, 1)) -> tuple[Name, Name]:
    """GPT-2's projections, stored as [in, out]."""
    weight, bias = (
        Name(f"{stored}.weight", f"{path}/kernel"),
        Name(f"{stored}.bias", f"{path}/bias"),
    )
    return weight._replace(part=part), bias._replace(part=part)


GPT2 = (
    Name("wte.weight", "tokens"),
    Name("wpe.weight", "positions"),
    *_norm("h.{}.ln_1", "blocks/attention_norm"),
    *_conv("h.{}.attn.c_attn", "blocks/attention/query", (0, 3)),
    *_conv("h.{}.attn.c_attn", "blocks/attention/key", (1, 3)),
    *_conv("h.{}.attn.c_attn", "blocks/attention/value", (2, 3)),
    *_conv("h.{}.attn.c_proj", "blocks/attention/output"),
    *_norm("h.{}.ln_2", "blocks/mlp_norm"),
    *_conv("h.{}.mlp.c_fc", "blocks/up"),
    *_conv("h.{}.mlp.c_proj", "blocks/down"),
    *_norm("ln_f", "final_norm"),
)

# Output embeddings are taken apart from the others; causal masks and rotation tables are computed here.
GPT2_UNUSED = ("lm_head.weight", "attn.bias", "attn.masked_bias")
LLAMA_UNUSED = ("lm_head.weight", "rotary_emb.inv_freq")


def llama(config: Config) -> Sequence[Name]:
    """LLaMA, Mistral, Qwen2 (with biases of queries, keys and values) and Qwen3 (with norms of queries and keys)."""
    layer, block = "layers.{}", "blocks"
    inputs = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"))
    table = [
        Name("embed_tokens.weight", "tokens"),
        *(_kernel(f"{layer}.self_attn.{a}", f"{block}/attention/{b}") for a, b in inputs),
        _kernel(f"{layer}.self_attn.o_proj", f"{block}/attention/output"),
        _scale(f"{layer}.input_layernorm", f"{block}/attention_norm"),
        _scale(f"{layer}.post_attention_layernorm", f"{block}/mlp_norm"),
        *(_kernel(f"{layer}.mlp.{n}_proj", f"{block}/{n}") for n in ("gate", "up", "down")),
        _scale("norm", "final_norm"),
    ]
    if config.biases == "qkv":
        table += [
            Name(f"{layer}.self_attn.{a}.bias", f"{block}/attention/{b}/bias") for a, b in inputs
        ]
    if config.qk_norm:
        table += [
            _scale(f"{layer}.self_attn.{a}_norm", f"{block}/attention/{b}_norm")
            for a, b in (("q", "query"), ("k", "key"))
        ]
    return table


def gemma3(config: Config) -> Sequence[Name]:
    """Gemma 3: as LLaMA, with norms after each part too; scales are stored less 1."""
    renamed = {
        "layers.{}.post_attention_layernorm.weight": "layers.{}.pre_feedforward_layernorm.weight"
    }
    after = (("attention", "attention_post_norm"), ("feedforward", "mlp_post_norm"))
    table = [name._replace(stored=renamed.get(name.stored, name.stored)) for name in llama(config)]
    table += [_scale(f"layers.{{}}.post_{a}_layernorm", f"blocks/{b}") for a, b in after]
    return [name._replace(offset=1.0) if name.path.endswith("/scale") else name for name in table]


def t5(config: Config) -> Sequence[Name]:
    """T5, whose encoder is under "encoder/"; gated (v1.1) or not."""
    table = [Name("shared.weight", "tokens")]
    for stack, root in (("encoder", "encoder/"), ("decoder", "")):
        layer, blocks = f"{stack}.block.{{}}.layer", f"{root}blocks"
        attentions = [("0.SelfAttention", "attention", "0.layer_norm")]
        if stack == "decoder":
            attentions += [("1.EncDecAttention", "cross", "1.layer_norm")]
        for stored, ours, norm in attentions:
            parts = zip("qkvo", ("query", "key", "value", "output"), strict=True)
            table += [_kernel(f"{layer}.{stored}.{a}", f"{blocks}/{ours}/{b}") for a, b in parts]
            table += [_scale(f"{layer}.{norm}", f"{blocks}/{ours}_norm")]
        last = f"{layer}.{len(attentions)}"
        inner = (("wi_0", "gate"), ("wi_1", "up")) if config.gated else (("wi", "up"),)
        table += [
            *(
                _kernel(f"{last}.DenseReluDense.{a}", f"{blocks}/{b}")
                for a, b in (*inner, ("wo", "down"))
            ),
            _scale(f"{last}.layer_norm", f"{blocks}/mlp_norm"),
            _scale(f"{stack}.final_layer_norm", f"{root}final_norm"),
            Name(
                f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                f"{root}relative",
            ),
        ]
    return table


# Copies of the shared embeddings, and a table of the attention to the encoder that nobody reads.
T5_UNUSED = (
    "embed_tokens.weight",
    "lm_head.weight",
    "EncDecAttention.relative_attention_bias.weight",
)


class Head(NamedTuple):
    """Names of a sequence classifier's last projection and of the tanh layer before it, "" for none; its pooling."""

    output: str
    dense: str
    pooling: str


SCORE = Head("score", "", "last")
BERT_HEAD = Head("classifier", "pooler.dense", "first")
ROBERTA_HEAD = Head("classifier.out_proj", "classifier.dense", "first")
EXPORTED_HEAD = Head("score", "dense", "")  # of modeling_rmjax.py; its config.json says the pooling
T5_HEAD = Head("classification_head.out_proj", "classification_head.dense", "last")


# GGUF's names of arrays, as they are stored in safetensors; by architecture.
_GGUF_LLAMA = (
    ("token_embd", "embed_tokens"),
    ("output_norm", "norm"),
    ("output.", "lm_head."),
    ("blk.", "layers."),
    (".attn_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
    (".attn_q_norm.", ".self_attn.q_norm."),
    (".attn_k_norm.", ".self_attn.k_norm."),
    (".attn_q.", ".self_attn.q_proj."),
    (".attn_k.", ".self_attn.k_proj."),
    (".attn_v.", ".self_attn.v_proj."),
    (".attn_output.", ".self_attn.o_proj."),
    (".ffn_gate.", ".mlp.gate_proj."),
    (".ffn_up.", ".mlp.up_proj."),
    (".ffn_down.", ".mlp.down_proj."),
)
_GGUF_GEMMA3 = (
    *((a, ".pre_feedforward_layernorm." if a == ".ffn_norm." else b) for a, b in _GGUF_LLAMA),
    (".post_attention_norm.", ".post_attention_layernorm."),
    (".post_ffw_norm.", ".post_feedforward_layernorm."),
)
_GGUF_GPT2 = (
    ("token_embd", "wte"),
    ("position_embd", "wpe"),
    ("output_norm", "ln_f"),
    ("output.", "lm_head."),
    ("blk.", "h."),
    (".attn_norm.", ".ln_1."),
    (".attn_qkv.", ".attn.c_attn."),
    (".attn_output.", ".attn.c_proj."),
    (".ffn_norm.", ".ln_2."),
    (".ffn_up.", ".mlp.c_fc."),
    (".ffn_down.", ".mlp.c_proj."),
)
GGUF: Mapping[str, Sequence[tuple[str, str]]] = {
    **dict.fromkeys(("llama", "qwen2", "qwen3"), _GGUF_LLAMA),
    "gemma3": _GGUF_GEMMA3,
    "gpt2": _GGUF_GPT2,
}


def stored_in_gguf(table: Iterable[Name]) -> list[Name]:
    """A family's table as GGUF has its arrays: every projection as [out, in], norms' scales whole."""
    return [n._replace(transpose=n.path.endswith("/kernel"), offset=0.0) for n in table]
