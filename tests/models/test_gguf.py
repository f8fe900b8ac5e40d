"""GGUF files: arrays of every number type, rotation's order, tokenizers by their pre-tokenizer."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
from gguf import GGMLQuantizationType as Type

from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.models import gguf as ours

SPLITS = json.loads((Path(__file__).parents[1] / "golden/splits.json").read_text())
WIDTH, HEADS, KV_HEADS = 256, 4, 2
HEAD = WIDTH // HEADS
ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<|pad|>", "<|begin|>", "<|end|>", "<tool>", *ALPHABET, "Ġt", "he"]
TYPES = [3, 3, 3, 4, *[1] * (len(TOKENS) - 4)]
SHAPES = {
    "token_embd": (len(TOKENS), WIDTH),
    "output_norm": (WIDTH,),
    "blk.0.attn_norm": (WIDTH,),
    "blk.0.ffn_norm": (WIDTH,),
    "blk.0.attn_q": (HEADS * HEAD, WIDTH),
    "blk.0.attn_k": (KV_HEADS * HEAD, WIDTH),
    "blk.0.attn_v": (KV_HEADS * HEAD, WIDTH),
    "blk.0.attn_output": (WIDTH, HEADS * HEAD),
    "blk.0.ffn_gate": (WIDTH, WIDTH),
    "blk.0.ffn_up": (WIDTH, WIDTH),
    "blk.0.ffn_down": (WIDTH, WIDTH),
}


def stored(shape, kind, rng):
    """An array as a file holds it: quantized from numbers, or for types that cannot be, random but finite blocks."""
    if kind not in (Type.Q4_K, Type.Q6_K):
        return gguf.quantize(rng.normal(size=shape).astype(np.float32), kind)
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (*shape[:-1], shape[-1] // 256, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    places = (0, 2) if kind == Type.Q4_K else (size - 2,)  # of the blocks' own factors
    for at in places:
        blocks[..., at : at + 2] = scale
    return blocks.reshape(*shape[:-1], -1)


def write(path, kind=Type.F32, **changes):
    """A LLaMA of one layer with matrices of a number type; returns its arrays, dequantized."""
    rng, found = np.random.default_rng(0), {}
    about = {"architecture": "llama", "pre": "gpt-2", "bos": None} | changes
    writer = gguf.GGUFWriter(path, about["architecture"])
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(about["pre"])
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_merges(["Ġ t", "h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ bos_token }}")
    if about["bos"] is not None:
        writer.add_add_bos_token(about["bos"])
    for name, shape in SHAPES.items():
        own = Type.F32 if len(shape) == 1 else kind
        array = stored(shape, own, rng)
        found[name] = gguf.dequantize(array, own)
        writer.add_tensor(f"{name}.weight", array, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"])
def test_arrays_of_every_number_type_are_those_stored(kind, tmp_path):
    path = tmp_path / "model.gguf"
    want = write(path, Type[kind])
    made = ours.load(path)
    assert (made.config.width, made.config.kv_heads, made.config.tied) == (WIDTH, KV_HEADS, True)
    assert (made.bos_token, made.eos_token, made.template) == (
        "<|begin|>",
        "<|end|>",
        "{{ bos_token }}",
    )
    blocks = "transformer/blocks"
    pairs = {"token_embd": made.weights["transformer/tokens"]}
    pairs |= {
        f"blk.0.ffn_{n}": made.weights[f"{blocks}/{n}/kernel"][0].T for n in ("gate", "up", "down")
    }
    pairs["blk.0.attn_v"] = made.weights[f"{blocks}/attention/value/kernel"][0].T
    pairs["blk.0.attn_norm"] = made.weights[f"{blocks}/attention_norm/scale"][0]
    for name, array in pairs.items():
        assert array.dtype == np.float32 and np.all(np.isfinite(array))
        np.testing.assert_array_equal(array, want[name])
    # Channels i and i + E / 2 of a head, which are turned together, lie side by side in the file.
    for name, path in (("attn_q", "query"), ("attn_k", "key")):
        kernel = made.weights[f"{blocks}/attention/{path}/kernel"][0].T
        for row in range(len(kernel)):
            head, channel = divmod(row, HEAD)
            half, pair = divmod(channel, HEAD // 2)
            np.testing.assert_array_equal(
                kernel[row], want[f"blk.0.{name}"][head * HEAD + 2 * pair + half]
            )


def test_known_blocks_are_the_numbers_they_say(tmp_path):
    block = np.zeros(18, np.uint8)
    block[:2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    block[2:] = np.arange(16) | (15 << 4)  # the first 16 numbers in the low halves, 8 below
    want = 0.5 * np.concatenate([np.arange(16) - 8, np.full(16, 7)])
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("x", block[None], raw_dtype=Type.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    [tensor] = gguf.GGUFReader(path).tensors
    np.testing.assert_array_equal(ours._array(tensor)[0], want)


def tokenizer(path):
    return tokenizers.Tokenizer.from_str(ours.load(path).tokenizer)


@pytest.mark.parametrize("before", SPLITS)
def test_words_end_where_the_reference_ends_them(before, tmp_path):
    write(tmp_path / "model.gguf", pre=before)
    made = tokenizer(tmp_path / "model.gguf")
    for text, want in SPLITS[before].items():
        assert [piece for piece, _ in made.pre_tokenizer.pre_tokenize_str(text)] == want


def test_merges_and_whole_tokens_are_used(tmp_path):
    write(tmp_path / "model.gguf")
    made = Tokenizer.from_json(ours.load(tmp_path / "model.gguf").tokenizer)
    ids = made.encode(["a the"], 9)[0]
    assert [TOKENS[i] for i in ids] == ["a", "Ġt", "he"]
    whole = tokenizer(tmp_path / "model.gguf").encode("<tool>x<|end|>")
    assert whole.tokens == ["<tool>", "x", "<|end|>"]
    assert made.special_tokens == ("<|pad|>", "<|begin|>", "<|end|>")


@pytest.mark.parametrize(
    ("before", "said", "begins"),
    [
        ("gpt-2", None, False),
        ("gpt-2", True, True),
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
    ],
)
def test_a_text_begins_with_the_token_for_it_where_the_model_says_so(
    before, said, begins, tmp_path
):
    write(tmp_path / "model.gguf", pre=before, bos=said)
    made = Tokenizer.from_json(ours.load(tmp_path / "model.gguf").tokenizer)
    assert (made.encode(["x"], 9)[0][0] == 1) == begins


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "tekken"}, "pre-tokenizer 'tekken' is not supported"),
        ({"architecture": "mamba"}, "'mamba' is none of"),
    ],
)
def test_what_is_not_known_is_refused_by_name(changes, message, tmp_path):
    write(tmp_path / "model.gguf", **changes)
    with pytest.raises(UserError, match=message):
        ours.load(tmp_path / "model.gguf")
