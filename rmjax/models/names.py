"""Which stored array is which parameter: one table a family, read in one direction only.

Ours are flat paths under "transformer/"; block parameters are stacked over layers on their first axis.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rmjax.models.transformer import Config


class Name(NamedTuple):
    """A stored array's name ({} stands for the layer) and the path of our parameter."""

    stored: str
    path: str
    transpose: bool = False  # stored as [out, in]


def _dense(stored: str, path: str) -> tuple[Name, Name]:
    return Name(f"{stored}.weight", f"{path}/kernel", True), Name(f"{stored}.bias", f"{path}/bias")


def _norm(stored: str, path: str) -> tuple[Name, Name]:
    return Name(f"{stored}.weight", f"{path}/scale"), Name(f"{stored}.bias", f"{path}/bias")


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

# Stored, and no part of the hidden states: the pooler of next-sentence prediction, a table of 0..511.
BERT_UNUSED = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")

# Stored beside a decoder's hidden states: output embeddings, and rotation tables that are computed here.
LLAMA_UNUSED = ("lm_head.weight", "rotary_emb.inv_freq")


def _kernel(stored: str, path: str) -> Name:
    return Name(f"{stored}.weight", f"{path}/kernel", True)


def _scale(stored: str, path: str) -> Name:
    return Name(f"{stored}.weight", f"{path}/scale")


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


# GGUF's names of the LLaMA family's arrays, as they are stored in safetensors.
GGUF = (
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
