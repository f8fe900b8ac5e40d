"""The data line: each source gives the same shape, and what does not fit is refused with the fix."""

import collections
import fcntl
import json

import pytest

from rmjax.assembly import data
from rmjax.data import splits
from rmjax.data.records import Pair, RatedText
from rmjax.errors import UserError

RATED = [{"text": f"text {i}", "rating": i % 5 - 2, "id": i} for i in range(60)]
PAIRS = [{"prompt": f"{i}?", "chosen": "Yes.", "rejected": "No."} for i in range(60)]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(("rows", "paired"), [(RATED, False), (PAIRS, True)])
def test_one_file_is_split_by_hash(tmp_path, rows, paired):
    found = data.file(path=jsonl(tmp_path / "mine.jsonl", rows))
    assert found.kind == ("pairs" if paired else "texts")
    assert found.scale is None
    for split in splits.SPLITS:
        for record in getattr(found, split):
            assert splits.split_of("mine", record.document) == split
    ids = [int(r.id) for split in splits.SPLITS for r in getattr(found, split)]
    assert len(ids) == len(set(ids)) == 60


def test_files_of_each_split_stay_as_given_with_all_their_notes(tmp_path):
    empty = {"prompt": "", "chosen": "", "rejected": "No."}
    names = [
        jsonl(tmp_path / f"{n}.jsonl", [*PAIRS[i : i + 3], empty]) for i, n in enumerate("abc")
    ]
    found = data.file(path=names[0], validation=names[1], test=names[2], low=0, high=4)
    prompts = [[r.prompt for r in part] for part in (found.train, found.validation, found.test)]
    assert prompts == [["0?", "1?", "2?"], ["1?", "2?", "3?"], ["2?", "3?", "4?"]]
    assert found.notes == [f"{n}: 1 pairs dropped, empty or identical" for n in names]
    assert found.scale == (0, 4)


def test_what_does_not_fit_is_refused(tmp_path):
    rated, pairs = jsonl(tmp_path / "r.jsonl", RATED), jsonl(tmp_path / "p.jsonl", PAIRS)
    few = jsonl(tmp_path / "few.jsonl", RATED[:1])
    for options, text in (
        ({"path": rated, "test": rated}, "needs both validation= and test=, or neither"),
        (
            {"path": rated, "test": rated, "validation": pairs},
            "the files mix pairs and texts",
        ),
        ({"path": few}, "few.jsonl falls into .*; give more documents, or a file for each"),
        ({"path": rated, "low": 3, "high": 1}, "low=3 is not below high=1"),
    ):
        with pytest.raises(UserError, match=f"config key 'data': .*{text}"):
            data.file(**options)
    with pytest.raises(
        UserError, match=r"no domain \['books'\]; there are movie, amazon, nyt, tweets"
    ):
        data.human_ratings(domains="movie+books")
    with pytest.raises(UserError, match="synthetic_ratings.*count"):
        data.synthetic_ratings(count=4)


