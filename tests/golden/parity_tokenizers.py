"""Tokenizers of every convention as tokenizer.json and tokenizer_config.json, made of four small stored vocabularies.

parity/tokenizers/NAME.json hold what was trained (by make_parity.py --train): merges and scores, no special tokens.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

HOME = Path(__file__).parent / "parity" / "tokenizers"
SPACE = "▁"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
MAP = "special_tokens_map"
Json = dict[str, Any]


def write(name: str, folder: Path, **changes: Any) -> dict[str, int]:
    """Writes one convention's files; returns the ids of its special tokens by their role ("eos", ...).

    changes: keys of tokenizer_config.json that are set, or left out where None.
    """
    made, config = CONVENTIONS[name]()
    config = {"model_max_length": 32, **config, **changes}
    config = {key: value for key, value in config.items() if value is not None}
    text = json.dumps({"version": "1.0", "truncation": None, "padding": None, **made})
    read = tokenizers.Tokenizer.from_str(text)  # as the library writes it, defaults included
    (folder / "tokenizer.json").write_text(read.to_str(), encoding="utf-8")
    if MAP in config:
        (folder / f"{MAP}.json").write_text(json.dumps(config.pop(MAP)), encoding="utf-8")
    told = json.dumps(config, ensure_ascii=False, indent=1)
    (folder / "tokenizer_config.json").write_text(told, encoding="utf-8")
    return {role: read.token_to_id(token) for role, token in spelled(name).items()}


def spelled(name: str) -> dict[str, str]:
    """The special tokens that a convention's files name, by their role: "eos", "pad", ..."""
    _, config = CONVENTIONS[name]()
    config = config | config.get(MAP, {})
    named = {key.removesuffix("_token"): config[key] for key in config if key.endswith("_token")}
    bare = lambda token: token["content"] if isinstance(token, dict) else token
    return {r: bare(token) for r, token in named.items() if isinstance(token, str | dict)}


@functools.cache
def _trained(name: str) -> Json:
    return json.loads((HOME / f"{name}.json").read_text("utf-8"))


