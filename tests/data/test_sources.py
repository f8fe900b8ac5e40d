"""Files of the user's own: every accepted form, and every bad line named by file, line and field."""

import gzip
import io
import json

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from rmjax.data import sources
from rmjax.data.records import Pair, RatedText
from rmjax.errors import UserError

RATED = [
    {"text": "good film", "rating": 3},
    {
        "text": "Bad – film",
        "ratings": [-1, -2.5],
        "domain": "m",
        "document": 7,
        "id": 4,
        "weight": 2,
    },
]
USER = {"role": "user", "content": "Hi?"}
PAIR = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}


def said(content, role="assistant"):
    return {"role": role, "content": content}


def jsonl(path, rows, start=b""):
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(start + b"\n".join(lines) + b"\n")
    return str(path)


def test_rated_texts_with_every_field(tmp_path):
    read = sources.read(jsonl(tmp_path / "films.v2.jsonl", [RATED[0], b"", RATED[1]]))
    assert read.notes == []
    assert read.records == [
        RatedText("1", "films", "goodfilm", "good film", 3.0),
        RatedText("4", "m", "7", "Bad – film", -1.75, (-1.0, -2.5), 2.0),
    ]


def test_jsonl_gzip_and_parquet_agree_with_and_without_byte_order_mark(tmp_path):
    want = sources.read(jsonl(tmp_path / "films.jsonl", RATED)).records
    bom = b"\xef\xbb\xbf"
    assert sources.read(jsonl(tmp_path / "films.json", RATED, bom)).records == want
    plain = (tmp_path / "films.json").read_bytes()
    (tmp_path / "films.jsonl.gz").write_bytes(gzip.compress(plain))
    assert sources.read(str(tmp_path / "films.jsonl.gz")).records == want
    columns = {name: [row.get(name) for row in RATED] for name in RATED[0] | RATED[1]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "films.parquet")
    assert sources.read(str(tmp_path / "films.parquet")).records == want


@pytest.mark.parametrize(
    ("row", "want"),
    [
        (PAIR, ("Hi?", "Yes.", "No.")),
        ({"chosen": "Yes.", "rejected": "No."}, ("", "Yes.", "No.")),
        (
            {"prompt": [USER], "chosen": [said("Yes.")], "rejected": [said("No.")]},
            ((("user", "Hi?"),), "Yes.", "No."),
        ),
        (  # both sides hold the whole conversation
            {"chosen": [USER, said("Yes.")], "rejected": [USER, said("No.")]},
            ((("user", "Hi?"),), "Yes.", "No."),
        ),
        (  # and the prompt repeats its last turn, as text or as messages
            {"prompt": "Hi?", "chosen": [USER, said("Yes.")], "rejected": [USER, said("No.")]},
            ((("user", "Hi?"),), "Yes.", "No."),
        ),
        (
            {"prompt": [USER], "chosen": [USER, said("Yes.")], "rejected": [USER, said("No.")]},
            ((("user", "Hi?"),), "Yes.", "No."),
        ),
        (  # a turn said twice stays twice; what only the prompt has comes first
            {
                "prompt": [said("Be brief.", "system")],
                "chosen": [USER, said("Hm."), USER, said("Yes.")],
                "rejected": [USER, said("Hm."), USER, said("No.")],
            },
            (
                (("system", "Be brief."), ("user", "Hi?"), ("assistant", "Hm."), ("user", "Hi?")),
                "Yes.",
                "No.",
            ),
        ),
    ],
)
def test_pairs_of_strings_and_of_messages(tmp_path, row, want):
    (pair,) = sources.read(jsonl(tmp_path / "p.jsonl", [row])).records
    assert (pair.prompt, pair.chosen, pair.rejected) == want


