"""The human ratings as published: every text, its raters' mean, documents and duplicates in one split."""

import collections
import json
import subprocess
import sys

import numpy as np
import pytest

from rmjax import assets
from rmjax.data import pipeline, splits
from rmjax.data.builders import human_ratings
from rmjax.data.builders.human_ratings.human_ratings import FILES, read
from rmjax.data.encode import Known, Reader, encode, told
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError

COUNTS = {"movie": 10605, "amazon": 3708, "nyt": 5190, "tweets": 4200}


@pytest.fixture(scope="module")
def source():
    return assets.folder("human_ratings")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def found(source, prepared):
    return human_ratings.load(source, prepared)


def lines(source, name):
    """The fields of each line of a file, read without the code under test."""
    content = (source / name).read_bytes().removeprefix(b"\xef\xbb\xbf")
    return [line.split(b"\t") for line in content.splitlines()]


def test_every_published_text_is_read_byte_for_byte(source, found):
    texts = collections.Counter((r.domain, r.id, r.text) for part in found.values() for r in part)
    want = collections.Counter()
    for domain, file in FILES.items():
        for key, _, text in lines(source, f"{file}_GroundTruth.txt"):
            want[domain, key.decode(), text.decode()] += 1
    assert texts == want
    assert collections.Counter(domain for domain, _, _ in texts) == COUNTS
    assert sum(text.count('"') % 2 for _, _, text in texts) == 33  # stray quotes swallow nothing


def test_the_number_of_records_of_each_split_is_recorded(prepared, found):
    info = json.loads((prepared / "human_ratings/1.0.0/dataset_info.json").read_text())
    recorded = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
    assert recorded == {name: len(part) for name, part in found.items()}
    assert recorded == {"train": 18863, "validation": 2453, "test": 2387}


def test_the_rating_is_the_mean_of_the_raters_own(source, found):
    by_key = {(r.domain, r.id): r for part in found.values() for r in part}
    for domain, file in FILES.items():
        for key, _, _, listed in lines(source, f"{file}_anonDataRatings.txt"):
            record, ratings = by_key[domain, key.decode()], json.loads(listed)
            assert record.ratings == tuple(ratings)
            assert abs(record.rating - sum(ratings) / len(ratings)) < 1e-12
    published = {row["id"]: row["published_mean"] for row in read(source, "tweets")}
    gaps = [abs(by_key["tweets", key].rating - mean) for key, mean in published.items()]
    assert sum(gap > 0.05 for gap in gaps) == 183
    assert np.median(gaps) < 1e-6


def test_documents_and_duplicates_stay_in_one_split(found):
    where = collections.defaultdict(set)
    copies = collections.Counter()
    for split, part in found.items():
        for record in part:
            where["document", record.domain, record.document].add(split)
            where["text", record.domain, splits.normalized(record.text)].add(split)
            copies[record.domain, splits.normalized(record.text)] += 1
    assert all(len(found_in) == 1 for found_in in where.values())
    duplicates = collections.Counter(domain for domain, _ in copies.elements())
    for domain, _ in copies:
        duplicates[domain] -= 1
    assert duplicates["tweets"] > 100  # there is something to keep together
    documents = collections.Counter(domain for kind, domain, _ in where if kind == "document")
    assert (documents["amazon"], documents["nyt"]) == (300, 498)
    for domain, count in COUNTS.items():
        share = sum(r.domain == domain for r in found["train"]) / count
        assert 0.7 < share < 0.9


def test_padding_of_packed_batches_is_at_most_a_twentieth(found):
    tokenizer = Tokenizer.from_file(assets.folder("minilm") / "tokenizer.json")
    for domains in (("movie",), human_ratings.DOMAINS):
        records = [r for r in found["train"] if r.domain in domains]
        texts, counts = encode(records, Reader(tokenizer, None, 256, False), Known((-4, 4)))
        assert told(counts) == []
        for size in (1, 2, 4):
            drawn = pipeline.batches(texts, seed=0, epochs=1.0, batch_size=32, group_size=size)
            assert drawn.padding <= 0.05, (domains, size, drawn.padding)
            some = [drawn[k] for k in range(0, len(drawn) - 1, len(drawn) // 6)]
            used = np.mean([np.mean(batch["segments"] > 0) for batch in some])
            assert abs(1 - used - drawn.padding) < 0.005


def written(folder, texts, panels, domain="tweets"):
    (folder / f"{FILES[domain]}_GroundTruth.txt").write_bytes(texts)
    (folder / f"{FILES[domain]}_anonDataRatings.txt").write_bytes(panels)
    return list(read(folder, domain))


def test_neither_tensorflow_nor_torch_is_imported(tmp_path):
    ids = range(30)  # every split gets some
    for domain in FILES:
        texts = "".join(f"{i}_1\t0\ttext {i}\n" for i in ids)
        panels = "".join(f"{i}_1\t0\t0\t[{i % 5}]\n" for i in ids)
        written(tmp_path, texts.encode(), panels.encode(), domain)
    code = f"""
import pathlib, sys
sys.path[:0] = {sys.path!r}
from rmjax.assembly import data
from rmjax.data import examples, packing, pipeline, sources, synthetic, tokenizer
found = data.builder.load(pathlib.Path({str(tmp_path)!r}), pathlib.Path({str(tmp_path / "tfds")!r}))
print(sum(map(len, found.values())), *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    count, *modules = done.stdout.split()  # and nothing else is printed
    assert (count, done.stderr) == ("120", "")
    assert {"rmjax.data.pipeline", "tensorflow_datasets"} <= set(modules)
    assert not {"tensorflow", "torch"} & set(modules)


PANEL = b"1\t9.9\t0.5\t[1, -2]\n"


def test_byte_order_mark_quotes_tabs_and_line_ends_survive(tmp_path):
    (row,) = written(tmp_path, b'\xef\xbb\xbf1\t0.25\t"So"\t\xc3\xa9 "\r\n', PANEL)
    assert (row["id"], row["text"]) == ("1", '"So"\té "')
    assert (row["rating"], row["published_mean"], row["document"]) == (-0.5, 0.25, "soé")
    (row,) = written(tmp_path, b"7_3\t0\tSo.\n", PANEL.replace(b"1\t9", b"7_3\t9"), "amazon")
    assert row["document"] == "7"


@pytest.mark.parametrize(
    ("texts", "panels", "where", "text"),
    [
        (b"1\t0\t\xe9\n", PANEL, "GroundTruth.txt: ", "cannot be read as UTF-8: 'utf-8' codec"),
        (b"1\t0\ta\n", b"\xff" + PANEL, "anonDataRatings.txt: ", "cannot be read as UTF-8"),
        (b"1\t0\ta\n1\n", PANEL, "GroundTruth.txt, line 2: ", "1 fields, 3 expected"),
        (b"\n2\t0\ta\n", PANEL, "GroundTruth.txt, line 2: ", "no ratings for id '2'"),
        (b"1\t0\ta\n", b"1\t0\t0\t[]\n", "GroundTruth.txt, line 1: ", "ratings of id '1' cannot"),
        (b"1\t0\ta\n", b"1\t0\t0\t[1, x]\n", "GroundTruth.txt, line 1: ", "of id '1' cannot"),
        (b"1\t0\ta\n", b"1\t0\tx\t[1]\n", "GroundTruth.txt, line 1: ", "of id '1' cannot"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path, texts, panels, where, text):
    with pytest.raises(UserError) as caught:
        written(tmp_path, texts, panels)
    assert f"{tmp_path}/tweets_{where}" in str(caught.value)
    assert text in str(caught.value)
