"""Which stored array is which parameter: one table a family, read in one direction only.

Ours are flat paths under "transformer/"; block parameters are stacked over layers on their first axis.
"""

from typing import NamedTuple


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