def _added(vocabulary: Mapping[str, int], tokens: Sequence[str], **more: bool) -> list[Json]:
    """Entries of "added_tokens"; a token named with a trailing ~ is added but not special."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, **more}
    bare = [(token.removesuffix("~"), not token.endswith("~")) for token in tokens]
    return [{"id": vocabulary[t], "content": t, **flags, "special": s} for t, s in bare]


def _around(vocabulary: Mapping[str, int], single: str, pair: str) -> Json:
    """A post-processor from texts as "[CLS]:0 $A:0 [SEP]:0"."""
    words = {word.rpartition(":")[0] for word in pair.split()} - {"$A", "$B"}

    def part(word: str) -> Json:
        token, _, kind = word.rpartition(":")
        name = "Sequence" if token[0] == "$" else "SpecialToken"
        return {name: {"id": token.removeprefix("$"), "type_id": int(kind)}}

    special = {w: {"id": w, "ids": [vocabulary[w]], "tokens": [w]} for w in sorted(words)}
    return {
        "type": "TemplateProcessing",
        "single": [part(word) for word in single.split()],
        "pair": [part(word) for word in pair.split()],
        "special_tokens": special,
    }


def _bos(vocabulary: Mapping[str, int], bos: str) -> Json:
    return _around(vocabulary, f"{bos}:0 $A:0", f"{bos}:0 $A:0 {bos}:1 $B:1")


def _wordpiece(lower: bool, **config: Any) -> tuple[Json, Json]:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary = _numbered(special, _trained("wordpiece")["vocabulary"])
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    made = {
        "added_tokens": _added(vocabulary, special),
        "normalizer": normalizer | {"strip_accents": None, "lowercase": lower},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _around(
            vocabulary, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
        ),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    }  # fmt: skip
    names = ("pad", "unk", "cls", "sep", "mask")
    return made, {f"{n}_token": t for n, t in zip(names, special, strict=True)} | config


def _mpnet(**config: Any) -> tuple[Json, Json]:
    """BERT's vocabulary and words, RoBERTa's special tokens."""
    made, _ = _wordpiece(True)
    special = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
    vocabulary = _numbered(special, _trained("wordpiece")["vocabulary"])
    made["model"]["vocab"], made["added_tokens"] = vocabulary, _added(vocabulary, special)
    made["added_tokens"][-1]["lstrip"] = True  # it takes the space before it
    made["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["</s>", vocabulary["</s>"]],
        "cls": ["<s>", vocabulary["<s>"]], "trim_offsets": True, "add_prefix_space": False,
    }  # fmt: skip
    names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "[UNK]"}
    names |= {"pad": "<pad>", "mask": "<mask>"}
    return made, {f"{role}_token": token for role, token in names.items()} | config


def _numbered(*parts: Sequence[str]) -> dict[str, int]:
    return {t.removesuffix("~"): i for i, t in enumerate(t for part in parts for t in part)}


def _bytes(first: Sequence[str], last: Sequence[str], **model: Any) -> tuple[Json, dict[str, int]]:
    """Byte-level BPE with special tokens before and behind its vocabulary."""
    trained = _trained("bytes")
    vocabulary = _numbered(first, trained["vocabulary"], last)
    bare = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    made = {
        "added_tokens": _added(vocabulary, [*first, *last]),
        "normalizer": None,
        "pre_tokenizer": bare,
        "post_processor": bare | {"trim_offsets": False},
        "decoder": bare,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": trained["merges"], **model},
    }
    return made, vocabulary


def _words(pattern: str) -> Json:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    bare = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, bare]}


def _roberta(**config: Any) -> tuple[Json, Json]:
    made, vocabulary = _bytes(("<s>", "<pad>", "</s>", "<unk>"), ("<mask>",))
    made["added_tokens"][-1]["lstrip"] = True  # it takes the space before it
    made["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["</s>", vocabulary["</s>"]],
        "cls": ["<s>", vocabulary["<s>"]], "trim_offsets": True, "add_prefix_space": False,
    }  # fmt: skip
    names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>"}
    names |= {"pad": "<pad>", "mask": "<mask>"}
    return made, {f"{role}_token": token for role, token in names.items()} | config


def _gpt2(**config: Any) -> tuple[Json, Json]:
    made, _ = _bytes((), ("<|endoftext|>",))
    end = "<|endoftext|>"
    return made, {
        "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False,
        "bos_token": end, "eos_token": end, "unk_token": end,
    } | config  # fmt: skip


def _llama3(ends: bool = False, **config: Any) -> tuple[Json, Json]:
    """ends: whether <|eot_id|> is put behind a text."""
    special = (
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>", "<|finetune_right_pad_id|>",
    )  # fmt: skip
    made, vocabulary = _bytes((), special, ignore_merges=True)
    made["pre_tokenizer"] = _words(LLAMA3_WORDS)
    framed = _bos(vocabulary, "<|begin_of_text|>")
    if ends:
        one = "<|begin_of_text|>:0 $A:0 <|eot_id|>:0"
        framed = _around(vocabulary, one, f"{one} $B:1 <|eot_id|>:1")
    made["post_processor"] = {"type": "Sequence", "processors": [made["post_processor"], framed]}
    return made, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
        "pad_token": "<|finetune_right_pad_id|>",
    } | config  # fmt: skip


def _qwen(**config: Any) -> tuple[Json, Json]:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    marks = ("<tool_call>~", "</tool_call>~", "<think>~", "</think>~")
    made, _ = _bytes((), (*special, *marks))
    made["normalizer"] = {"type": "NFC"}
    made["pre_tokenizer"] = _words(QWEN_WORDS)
    return made, {
        "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "bos_token": None,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    } | config  # fmt: skip


def _pieces(first: Sequence[str], last: Sequence[str] = ()) -> tuple[Json, dict[str, int]]:
    """SentencePiece's BPE: spaces are ▁, characters that it has not are bytes."""
    trained = _trained("pieces")
    spelled = [f"<0x{i:02X}>" for i in range(256)]
    vocabulary = _numbered(first, spelled, trained["vocabulary"], last)
    back = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    back += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    made = {
        "added_tokens": _added(vocabulary, [*first, *last]),
        "normalizer": None,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": {
            "type": "BPE", "vocab": vocabulary, "merges": trained["merges"],
            "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
        },
    }  # fmt: skip
    return made, vocabulary


def _llama2(scheme: str, split: bool = False, **config: Any) -> tuple[Json, Json]:
    """scheme: "legacy", a normalizer that prepends ▁ to whatever stands between special tokens; or of a Metaspace."""
    made, vocabulary = _pieces(("<unk>", "<s>", "</s>"))
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if scheme == "legacy":
        steps = [{"type": "Prepend", "prepend": SPACE}, replaced]
        made["normalizer"] = {"type": "Sequence", "normalizers": steps}
    else:
        space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme}
        made["pre_tokenizer"] = space | {"split": split}
    made["post_processor"] = _bos(vocabulary, "<s>")
    return made, {"tokenizer_class": "PreTrainedTokenizerFast", **_LLAMA2_NAMES, **config}


_LLAMA2_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _as_transformers_4(**config: Any) -> tuple[Json, Json]:
    """Special tokens as objects, and all added tokens once more in tokenizer_config.json."""
    made, told = _llama2("legacy", pad_token="</s>", **config)
    listed = {str(token["id"]): token for token in made["added_tokens"]}
    added = {i: {k: v for k, v in token.items() if k != "id"} for i, token in listed.items()}
    objects = {
        key: {"__type": "AddedToken", **added[i]}
        for key, token in told.items()
        for i in added
        if added[i]["content"] == token
    }
    return made, told | objects | {"added_tokens_decoder": added}


def _named_elsewhere(names: Mapping[str, Any], **config: Any) -> tuple[Json, Json]:
    """tokenizer_config.json names no special tokens; special_tokens_map.json those of `names`."""
    made, told = _llama2("legacy", **config)
    bare = {key: value for key, value in told.items() if key not in _LLAMA2_NAMES}
    return made, bare | ({MAP: dict(names)} if names else {})


