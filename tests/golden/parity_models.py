"""Tiny models of every family as config.json, and the names, shapes and sizes of the arrays that each has."""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

VOCABULARY = 448  # of every model, so that few programs are compiled; no tokenizer has more tokens
LEARNED = 160  # positions of models that learn them
ROTARY = 48  # max_position_embeddings of the others: not a limit
D, F, LAYERS = 24, 40, 2
Json = dict[str, Any]


class Array(NamedTuple):
    """A stored array, drawn from a normal distribution."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0

    def draw(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return (self.mean + self.std * rng.normal(size=self.shape)).astype(np.float32)


_ENCODER = {
    "vocab_size": VOCABULARY, "hidden_size": D, "num_hidden_layers": LAYERS, "hidden_act": "gelu",
    "num_attention_heads": 4, "intermediate_size": F, "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1, "classifier_dropout": None, "initializer_range": 0.02,
    "position_embedding_type": "absolute", "use_cache": True,
}  # fmt: skip
_DECODER = {
    "vocab_size": VOCABULARY, "hidden_size": D, "intermediate_size": F, "hidden_act": "silu",
    "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": ROTARY, "rms_norm_eps": 1e-5, "attention_dropout": 0.0,
    "tie_word_embeddings": False, "use_cache": True,
}  # fmt: skip
_LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 100.0,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY, "d_model": D, "d_ff": F, "d_kv": 5, "num_layers": LAYERS,
    "num_decoder_layers": LAYERS, "num_heads": 3, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20, "decoder_start_token_id": 0, "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1, "classifier_dropout": 0.0, "n_positions": 512,
    "initializer_factor": 1.0, "use_cache": True,
}  # fmt: skip
# As files have them: of transformers 4 (rope_theta, rope_scaling, sliding_window_pattern) and 5 (rope_parameters).
CONFIGS: Mapping[str, Json] = {
    "bert": _ENCODER
    | {"max_position_embeddings": LEARNED, "type_vocab_size": 2, "layer_norm_eps": 1e-12},
    "roberta": _ENCODER
    | {"max_position_embeddings": LEARNED + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "mpnet": _ENCODER
    | {
        "max_position_embeddings": LEARNED + 2, "layer_norm_eps": 1e-5,
        "relative_attention_num_buckets": 32,
    },
    "gpt2": {
        "vocab_size": VOCABULARY, "n_embd": D, "n_layer": LAYERS, "n_head": 4, "n_inner": None,
        "n_positions": LEARNED, "n_ctx": LEARNED, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1,
        "summary_type": "cls_index", "summary_use_proj": True, "summary_first_dropout": 0.1,
    },
    "llama": _DECODER
    | {"rope_parameters": _LLAMA3_ROPE, "attention_bias": False, "mlp_bias": False},
    "mistral": _DECODER | {"rope_theta": 1000.0, "sliding_window": 9, "head_dim": 8},
    "qwen2": _DECODER
    | {"rope_theta": 500.0, "use_sliding_window": False, "sliding_window": 9, "max_window_layers": 1},
    "qwen3": _DECODER
    | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "head_dim": 8,
        "attention_bias": False, "use_sliding_window": False, "sliding_window": None,
    },
    "gemma3_text": _DECODER
    | {
        "hidden_act": None, "hidden_activation": "gelu_pytorch_tanh", "head_dim": 8,
        "query_pre_attn_scalar": 24, "sliding_window": 9, "attention_bias": False,
        "layer_types": ["sliding_attention", "full_attention"], "tie_word_embeddings": True,
        "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "t5": _T5 | {"feed_forward_proj": "relu"},
    "t5_gated": _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}  # fmt: skip
_CLASSES = {
    "bert": "Bert", "roberta": "Roberta", "mpnet": "MPNet", "gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral",
    "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3_text": "Gemma3Text", "t5": "T5", "t5_gated": "T5",
}  # fmt: skip
ENCODERS = ("bert", "roberta", "mpnet")
ROTATED = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")


class Head(NamedTuple):
    """What a classifier's outputs are: their names in order, and config.json's problem_type."""

    labels: tuple[str, ...]
    problem: str | None = None
    per_token: bool = False


HEADS: Mapping[str, Head] = {
    "scalar": Head(("LABEL_0",)),
    "scalar_regression": Head(("reward",), "regression"),
    "two": Head(("good", "bad"), "single_label_classification"),
    "three": Head(("POSITIVE", "NEGATIVE", "NEUTRAL")),
    "stars": Head(("5 stars", "1 star", "3 stars"), "single_label_classification"),
    "attributes": Head(
        ("helpfulness", "correctness", "coherence", "complexity", "verbosity"), "regression"
    ),
    "several": Head(("toxic", "honest", "polite", "safe"), "multi_label_classification"),
    "tokens": Head(("wrong", "right"), per_token=True),
}


def config(family: str, head: str, **changes: Any) -> Json:
    """A config.json; changes of a key to "absent" leave it out."""
    names = HEADS[head].labels
    kind = "TokenClassification" if HEADS[head].per_token else "SequenceClassification"
    made = {
        "architectures": [f"{_CLASSES[family]}For{kind}"],
        "model_type": "t5" if family == "t5_gated" else family,
        **CONFIGS[family],
        # Out of order, as a JSON object's keys may be.
        "id2label": {str(i): names[i] for i in reversed(range(len(names)))},
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": HEADS[head].problem,
        "dtype": "float32",
        **changes,
    }
    return {key: value for key, value in made.items() if value != "absent"}


def arrays(family: str, head: str) -> list[Array]:
    """The arrays of a model.safetensors, as transformers writes it."""
    outputs, per_token = len(HEADS[head].labels), HEADS[head].per_token
    if family in ENCODERS:
        found = _encoder(family, outputs, per_token)
    elif family == "gpt2":
        found = _gpt2(outputs, per_token)
    elif family in ROTATED:
        found = _rotated(family, outputs, per_token)
    else:
        found = _t5(family, outputs)
    return list(found)


def _dense(
    name: str, inner: int, outer: int, bias: bool = True, gain: float = 1.2
) -> Iterator[Array]:
    yield Array(f"{name}.weight", (outer, inner), gain * inner**-0.5)
    if bias:
        yield Array(f"{name}.bias", (outer,), 0.3, 0.1)


def _norm(name: str, width: int, bias: bool = True, mean: float = 1.3) -> Iterator[Array]:
    yield Array(f"{name}.weight", (width,), 0.3, mean)
    if bias:
        yield Array(f"{name}.bias", (width,), 0.3, 0.1)


def _encoder(family: str, outputs: int, per_token: bool) -> Iterator[Array]:
    own, sizes = f"{family}.", CONFIGS[family]
    for table, rows in (
        ("word", VOCABULARY),
        ("position", sizes["max_position_embeddings"]),
        ("token_type", sizes.get("type_vocab_size")),
    ):
        if rows is None:
            continue
        yield Array(f"{own}embeddings.{table}_embeddings.weight", (rows, D), 0.7)
    yield from _norm(f"{own}embeddings.LayerNorm", D)
    for i in range(LAYERS):
        layer = f"{own}encoder.layer.{i}"
        parts, norm = ("self.query", "self.key", "self.value", "output.dense"), "output.LayerNorm"
        if family == "mpnet":
            parts, norm = ("attn.q", "attn.k", "attn.v", "attn.o"), "LayerNorm"
        for part in parts:
            yield from _dense(f"{layer}.attention.{part}", D, D, gain=2.0)
        yield from _norm(f"{layer}.attention.{norm}", D)
        yield from _dense(f"{layer}.intermediate.dense", D, F)
        yield from _dense(f"{layer}.output.dense", F, D)
        yield from _norm(f"{layer}.output.LayerNorm", D)
    if family == "mpnet":
        heads, buckets = sizes["num_attention_heads"], sizes["relative_attention_num_buckets"]
        yield Array(f"{own}encoder.relative_attention_bias.weight", (buckets, heads), 1.5)
    if per_token:
        yield from _dense("classifier", D, outputs)
    elif family == "bert":
        yield from _dense("bert.pooler.dense", D, D)
        yield from _dense("classifier", D, outputs)
    else:
        yield from _dense("classifier.dense", D, D)
        yield from _dense("classifier.out_proj", D, outputs)


def _gpt2(outputs: int, per_token: bool) -> Iterator[Array]:
    def conv(name: str, inner: int, outer: int) -> Iterator[Array]:
        yield Array(f"{name}.weight", (inner, outer), 1.2 * inner**-0.5)  # stored as [in, out]
        yield Array(f"{name}.bias", (outer,), 0.3, 0.1)

    yield Array("transformer.wte.weight", (VOCABULARY, D), 0.7)
    yield Array("transformer.wpe.weight", (LEARNED, D), 0.7)
    for i in range(LAYERS):
        layer = f"transformer.h.{i}"
        yield from _norm(f"{layer}.ln_1", D)
        yield from conv(f"{layer}.attn.c_attn", D, 3 * D)
        yield from conv(f"{layer}.attn.c_proj", D, D)
        yield from _norm(f"{layer}.ln_2", D)
        yield from conv(f"{layer}.mlp.c_fc", D, 4 * D)
        yield from conv(f"{layer}.mlp.c_proj", 4 * D, D)
    yield from _norm("transformer.ln_f", D)
    yield from _dense("classifier" if per_token else "score", D, outputs, bias=per_token)


def _rotated(family: str, outputs: int, per_token: bool) -> Iterator[Array]:
    gemma, sizes = family == "gemma3_text", CONFIGS[family]
    mean = 0.3 if gemma else 1.3  # Gemma's scales are stored less 1
    heads, key_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    width = sizes.get("head_dim") or D // heads
    yield Array("model.embed_tokens.weight", (VOCABULARY, D), D**-0.5 if gemma else 1.0)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for part, count in (("q", heads), ("k", key_heads), ("v", key_heads)):
            name = f"{layer}.self_attn.{part}_proj"
            yield from _dense(name, D, count * width, bias=family == "qwen2")
        yield from _dense(f"{layer}.self_attn.o_proj", heads * width, D, bias=False)
        if gemma or family == "qwen3":
            for part in ("q", "k"):
                yield from _norm(f"{layer}.self_attn.{part}_norm", width, False, mean)
        for part, inner, outer in (("gate", D, F), ("up", D, F), ("down", F, D)):
            yield from _dense(f"{layer}.mlp.{part}_proj", inner, outer, bias=False)
        norms = ["input", "post_attention"]
        norms += ["pre_feedforward", "post_feedforward"] if gemma else []
        for part in norms:
            yield from _norm(f"{layer}.{part}_layernorm", D, False, mean)
    yield from _norm("model.norm", D, False, mean)
    yield from _dense("score", D, outputs, bias=per_token)


def _t5(family: str, outputs: int) -> Iterator[Array]:
    inner, gated = _T5["num_heads"] * _T5["d_kv"], family == "t5_gated"
    yield Array("transformer.shared.weight", (VOCABULARY, D), 1.0)
    for stack in ("encoder", "decoder"):
        buckets = (_T5["relative_attention_num_buckets"], _T5["num_heads"])
        first = f"transformer.{stack}.block.0.layer.0.SelfAttention"
        yield Array(f"{first}.relative_attention_bias.weight", buckets, 1.0)
        attentions = ["SelfAttention"] + ["EncDecAttention"] * (stack == "decoder")
        for i in range(LAYERS):
            layer = f"transformer.{stack}.block.{i}.layer"
            for j, name in enumerate(attentions):
                # Queries are not divided by the root of a head's width.
                for part, std in (("q", 0.5 * D**-0.5), ("k", D**-0.5), ("v", D**-0.5)):
                    yield Array(f"{layer}.{j}.{name}.{part}.weight", (inner, D), std)
                yield Array(f"{layer}.{j}.{name}.o.weight", (D, inner), inner**-0.5)
                yield from _norm(f"{layer}.{j}.layer_norm", D, bias=False)
            last = f"{layer}.{len(attentions)}"
            for part in ("wi_0", "wi_1") if gated else ("wi",):
                yield from _dense(f"{last}.DenseReluDense.{part}", D, F, bias=False)
            yield from _dense(f"{last}.DenseReluDense.wo", F, D, bias=False)
            yield from _norm(f"{last}.layer_norm", D, bias=False)
        yield from _norm(f"transformer.{stack}.final_layer_norm", D, bias=False)
    yield from _dense("classification_head.dense", D, D)
    yield from _dense("classification_head.out_proj", D, outputs)
