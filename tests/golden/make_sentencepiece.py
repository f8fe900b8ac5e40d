"""Makes tests/golden/sentencepiece.json: small BPE models of SentencePiece and the token ids they give.

By hand: pip install -r requirements-reference.txt, then python tests/golden/make_sentencepiece.py
Tokens, scores and types are written as llama.cpp's converter takes them from a tokenizer.model.
"""

import io
import json
from pathlib import Path

import sentencepiece

HOME = Path(__file__).parent
SPACE = "\u2581"
TEXTS = (
    "",
    " ",
    "the license",
    " two spaces  and   three at the end   ",
    "lines\nand\n\nparagraphs\n\n\n\ttabs\t\tthere\r\n",
    "naïve café, cafe\u0301 — 東京 2024年, Ünïcödé, русский текст",
    "\U0001f999\U0001f999 and \u200d joined \U0001f468\u200d\U0001f469, \u0000 nul \ufffd",
    f"a{SPACE}marker for{SPACE}spaces",
    "aaaaaaaaaaa ababababa ------=====",
    "<s>[INST] specials </s> <unk> <0x0A> are text",
    "THE LICENSOR SHALL NOT BE LIABLE; you may add Your own copyright statement 12345 x 6789",
    " " * 40 + "indented" + " " * 35,
)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
KINDS = {  # as LLaMA 2's and Mistral 7B's are; as Gemma's
    "prefixed": {"add_dummy_prefix": True},
    "bare": {
        "add_dummy_prefix": False,
        "user_defined_symbols": ["\n\n", *(SPACE * n for n in range(2, 6)), "<tool>"],
    },
}


def trained(**options) -> sentencepiece.SentencePieceProcessor:
    """A model of 420 tokens, 256 of them bytes, of the license text and a few words of other scripts."""
    text = (HOME.parents[1] / "LICENSE").read_text().split("\n")
    text = [line for line in text if line] + ["naïve café aaaa", "русский текст", "東京"] * 20
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=made,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=0.99,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())


def kind_of(model: sentencepiece.SentencePieceProcessor, i: int, defined: set[str]) -> int:
    if model.is_unknown(i):
        return UNKNOWN
    if model.is_control(i):
        return CONTROL
    if model.is_byte(i):
        return BYTE
    return USER_DEFINED if model.id_to_piece(i) in defined else NORMAL


def describe(options: dict) -> dict:
    model, defined = trained(**options), set(options.get("user_defined_symbols", ()))
    ids = range(model.get_piece_size())
    types = [kind_of(model, i, defined) for i in ids]
    text = lambda i: model.id_to_piece(i).replace(SPACE, " " if types[i] == USER_DEFINED else SPACE)
    score = lambda i: -1000.0 if types[i] == USER_DEFINED else model.get_score(i)
    return {
        "tokens": [text(i) for i in ids],
        "scores": [score(i) for i in ids],
        "types": types,
        "ids": {text: model.encode(text) for text in TEXTS},
        "decoded": [model.decode(model.encode(text)) for text in TEXTS],
    }


if __name__ == "__main__":
    found = {name: describe(options) for name, options in KINDS.items()}
    with open(HOME / "sentencepiece.json", "w") as file:
        json.dump(found, file, separators=(",", ":"))
        file.write("\n")
