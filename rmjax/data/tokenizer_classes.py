"""What transformers' tokenizer classes build themselves, whatever the tokenizer.json beside them holds.

A class of transformers 5 takes the vocabulary and the special tokens around a text from tokenizer.json, and makes how
text is normalized and split itself. A folder that such a class has written says the same in its tokenizer.json.
Source: transformers 5.23, models/{bert,gpt2,roberta,mpnet,qwen2,llama}/tokenization_*.py.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]
_SPACE = "\u2581"  # what SentencePiece writes for a space
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Class(NamedTuple):
    """How a class reads.

    parts(tokenizer.json, tokenizer_config.json) -> the parts of the former that it makes itself.
    types: whether its texts come with token types. names: special tokens that it has where no file names them.
    """

    parts: Callable[[Json, Mapping[str, Any]], Json]
    types: bool = False
    names: Mapping[str, str] = {}


def find(name: str | None, model_type: str) -> Class:
    """The class that transformers takes for a tokenizer_class of this name; None: no file names one."""
    if model_type == "mistral":  # read as they are, whatever class they name
        return AS_FILED
    if model_type == "qwen2":  # likewise never as named: distilled models name LlamaTokenizer
        return QWEN2
    name = _UNNAMED.get(model_type, "") if name is None else name
    return _NAMED.get(name.removesuffix("Fast"), AS_FILED)


def _bert(known: Json, config: Mapping[str, Any]) -> Json:
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        "strip_accents": config.get("strip_accents"),
        "lowercase": config.get("do_lower_case", True),
    }
    return {"normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}


def _byte_level(known: Json, config: Mapping[str, Any]) -> Json:
    space = bool(config.get("add_prefix_space", False))
    made = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": True}
    return {"normalizer": None, "pre_tokenizer": made}


def _qwen2(known: Json, config: Mapping[str, Any]) -> Json:
    if known["model"]["type"] != "BPE":
        return {}
    space = bool(config.get("add_prefix_space", False))
    words = {"type": "Split", "pattern": {"Regex": _QWEN2_WORDS}, "behavior": "Isolated"}
    of_bytes = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True}
    steps = [words | {"invert": False}, of_bytes | {"use_regex": False}]
    plain = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": of_bytes | {"use_regex": True},
        "model": known["model"] | plain,
    }


def _llama(known: Json, config: Mapping[str, Any]) -> Json:
    if "ByteLevel" in str(known.get("pre_tokenizer")):
        return {}
    given = config.get("add_prefix_space")
    space = True if given is None else bool(given)
    first = "always" if config.get("legacy", False) else "first"
    metaspace = {
        "type": "Metaspace",
        "replacement": _SPACE,
        "prepend_scheme": first if space else "never",
        "split": False,
    }
    steps = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    steps += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if space else []
    decoder = {"type": "Sequence", "decoders": steps}
    model = known["model"] | {"fuse_unk": True, "byte_fallback": True}
    return {"normalizer": None, "pre_tokenizer": metaspace, "decoder": decoder, "model": model}


_END = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
AS_FILED = Class(lambda known, config: {})
BERT = Class(_bert, types=True)
ROBERTA = Class(_byte_level, names={"bos_token": "<s>", "eos_token": "</s>"})
MPNET = Class(_bert, names={"bos_token": "<s>", "eos_token": "</s>"})
GPT2 = Class(_byte_level, names=_END)
QWEN2 = Class(_qwen2, names={"eos_token": "<|endoftext|>"})
LLAMA = Class(_llama, names={"bos_token": "<s>", "eos_token": "</s>"})
_NAMED = {
    **dict.fromkeys(("BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"), BERT),
    "RobertaTokenizer": ROBERTA,
    "MPNetTokenizer": MPNET,
    "GPT2Tokenizer": GPT2,
    "LlamaTokenizer": LLAMA,
    "GemmaTokenizer": AS_FILED._replace(names={"bos_token": "<bos>", "eos_token": "<eos>"}),
    "Qwen2Tokenizer": QWEN2,
    "T5Tokenizer": AS_FILED._replace(names={"eos_token": "</s>"}),
}
_UNNAMED = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "mpnet": "MPNetTokenizer",
    "gpt2": "GPT2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "gemma3_text": "GemmaTokenizer",
    "t5": "T5Tokenizer",
}
