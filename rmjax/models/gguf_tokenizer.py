"""The tokenizer in the metadata of a GGUF file, as a tokenizer.json has it."""

from collections.abc import Mapping, Sequence
from typing import Any

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # types of tokens
_SPACE = "\u2581"  # what SentencePiece writes for a space


def describe(known: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer.json that a file's metadata spell.

    Raises: KeyError where the metadata lack a key; ValueError naming a tokenizer that is not supported.
    """
    model, before = known["tokenizer.ggml.model"], known.get("tokenizer.ggml.pre", "gpt-2")
    if model == "llama":
        return _sentencepiece(known)
    if model == "gpt2" and before in _BEFORE:
        return _byte_level_bpe(known, before)
    raise ValueError(
        f"tokenizer {model!r} with the pre-tokenizer {before!r} is not supported (llama, and gpt2 with "
        f"{', '.join(_BEFORE)}, are); take the model's folder with its tokenizer.json"
    )


def _sentencepiece(known: Mapping[str, Any]) -> dict[str, Any]:
    """A BPE of SentencePiece (Kudo & Richardson 2018), as LLaMA 2, Mistral 7B and Gemma have.

    Nothing splits words: spaces are characters of its pieces. One is put before a text, unless the file says no.
    """
    kinds = known["tokenizer.ggml.token_type"]
    # Those the user defined are matched in the text itself, before its spaces are respelled.
    tokens = [
        token.replace(_SPACE, " ") if kind == _USER_DEFINED else token
        for token, kind in zip(known["tokenizer.ggml.tokens"], kinds, strict=True)
    ]
    opened = known.get("tokenizer.ggml.add_space_prefix", True)
    return _whole(
        tokens,
        kinds,
        normalizer=_sequence(
            "normalizers",
            *([{"type": "Prepend", "prepend": _SPACE}] if opened else []),
            {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        ),
        post_processor=_around(known, begins=True),
        decoder=_sequence(
            "decoders",
            {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if opened else []),
        ),
        unk_token=tokens[known.get("tokenizer.ggml.unknown_token_id", 0)],
        fuse_unk=True,
        byte_fallback=_BYTE in kinds,  # of characters that are no piece
        merges=_merges(tokens, kinds, known["tokenizer.ggml.scores"]),
    )


def _merges(
    tokens: Sequence[str], kinds: Sequence[int], scores: Sequence[float]
) -> list[list[str]]:
    """Every two pieces that join to a third, the best such third first: SentencePiece joins by scores, not by a list.

    Of equal scores the first token is the best (files made from a tokenizer.json have no scores, but its order).
    """
    normal = [i for i, kind in enumerate(kinds) if kind == _NORMAL]
    pieces = {tokens[i] for i in normal}
    return [
        [whole[:cut], whole[cut:]]
        for whole in (tokens[i] for i in sorted(normal, key=lambda i: -scores[i]))
        for cut in range(len(whole) - 1, 0, -1)
        if whole[:cut] in pieces and whole[cut:] in pieces
    ]


def _byte_level_bpe(known: Mapping[str, Any], before: str) -> dict[str, Any]:
    return _whole(
        known["tokenizer.ggml.tokens"],
        known["tokenizer.ggml.token_type"],
        normalizer={"type": "NFC"} if before == "qwen2" else None,
        pre_tokenizer=_sequence("pretokenizers", *_BEFORE[before]),
        # Llama 3's need not say that texts begin with a token.
        post_processor=_around(known, begins=before == "llama-bpe"),
        decoder=_byte_level(words=True),
        ignore_merges=before == "llama-bpe",  # words that are tokens stay whole
        merges=[merge.split(" ") for merge in known["tokenizer.ggml.merges"]],
    )


def _whole(
    tokens: Sequence[str],
    kinds: Sequence[int],
    *,
    post_processor: Any,
    normalizer: Any,
    decoder: Any,
    merges: Sequence[Sequence[str]],
    pre_tokenizer: Any = None,
    unk_token: str | None = None,
    fuse_unk: bool = False,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """A tokenizer.json of a BPE."""
    added = [
        {
            "id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": kind != _USER_DEFINED,
        }
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unk_token,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": fuse_unk,
            "byte_fallback": byte_fallback,
            "ignore_merges": ignore_merges,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _around(known: Mapping[str, Any], *, begins: bool) -> dict[str, Any] | None:
    """What puts the tokens of beginning and end around a text, where the model has those.

    begins: whether a file that says nothing of it has the first. Two texts are one that was cut: nothing between.
    """
    wanted = {
        "bos": known.get("tokenizer.ggml.add_bos_token", begins),
        "eos": known.get("tokenizer.ggml.add_eos_token", False),
    }
    ids = {name: known[f"tokenizer.ggml.{name}_token_id"] for name, yes in wanted.items() if yes}
    if not ids:
        return None
    tokens = {name: known["tokenizer.ggml.tokens"][i] for name, i in ids.items()}
    special = lambda name: [
        {"SpecialToken": {"id": t, "type_id": 0}} for n, t in tokens.items() if n == name
    ]
    text = lambda letter: {"Sequence": {"id": letter, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*special("bos"), text("A"), *special("eos")],
        "pair": [*special("bos"), text("A"), text("B"), *special("eos")],
        "special_tokens": {
            token: {"id": token, "ids": [ids[name]], "tokens": [token]}
            for name, token in tokens.items()
        },
    }


def _sequence(of: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", of: list(steps)}


def _byte_level(*, words: bool) -> dict[str, Any]:
    """Bytes as characters; words: split as GPT-2 does first."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": words,
    }


def _splits(digits: str) -> list[dict[str, Any]]:
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
    split = {
        "type": "Split",
        "pattern": {"Regex": "|".join(parts)},
        "behavior": "Isolated",
        "invert": False,
    }
    return [split, _byte_level(words=False)]


_DIGITS = {"type": "Digits", "individual_digits": True}
_BEFORE: dict[str, list[dict[str, Any]]] = {  # steps before the merges, by tokenizer.ggml.pre
    "gpt-2": [_byte_level(words=True)],
    "smollm": [_DIGITS, _byte_level(words=True)],
    "llama-bpe": _splits(r"\p{N}{1,3}"),
    "qwen2": _splits(r"\p{N}"),
}
