"""What transformers' tokenizer classes build themselves, whatever the tokenizer.json beside them holds.

A class of transformers 5 takes the vocabulary and the special tokens around a text from tokenizer.json, and makes how
text is normalized and split itself. A folder that such a class has written says the same in its tokenizer.json.
Source: transformers 5.23, models/{bert,gpt2,roberta,mpnet,llama}/tokenization_*.py.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]
_SPACE = "\u2581"  # what SentencePiece writes for a space


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
    if name is None:
        return {"bert": BERT, "roberta": ROBERTA, "mpnet": MPNET, "gpt2": GPT2}.get(
            model_type, AS_FILED
        )
    found = _NAMED.get(name.removesuffix("Fast"), AS_FILED)
    # Mistral's are read as they are, whatever class they name.
    return AS_FILED if found is LLAMA and model_type == "mistral" else found


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
LLAMA = Class(_llama, names={"bos_token": "<s>", "eos_token": "</s>"})
_NAMED = {
    **dict.fromkeys(("BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"), BERT),
    "RobertaTokenizer": ROBERTA,
    "MPNetTokenizer": MPNET,
    "GPT2Tokenizer": GPT2,
    "LlamaTokenizer": LLAMA,
    "GemmaTokenizer": AS_FILED._replace(names={"bos_token": "<bos>", "eos_token": "<eos>"}),
    "Qwen2Tokenizer": AS_FILED._replace(names={"eos_token": "<|endoftext|>"}),
    "T5Tokenizer": AS_FILED._replace(names={"eos_token": "</s>"}),
}