def _gemma(**config: Any) -> tuple[Json, Json]:
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    made, vocabulary = _pieces(special, ("<start_of_turn>", "<end_of_turn>"))
    made["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    made["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
        "invert": False,
    }  # fmt: skip
    made["post_processor"] = _bos(vocabulary, "<bos>")
    names = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>", "mask": "<mask>"}
    return made, {
        "tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False,
        **{f"{role}_token": token for role, token in names.items()},
    } | config  # fmt: skip


def _t5(**config: Any) -> tuple[Json, Json]:
    special = ("<pad>", "</s>", "<unk>")
    last = ("<extra_id_1>", "<extra_id_0>")
    trained = _trained("unigram")["vocabulary"]
    scored = [[t, 0.0] for t in special] + trained + [[t, 0.0] for t in last]
    vocabulary = _numbered([token for token, _ in scored])
    space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    made = {
        "added_tokens": _added(vocabulary, [*special, *last]),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space],
        },
        "post_processor": _around(vocabulary, "$A:0 </s>:0", "$A:0 </s>:0 $B:0 </s>:0"),
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": scored, "byte_fallback": False},
    }  # fmt: skip
    return made, {
        "tokenizer_class": "T5Tokenizer", "extra_ids": 2,
        "additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"],
        "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
    } | config  # fmt: skip


_TYPED = ["input_ids", "token_type_ids", "attention_mask"]
_FAST = "PreTrainedTokenizerFast"
CONVENTIONS = {
    "bert": lambda: _wordpiece(True, tokenizer_class="BertTokenizer", do_lower_case=True),
    "bert_cased": lambda: _wordpiece(
        False, tokenizer_class="BertTokenizerFast", do_lower_case=False, strip_accents=None
    ),
    "bert_unnamed": lambda: _wordpiece(True),  # no tokenizer_class: model_type decides
    "bert_fast": lambda: _wordpiece(True, tokenizer_class=_FAST),  # gives no types
    "bert_fast_typed": lambda: _wordpiece(True, tokenizer_class=_FAST, model_input_names=_TYPED),
    "bert_untyped": lambda: _wordpiece(
        True, tokenizer_class="BertTokenizer", model_input_names=["input_ids", "attention_mask"]
    ),
    "roberta": lambda: _roberta(tokenizer_class="RobertaTokenizer"),
    "roberta_fast": lambda: _roberta(tokenizer_class="TokenizersBackend"),
    "mpnet": lambda: _mpnet(tokenizer_class="MPNetTokenizer", do_lower_case=True),
    "mpnet_fast": lambda: _mpnet(tokenizer_class="PreTrainedTokenizerFast"),
    "gpt2": _gpt2,
    "gpt2_pad_is_eos": lambda: _gpt2(pad_token="<|endoftext|>"),
    "gpt2_spaced": lambda: _gpt2(add_prefix_space=True),  # which the file does not say
    "llama3": _llama3,
    "llama3_pad_is_eos": lambda: _llama3(pad_token="<|eot_id|>"),
    "llama3_unpadded": lambda: _llama3(pad_token=None),
    "llama3_ends": lambda: _llama3(ends=True),
    "llama3_ends_pad_is_eos": lambda: _llama3(ends=True, pad_token="<|eot_id|>"),
    # These two keys count for nothing beside a tokenizer.json.
    "llama3_told_to_end": lambda: _llama3(add_bos_token=True, add_eos_token=True),
    "llama3_told_not_to_begin": lambda: _llama3(add_bos_token=False),
    "legacy": lambda: _llama2("legacy", pad_token="<unk>"),
    "legacy_pad_is_eos": lambda: _llama2("legacy", pad_token="</s>"),
    # LlamaTokenizer has a Metaspace(first) of its own for the normalizer of the file; with legacy Metaspace(always).
    "legacy_named": lambda: _llama2("legacy", tokenizer_class="LlamaTokenizer", legacy=False),
    "legacy_named_legacy": lambda: _llama2("legacy", tokenizer_class="LlamaTokenizer", legacy=True),
    "legacy_objects": _as_transformers_4,
    "legacy_map": lambda: _named_elsewhere(
        {**_LLAMA2_NAMES, "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": "<unk>"}
    ),
    "legacy_defaults": lambda: _named_elsewhere({}, tokenizer_class="LlamaTokenizer"),  # <s>, </s>
    "metaspace_first": lambda: _llama2("first", pad_token="<unk>"),
    "metaspace_always": lambda: _llama2("always", split=True, pad_token="<unk>"),
    "metaspace_never": lambda: _llama2("never", split=True, pad_token="<unk>"),
    "gemma": _gemma,
    "qwen": _qwen,
    "t5": _t5,
    "t5_fast": lambda: _t5(tokenizer_class=_FAST, extra_ids=None, additional_special_tokens=None),
}
