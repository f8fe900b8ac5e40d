"""Each format by its fields: what record comes of it, what is left out and counted, what is refused and why."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmjax.data import conversations, formats, sources, splits
from rmjax.data.fields import Bad
from rmjax.data.records import Pair, Process, Ranking, RatedText, Text, fingerprint
from rmjax.errors import UserError

HERE = formats.Reading("d")
ASK = "\n\nHuman: Hi?\n\nAssistant: Hm.\n\nHuman: Well?\n\nAssistant:"
TURNS = (("user", "Hi?"), ("assistant", "Hm."), ("user", "Well?"))
LIST = {"prompt": "Q?", "completions": ["a", "b", "c"]}
STEPS = {"prompt": "Q?", "steps": ["a", "b", "c"]}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ranking(completions, ratings):
    return Ranking("7", "d", "q", "Q?", completions, ratings)


def process(labels):
    return Process("7", "d", "q", "Q?", ("a", "b", "c"), labels)


@pytest.mark.parametrize(
    ("row", "want"),
    [
        (LIST | {"ratings": [1, 3.5, 1]}, ranking(("a", "b", "c"), (1.0, 3.5, 1.0))),
        (LIST | {"ranks": [2, 1, 2]}, ranking(("a", "b", "c"), (1.0, 2.0, 1.0))),
        (LIST | {"best": 2}, ranking(("a", "b", "c"), (0.0, 0.0, 1.0))),
        (
            {"prompt": "Q?", "completions": [{"text": "a", "rating": 2}, {"text": "b", "rating": 4}]},
            ranking(("a", "b"), (2.0, 4.0)),
        ),
        (STEPS | {"labels": [True, True, False]}, process((1.0, 1.0, 0.0))),
        (STEPS | {"labels": [0.25, 1, 0]}, process((0.25, 1.0, 0.0))),
        (LIST | {"labels": [True, False, True]}, process((1.0, 0.0, 1.0))),
        (
            {"prompt": "Q?", "response": "a", "rating": 2},
            RatedText("7", "d", "q", "a", 2.0, prompt="Q?"),
        ),
        ({"completion": "a", "ratings": [1, 2]}, RatedText("7", "d", "a", "a", 1.5, (1.0, 2.0))),
        ({"text": "a", "label": 3.5}, RatedText("7", "d", "a", "a", 3.5)),
        (
            {"prompt": "Q?", "response": "a", "helpfulness": 4, "coherence": 1},
            formats.Draft(
                RatedText(
                    "7", "d", "q", "a", 2.5,
                    prompt="Q?", attributes=(("coherence", 1.0), ("helpfulness", 4.0)),
                ),
                note="texts rated by the mean of coherence, helpfulness; rating='...' takes one of these",
            ),
        ),
        (
            {"text": "a", "rating": 2, "attributes": {"y": 4, "x": 1}},
            RatedText("7", "d", "a", "a", 2.0, attributes=(("x", 1.0), ("y", 4.0))),
        ),
        (
            {
                "prompt": "Q?", "chosen": "a", "chosen_model": "m", "rejected": "b",
                "rejected_model": "n", "subset": "hep-cpp", "id": 7,
            },
            Pair("7", "hep-cpp", "q", "Q?", "a", "b"),
        ),
    ],
)  # fmt: skip
def test_the_fields_of_a_row_decide_its_record(row, want):
    want = want if isinstance(want, formats.Draft) else formats.Draft(want)
    assert formats.draft(row, 7, HERE) == want


def test_a_named_attribute_is_the_rating():
    row = {"text": "a", "rating": 1, "helpfulness": 4, "coherence": 0, "id": 5}
    for name, rating in (("helpfulness", 4.0), ("coherence", 0.0), ("rating", 1.0), ("", 1.0)):
        draft = formats.draft(row, 7, formats.Reading("d", name))
        assert isinstance(draft.record, RatedText) and draft.record.rating == rating
    with pytest.raises(
        Bad, match='field "depth": is no number of this record; there are coherence'
    ):
        formats.draft(row, 7, formats.Reading("d", "depth"))


@pytest.mark.parametrize("prompted", [False, True])
def test_transcripts_share_their_turns_as_the_prompt(prompted):
    ask = ASK if prompted else ""
    sides = (" Yes.", " No.") if prompted else (ASK + " Yes.", ASK + " No.")
    found = conversations.split(ask, *sides)
    assert found.prompt == TURNS
    assert (found.chosen.strip(), found.rejected.strip(), found.early) == ("Yes.", "No.", False)


@pytest.mark.parametrize(
    ("chosen", "rejected", "want"),
    [
        (  # answers part early: later turns belong to the answer
            " One.\n\nHuman: More\n\nAssistant: Two.",
            " Three.",
            (TURNS, "One.\nuser: More\nassistant: Two.", "Three."),
        ),
        (  # people part: the answer before them is the first that can be compared
            " One.\n\nHuman: More\n\nAssistant: Two.",
            " One.\n\nHuman: Less\n\nAssistant: Two.",
            (TURNS, "One.\nuser: More\nassistant: Two.", "One.\nuser: Less\nassistant: Two."),
        ),
        (  # one is the other and more
            " One.\n\nHuman: More\n\nAssistant: Two.",
            " One.",
            (TURNS, "One.\nuser: More\nassistant: Two.", "One."),
        ),
    ],
)
def test_transcripts_that_part_before_their_last_turn(chosen, rejected, want):
    assert conversations.split("", ASK + chosen, ASK + rejected) == (*want, True, False)


def test_transcripts_that_share_nothing_have_no_prompt():
    sides = (f"\n\nHuman: {x}\n\nAssistant: {x}." for x in "ab")
    assert conversations.split("", *sides) == (
        (), "user: a\nassistant: a.", "user: b\nassistant: b.", True, False
    )  # fmt: skip


def test_text_that_only_mentions_speakers_is_no_transcript():
    for text in ("A Human: and an Assistant: talk", "x\n\nHuman: a\n\nAssistant: b", "Human: a"):
        assert conversations.prompt(text) == text


def test_what_teaches_nothing_is_left_out_and_counted(tmp_path):
    kept = ASK + " Yes."
    path = write(tmp_path / "p.jsonl", [
        {"chosen": kept, "rejected": ASK + " No."},
        {"chosen": kept, "rejected": ASK},  # silence
        {"chosen": kept, "rejected": kept},
        {"chosen": ASK + " a\n\nHuman: b\n\nAssistant: c", "rejected": ASK + " No."},
    ])  # fmt: skip
    read = sources.read(path)
    assert [r.id for r in read.records] == ["1", "4"]
    assert read.notes == [
        f"{path}: 1 pairs differ before their last turn",
        f"{path}: 2 pairs dropped, empty or identical",
    ]
    path = write(tmp_path / "r.jsonl", [
        LIST | {"ratings": [1, 1, 1]},
        {"prompt": "Q?", "completions": ["a", "a", "b", " "], "ratings": [1, 3, 2, 9]},
        {"prompt": "Q?", "completions": ["a", ""], "best": 0},
    ])  # fmt: skip
    read = sources.read(path)
    assert read.records == [Ranking("2", "r", "q", "Q?", ("a", "b"), (3.0, 2.0))]
    assert read.notes == [
        f"{path}: 2 rankings dropped, without two completions of unequal rating",
        f"{path}: 1 rankings lost completions, empty or repeated",
    ]


def test_step_labels_of_a_file_with_minus_one_are_good_neutral_and_bad(tmp_path):
    rows = [STEPS | {"labels": [1, 0, -1]}, STEPS | {"labels": [1, 1, 0]}]
    found = sources.read(write(tmp_path / "p.jsonl", rows)).records
    assert [r.labels for r in found if isinstance(r, Process)] == [(1, 0.5, 0), (1, 1, 0.5)]
    found = sources.read(write(tmp_path / "p.jsonl", rows[1:])).records
    assert [r.labels for r in found if isinstance(r, Process)] == [(1, 1, 0)]


def test_classes_are_sorted_or_as_given(tmp_path):
    rows = [
        {"sentence": "Fein.", "label": "Positive"},
        {"sentence1": "Er kam.", "sentence2": "Er war da.", "label": "Negative"},
    ]
    path = write(tmp_path / "c.json", rows)
    read = sources.read(path)
    assert read.classes == ("Negative", "Positive")
    assert read.records == [
        RatedText("1", "c", "fein", "Fein.", 1.0),
        RatedText("2", "c", "erkam", "Er war da.", 0.0, prompt="Er kam."),
    ]
    turned = sources.read(path, classes=("Positive", "Negative"))
    assert [r.rating for r in turned.records if isinstance(r, RatedText)] == [0.0, 1.0]
    with pytest.raises(
        UserError, match="line 2: field \"label\": 'Negative' is none of the classes"
    ):
        sources.read(path, classes=("Positive", "Neutral"))
    counted = write(tmp_path / "n.json", [{"text": "a", "label": n} for n in (10, 9, 10)])
    assert sources.read(counted).classes == ("9", "10")
    assert [r.rating for r in sources.read(counted).records if isinstance(r, RatedText)] == [
        1,
        0,
        1,
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [LIST | {"ratings": [1, 3, 2]}],
        [STEPS | {"labels": [1.0, 0.0, 0.5]}],
        [{"prompt": "Q?", "response": "a", "attributes": {"x": 1.0, "y": 2.0}}],
        [{"sentence": "a", "label": "x"}, {"sentence": "b", "label": "y"}],
        [{"chosen": ASK + " a", "rejected": ASK + " b"}],
    ],
)  # fmt: skip
def test_gzip_and_parquet_hold_the_same(tmp_path, rows):
    want = sources.read(write(tmp_path / "f.jsonl", rows)).records
    plain = (tmp_path / "f.jsonl").read_bytes()
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(plain))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "f.parquet")
    for name in ("f.jsonl.gz", "f.parquet"):
        assert sources.read(str(tmp_path / name)).records == want
    assert fingerprint(want) != fingerprint([])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (LIST, '"completions" need exactly one of "ratings", "ranks", "best", "labels"'),
        (LIST | {"ratings": [1, 2, 3], "best": 1}, '"completions" need exactly one of'),
        (LIST | {"ratings": [1, 2]}, 'field "ratings": has 2 numbers where there are 3 texts'),
        (LIST | {"ranks": ["1", 2, 3]}, 'field "ranks": must be a list of numbers'),
        (LIST | {"best": 3}, 'field "best": must be the index of a completion, 0 to 2'),
        (LIST | {"best": True}, 'field "best": must be the index of a completion'),
        (
            LIST | {"labels": [1, 0, 1], "ratings": [1, 2, 3]},
            '"labels" belong to either "steps" or',
        ),
        (LIST | {"steps": ["a"], "labels": [1]}, '"labels" belong to either "steps" or'),
        (
            {"completions": "a", "best": 0},
            'field "completions": must be a non-empty list of strings',
        ),
        (
            {"completions": [], "best": 0},
            'field "completions": must be a non-empty list of strings',
        ),
        ({"completions": [{"text": "a"}]}, 'field "completions": each needs a "rating"'),
        (STEPS, 'field "labels": must be a list of numbers'),
        (STEPS | {"labels": [1, 0]}, 'field "labels": has 2 numbers where there are 3 texts'),
        (
            STEPS | {"labels": [1, 0, 2]},
            'field "labels": must be true or false, from 0 to 1, or -1',
        ),
        ({"steps": ["a", " "], "labels": [1, 0]}, 'field "steps": holds an empty step'),
        (LIST | {"best": 0, "chosen": "a"}, 'needs "text", which "rating"'),
        (LIST | {"best": 0, "text": "a"}, 'needs "text", which "rating"'),
        ({"text": "a", "response": "b", "rating": 1}, "has text and response, of which one"),
        (
            {"text": "a", "attributes": {"x": "1"}},
            'field "attributes": must be an object of numbers',
        ),
        ({"text": "a", "label": ""}, "field \"label\": must be a class or a finite number, not ''"),
        ({"text": "a", "label": [1]}, 'field "label": must be a class or a finite number, not [1]'),
        ({"sentence1": "a", "label": 1}, 'needs "text", which "rating"'),
        ({"chosen": "a", "rejected": "b", "subset": 3}, 'field "subset": must be a string, not 3'),
    ],
)
def test_a_bad_row_names_its_field(tmp_path, row, text):
    path = write(tmp_path / "bad.jsonl", [{"text": "a", "rating": 1}, row])
    with pytest.raises(UserError) as caught:
        sources.read(path)
    assert str(caught.value).startswith(f"{path}: line 2: {text}")


def test_texts_with_and_without_a_class_do_not_mix(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"text": "a", "rating": 1}, {"text": "b", "label": "x"}])
    with pytest.raises(UserError, match=r"several kinds \(RatedText, RatedText with label\)"):
        sources.read(path)


WORD = st.sampled_from("abc")


def rows_of(kind, document, word, other):
    ask = [{"role": "user", "content": word}]
    return {
        "pair": {"prompt": ask, "chosen": other + "1", "rejected": other + "2"},
        "ranking": {"prompt": ask, "completions": [other, other + "x"], "best": 0},
        "process": {"prompt": ask, "steps": [other], "labels": [1]},
        "text": {"prompt": ask, "text": other, "rating": 1},
    }[kind] | {"document": document}


@given(
    st.sampled_from(["pair", "ranking", "process", "text"]),
    st.lists(
        st.tuples(st.integers(0, 6), WORD, st.sampled_from("uvwxyz")), min_size=1, max_size=25
    ),
)
def test_no_document_and_no_text_straddles_splits(kind, drawn):
    rows = [rows_of(kind, *each) for each in drawn]
    records = sources.collect("made up", enumerate(rows, 1), HERE).records
    assert len(records) == len(drawn)
    where = {}
    for record, (document, *texts), split in zip(
        records, drawn, splits.assign(records), strict=True
    ):
        assert where.setdefault(("document", document), split) == split
        assert where.setdefault(tuple(texts), split) == split
        assert record.document == str(document)


SAID = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hm."}]


@pytest.mark.parametrize(
    ("row", "want"),
    [
        ({"text": "A b"}, Text("7", "d", "ab", "A b")),
        ({"prompt": "Q?", "completion": "a"}, Text("7", "d", "q", "a", "Q?")),
        (
            {
                "prompt": SAID,
                "response": "b",
                "id": "x",
                "domain": "e",
                "document": "o",
                "weight": 2,
            },
            Text("x", "e", "o", "b", TURNS[:2], 2.0),
        ),
        ({"messages": SAID}, Text("7", "d", "hi", "Hm.", (("user", "Hi?"),))),
        (
            {"messages": [{"role": "system", "content": "Be."}, *SAID]},
            Text("7", "d", "behi", "Hm.", (("system", "Be."), ("user", "Hi?"))),
        ),
        (
            {"messages": SAID, "rating": 2},
            RatedText("7", "d", "hi", "Hm.", 2.0, prompt=(("user", "Hi?"),)),
        ),
    ],
)
def test_texts_that_nobody_rated(row, want):
    drafted = formats.draft(row, 7, HERE)
    assert (drafted.record, drafted.label, drafted.note) == (want, "", "")


ASSISTANT = 'field "messages": must end with an answer of the "assistant" to messages before it'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": SAID[:1]}, ASSISTANT),
        ({"messages": SAID[1:]}, ASSISTANT),
        ({"messages": [*SAID, SAID[0]]}, ASSISTANT),
        ({"messages": "Hi?"}, ASSISTANT),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}, SAID[1]]}, "messages"),
        ({"messages": SAID, "prompt": "Q?"}, '"messages" are prompt and answer in one'),
        ({"messages": SAID, "text": "a"}, '"messages" are prompt and answer in one'),
        ({"messages": SAID, "chosen": "a", "rejected": "b"}, "needs"),
        ({"messages": [SAID[0], {"role": "assistant", "content": " "}]}, ASSISTANT),
        ({"text": ""}, 'field "text"'),
        ({"text": "a", "completion": "b"}, "has text and completion, of which one is the text"),
    ],
)
def test_texts_that_say_no_answer_are_refused(row, message):
    with pytest.raises(Bad) as error:
        formats.draft(row, 7, HERE)
    assert message in str(error.value)