def test_made_up_ratings():
    found = data.synthetic_ratings(count=50, seed=3)
    assert [len(p) for p in found[:3]] == [30, 10, 10]
    assert len({r.id for part in found[:3] for r in part}) == 50
    assert found.scale == (-4, 4)
    assert found.kind == "texts"
    assert found.train != data.synthetic_ratings(count=50, seed=4).train


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Four tiny domains in the place of the published ones, and an empty cache."""
    for file in data.builder.human_ratings.FILES.values():
        texts = "".join(f"{i}_1\t0\t{file} {i}\n" for i in range(40))
        panels = "".join(f"{i}_1\t0\t0\t[{i % 5}, 1]\n" for i in range(40))
        (tmp_path / f"{file}_GroundTruth.txt").write_text(texts)
        (tmp_path / f"{file}_anonDataRatings.txt").write_text(panels)
    monkeypatch.setenv("RMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data.assets, "folder", lambda name: tmp_path)


def test_training_domains_are_chosen_and_the_other_splits_hold_all(small):
    found = data.human_ratings(domains="nyt+movie")
    domains = [collections.Counter(r.domain for r in part) for part in found[:3]]
    assert set(domains[0]) == {"nyt", "movie"}
    assert set(domains[1]) == set(domains[2]) == set(data.builder.DOMAINS)
    everything = data.human_ratings()
    assert sum(len(part) for part in everything[:3]) == 160
    assert everything.test == found.test
    assert found.scale == (-4, 4)


def test_one_process_prepares_at_a_time(small, monkeypatch):
    load, refused = data.builder.load, []

    def watched(*paths):
        with (data.assets.cache() / "tfds.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refused.append(True)
        return load(*paths)

    monkeypatch.setattr(data.builder, "load", watched)
    assert len(data.human_ratings().train) > 100
    assert refused == [True]


def test_files_of_each_split_are_of_one_domain_unless_they_say_so(tmp_path):
    names = [jsonl(tmp_path / f"{n}.jsonl", RATED[i : i + 3]) for i, n in enumerate("abc")]
    found = data.file(path=names[0], validation=names[1], test=names[2])
    assert {r.domain for part in found[:3] for r in part} == {"a"}
    other = jsonl(tmp_path / "d.jsonl", [row | {"domain": "else"} for row in RATED[:3]])
    assert data.file(path=names[0], validation=names[1], test=other).test[0].domain == "else"
    with pytest.raises(UserError, match="no record of .*d.jsonl has a domain that is trained on"):
        data.file(path=names[0], validation=other, test=names[2])


def test_classes_come_from_training_or_the_config(tmp_path):
    rows = [{"sentence": f"text {i}", "label": "ba"[i % 2]} for i in range(60)]
    path = jsonl(tmp_path / "c.jsonl", rows)
    found = data.file(path=path)
    assert (found.kind, found.classes, found.scale) == ("texts", ("a", "b"), (0, 1))
    turned = data.file(path=path, classes="b, a")
    assert turned.classes == ("b", "a")
    flip = [1 - r.rating for r in found.train]
    assert [r.rating for r in turned.train] == flip and 0 < sum(flip) < len(flip)
    other = jsonl(tmp_path / "d.jsonl", [{"sentence": "x", "label": "c"}])
    with pytest.raises(UserError, match="d.jsonl: line 1: .*'c' is none of the classes a, b"):
        data.file(path=path, validation=other, test=path)
    with pytest.raises(UserError, match="classes and ratings; give files of one kind"):
        data.file(path=jsonl(tmp_path / "r.jsonl", RATED), validation=path, test=path)


def test_a_named_attribute_is_the_rating(tmp_path):
    rows = [{"prompt": f"{i}?", "response": "a", "x": i, "y": 1} for i in range(60)]
    path = jsonl(tmp_path / "h.jsonl", rows)
    found = data.file(path=path, rating="x")
    assert all(r.prompt == f"{r.rating:.0f}?" for r in found.train)
    assert found.attributes == ("x", "y")
    assert data.file(path=path).train[0].rating == (found.train[0].rating + 1) / 2


def test_kinds_are_named(tmp_path):
    lists = [{"prompt": f"{i}", "completions": ["a", "b"], "best": 0} for i in range(60)]
    steps = [{"prompt": f"{i}", "steps": ["a"], "labels": [1]} for i in range(60)]
    for rows, kind in (
        (RATED, "texts"),
        (PAIRS, "pairs"),
        (lists, "rankings"),
        (steps, "processes"),
    ):
        assert data.file(path=jsonl(tmp_path / "k.jsonl", rows)).kind == kind


def test_a_prepared_tfds_data_set(small):
    whole = data.human_ratings()
    options = {"name": "human_ratings", "data_dir": str(data.assets.cache() / "tfds")}
    found = data.tfds(**options, validation="validation", test="test", low=-4, high=4)
    for part, want in zip(found[:3], whole[:3], strict=True):
        assert [(r.domain, r.document, r.text, r.ratings) for r in part] == [
            (r.domain, r.document, r.text, r.ratings) for r in want
        ]
    assert (found.scale, found.kind) == ((-4, 4), "texts")
    renamed = data.tfds(
        **options, split="test[:50%]", validation="test[:50%]", test="test", text="document"
    )
    assert {r.text for r in renamed.train} <= {r.document for r in whole.test}
    for more, text in (
        ({"split": "nope"}, "Unknown split"),
        ({"text": "nope"}, r"has no field \['nope'\]; it has .*document"),
        ({"name": "no_such_set"}, "prepare it as array_record"),
    ):
        with pytest.raises(UserError, match=text):
            data.tfds(**options | more)


def test_attributes_are_those_that_training_texts_name():
    text = lambda *names: RatedText(
        "i", "d", "1", "t", 1.0, attributes=tuple((n, 2.0) for n in names)
    )
    made = lambda *train: data.Data(list(train), [text("held")], [text("last")], None, [])
    assert made(text("kind", "clear"), text(), text("clear", "long")).attributes == (
        "clear",
        "kind",
        "long",
    )
    assert made(text()).attributes == ()
    assert made(Pair("i", "d", "1", "p", "a", "b")).attributes == ()


def test_parts_of_the_training_documents_are_disjoint_and_cover_them():
    whole, halves = data.human_ratings(domains="nyt"), []
    for part in ("0/2", "1/2"):
        found = data.human_ratings(domains="nyt", part=part)
        assert (found.validation, found.test) == (whole.validation, whole.test)
        halves.append({r.document for r in found.train})
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == {r.document for r in whole.train}
    assert min(map(len, halves)) > 0.3 * len(halves[0] | halves[1])
    with pytest.raises(UserError, match="config key 'data': write the place"):
        data.human_ratings(part="2/2")


def test_made_up_data_of_other_kinds_split_by_document():
    for made, kind in (
        (data.sums(count=50, most=9), "plain texts"),
        (data.synthetic_pairs(count=50), "pairs"),
    ):
        assert made.kind == kind
        parts = [{r.document for r in part} for part in (made.train, made.validation, made.test)]
        assert [len(p) for p in parts] == [30, 10, 10]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    for text in data.sums(count=50, most=9).train:
        first, second = text.prompt.removesuffix("=").split("+")
        assert int(first) + int(second) == int(text.text)
    with pytest.raises(UserError, match=r"there are 100 sums up to 9 \+ 9, not 101"):
        data.sums(count=101, most=9)
