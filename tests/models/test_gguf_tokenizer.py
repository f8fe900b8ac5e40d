"""SentencePiece's tokenizers of GGUF files give the token ids of SentencePiece."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers

from rmjax.data.tokenizer import Layout, Tokenizer
from rmjax.models import gguf_tokenizer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/sentencepiece.json").read_text())
NORMAL, USER_DEFINED, BYTE = 1, 4, 6


def read(path, name, **changes):
    """The tokenizer.json of a file with a golden tokenizer; `changes`: other metadata."""
    golden, writer = GOLDEN[name], gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(changes.get("tokens", golden["tokens"]))
    writer.add_token_scores(changes.get("scores", golden["scores"]))
    writer.add_token_types(changes.get("types", golden["types"]))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if name == "bare":
        writer.add_add_space_prefix(False)
    for key in ("add_bos_token", "add_eos_token"):
        if key in changes:
            writer.add_bool(f"tokenizer.ggml.{key}", changes[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    known = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    return json.dumps(gguf_tokenizer.describe(known))


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_and_texts_are_those_of_sentencepiece(name, tmp_path):
    made = tokenizers.Tokenizer.from_str(read(tmp_path / "model.gguf", name))
    made.encode_special_tokens = True  # as in `Tokenizer`
    golden = GOLDEN[name]
    for (text, ids), decoded in zip(golden["ids"].items(), golden["decoded"], strict=True):
        assert made.encode(text, add_special_tokens=False).ids == ids, text
        assert made.decode(ids) == decoded


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        (
            {},
            [
                1,
                ...,
            ],
        ),
        ({"add_bos_token": False}, [...]),
        ({"add_eos_token": True}, [1, ..., 2]),
    ],
)
def test_tokens_around_a_text_are_those_the_file_says(changes, want, tmp_path):
    made = Tokenizer.from_json(read(tmp_path / "model.gguf", "bare", **changes))
    own = GOLDEN["bare"]["ids"]["the license"]
    around = lambda middle: [i for part in want for i in (middle if part is ... else [part])]
    assert made.encode(["the license"], 99)[0].tolist() == around(own)
    asked = [[("the license", "the license")]]
    (((pair,),), _) = made.encode_groups(asked, 99, Layout(pairs=True))
    assert pair.whole.tolist() == around(own + own)


def test_special_tokens_steer_where_a_template_spells_them(tmp_path):
    made = Tokenizer.from_json(read(tmp_path / "model.gguf", "prefixed"))
    assert made.special_tokens == ("<unk>", "<s>", "</s>")
    asked = [[("<s>the license", "</s>")]]
    (((group,),), _) = made.encode_groups(asked, 99, Layout(rendered=True))
    own = GOLDEN["prefixed"]["ids"]["the license"]
    assert group.prompt.tolist() == [1, *own] and group.completion.tolist() == [2]


def test_of_equal_scores_the_first_token_is_the_best(tmp_path):
    """As in files whose converter had no scores."""
    golden = GOLDEN["prefixed"]
    flat = read(tmp_path / "model.gguf", "prefixed", scores=[-1000.0] * len(golden["scores"]))
    assert json.loads(flat) == json.loads(read(tmp_path / "model.gguf", "prefixed"))


def test_tokens_of_users_may_be_spelled_with_sentencepieces_space(tmp_path):
    golden = GOLDEN["bare"]
    spelled = [
        token.replace(" ", "\u2581") if kind == USER_DEFINED else token
        for token, kind in zip(golden["tokens"], golden["types"], strict=True)
    ]
    assert spelled != golden["tokens"]
    found = read(tmp_path / "model.gguf", "bare", tokens=spelled)
    assert json.loads(found) == json.loads(read(tmp_path / "model.gguf", "bare"))


def test_without_bytes_a_run_of_unknown_characters_is_one_unknown_token(tmp_path):
    types = [NORMAL if kind == BYTE else kind for kind in GOLDEN["prefixed"]["types"]]
    made = tokenizers.Tokenizer.from_str(read(tmp_path / "model.gguf", "prefixed", types=types))
    ids = made.encode("a語語a", add_special_tokens=False).ids
    assert np.count_nonzero(np.array(ids) == 0) == 1