def test_margin_weight_and_votes(tmp_path):
    rows = [
        PAIR | {"margin": -0.5, "weight": 0, "votes": [3, 1]},
        PAIR | {"votes": [1, 0, 3], "id": "x", "document": "d"},
        PAIR,
    ]
    pairs = sources.read(jsonl(tmp_path / "p.jsonl", rows)).records
    common = {"domain": "p", "prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
    assert pairs == [
        Pair("1", document="hi", margin=-0.5, target=0.75, tie=0.0, weight=0.0, **common),
        Pair("x", document="d", target=0.625, tie=0.75, **common),
        Pair("3", document="hi", **common),
    ]


def test_a_mean_of_attributes_is_told(tmp_path):
    rows = [{"text": "a", "stars": 4, "year": 1987}, {"text": "b", "stars": 2, "year": 1990}]
    path = jsonl(tmp_path / "t.jsonl", rows)
    (note,) = sources.read(path).notes
    assert "2 texts rated by the mean of stars, year; rating='...' takes one" in note
    assert sources.read(path, rating="stars").notes == []


def test_a_pair_without_one_side_is_named(tmp_path):
    row = {k: x for k, x in PAIR.items() if k != "rejected"} | {"reject": "No."}
    path = jsonl(tmp_path / "p.jsonl", [PAIR, row])
    with pytest.raises(UserError, match=r'line 2: field "rejected": is missing'):
        sources.read(path)


def test_empty_and_identical_pairs_are_dropped_and_counted(tmp_path):
    rows = [
        PAIR,
        PAIR | {"rejected": "Yes."},
        PAIR | {"chosen": " \n"},
        PAIR | {"rejected": []},
        PAIR | {"chosen": [USER, said("")], "rejected": [USER, said("No.")]},
        PAIR | {"chosen": [USER, said("No.")], "rejected": [USER, said("No.")]},
    ]
    path = jsonl(tmp_path / "p.jsonl", rows)
    read = sources.read(path)
    assert [r.id for r in read.records] == ["1"]
    assert read.notes == [f"{path}: 5 pairs dropped, empty or identical"]
    with pytest.raises(
        UserError, match=r"holds no usable record \(5 pairs dropped, empty or identical\)"
    ):
        sources.read(jsonl(tmp_path / "p.jsonl", rows[1:]))


TEXT = {"text": "a", "rating": 1}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (b'{"text": "a", ', "is not JSON in UTF-8: "),
        ('{"text": "é", "rating": 1}'.encode("latin-1"), "is not JSON in UTF-8: 'utf-8' codec"),
        ([1], "is no JSON object"),
        (
            {"rating": 1},
            'needs "text", which "rating", "ratings", "label" or numeric attributes may rate; or "chosen"',
        ),
        (
            TEXT | PAIR,
            'needs "text", which "rating", "ratings", "label" or numeric attributes may rate; or "chosen"',
        ),
        ({"text": "a", "ratings": []}, 'field "ratings": is empty'),
        (TEXT | {"text": 3}, 'field "text": must be a string, not 3'),
        (TEXT | {"text": " "}, 'field "text": is empty'),
        (TEXT | {"rating": "3"}, "field \"rating\": must be a finite number, not '3'"),
        (TEXT | {"rating": True}, 'field "rating": must be a finite number, not True'),
        (TEXT | {"rating": float("nan")}, 'field "rating": must be a finite number, not nan'),
        (TEXT | {"ratings": 3}, 'field "ratings": must be a list of numbers'),
        (TEXT | {"ratings": [1, None]}, 'field "ratings": must be a list of numbers'),
        (TEXT | {"weight": -1}, 'field "weight": must be a number of at least 0, not -1'),
        (TEXT | {"domain": 3}, 'field "domain": must be a string, not 3'),
        (PAIR | {"chosen": 3}, 'field "chosen": must be a string or a list of {"role", "content"}'),
        (PAIR | {"rejected": ["No."]}, 'field "rejected": must be a string or a list of'),
        (PAIR | {"prompt": [{"role": "user"}]}, 'field "prompt": must be a string or a list of'),
        (PAIR | {"margin": "big"}, "field \"margin\": must be a finite number, not 'big'"),
        (PAIR | {"votes": [1]}, 'field "votes": must be [for chosen, for rejected]'),
        (PAIR | {"votes": [0, 0]}, 'field "votes": must be [for chosen, for rejected]'),
        (PAIR | {"votes": [2, -1]}, 'field "votes": must be [for chosen, for rejected]'),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_field(tmp_path, row, text):
    good = PAIR if isinstance(row, dict) and "text" not in row else TEXT
    path = jsonl(tmp_path / "bad.jsonl", [good, b"", row])
    with pytest.raises(UserError) as caught:
        sources.read(path)
    assert str(caught.value).startswith(f"{path}: line 3: {text}")
    assert str(caught.value).endswith("mend or remove these lines")


def test_the_first_five_bad_lines_are_shown(tmp_path):
    path = jsonl(tmp_path / "bad.jsonl", [TEXT] + 9 * [{}])
    with pytest.raises(UserError) as caught:
        sources.read(path)
    shown = [n for n in range(1, 11) if f"line {n}:" in str(caught.value)]
    assert shown == [2, 3, 4, 5, 6]
    assert "(and perhaps more)" in str(caught.value)


def test_files_that_cannot_be_used_say_why(tmp_path):
    whole = gzip.compress(json.dumps(TEXT).encode() * 50)
    files = {
        "mixed.jsonl": (json.dumps(TEXT) + "\n" + json.dumps(PAIR)).encode(),
        "empty.jsonl": b"\n\n",
        "half.jsonl.gz": whole[:-9],
        "spoilt.jsonl.gz": whole[:10] + 20 * b"\xff",
        "plain.jsonl.gz": b"{}",
        "text.parquet": b"no parquet at all",
        "table.csv": b"",
    }
    texts = {
        "mixed.jsonl": "holds records of several kinds (Pair, RatedText); one a file",
        "empty.jsonl": "holds no usable record",
        "table.csv": "should end in .jsonl, .jsonl.gz, .json or .parquet",
        "absent.jsonl": "no such file; check the path",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in {**files, **texts}:
        with pytest.raises(UserError) as caught:
            sources.read(str(tmp_path / name))
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert texts.get(name, "cannot be read: ") in str(caught.value)


def test_a_file_on_the_hub(monkeypatch):
    held = {"datasets/me/films/a.jsonl": json.dumps(TEXT).encode()}

    class Hub:
        def open(self, path, mode):
            if "unreachable" in path:
                raise RuntimeError("connection refused")
            if path not in held:
                raise FileNotFoundError(path)
            return io.BytesIO(held[path])

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Hub)
    (record,) = sources.read("hf://datasets/me/films/a.jsonl").records
    assert (record.domain, record.text) == ("a", "a")
    for name, text in (
        ("b.jsonl", "no such file"),
        ("unreachable.jsonl", "cannot be fetched: connection refused"),
        ("a.csv", "should end in"),
    ):
        with pytest.raises(UserError, match=text):
            sources.read(f"hf://datasets/me/films/{name}")
