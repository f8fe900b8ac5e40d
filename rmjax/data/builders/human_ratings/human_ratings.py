"""The TFDS builder of the human ratings, from the eight text files as published."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from rmjax.data import splits
from rmjax.data.records import RatedText
from rmjax.errors import UserError

FILES = {
    "movie": "movieReviewSnippets",
    "amazon": "amazonReviewSnippets",
    "nyt": "nytEditorialSnippets",
    "tweets": "tweets",
}
DOMAINS = tuple(FILES)


class HumanRatings(tfds.core.GeneratorBasedBuilder):
    """Every text once: splits by document hash, duplicates together (rmjax.data.splits)."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source: str, **options):
        """source: the folder with the published files."""
        self._source = Path(source)
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        number = np.float32
        features = {
            "id": tfds.features.Text(),
            "domain": tfds.features.Text(),
            "document": tfds.features.Text(),
            "text": tfds.features.Text(),
            "ratings": tfds.features.Tensor(shape=(None,), dtype=number),
            "rating": tfds.features.Scalar(dtype=np.float64),  # the mean of ratings
            "published_mean": tfds.features.Scalar(dtype=np.float64),
            "standard_deviation": tfds.features.Scalar(dtype=np.float64),  # as published
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://github.com/cjhutto/vaderSentiment",
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # `build` brings the files
        rows = [row for domain in DOMAINS for row in read(self._source, domain)]
        records = [
            RatedText(r["id"], r["domain"], r["document"], r["text"], r["rating"]) for r in rows
        ]
        names = splits.assign(records)
        chosen = lambda split: [r for r, n in zip(rows, names, strict=True) if n == split]
        return {split: self._generate_examples(chosen(split)) for split in splits.SPLITS}

    def _generate_examples(self, rows):
        for row in rows:
            yield f"{row['domain']}/{row['id']}", row


def read(source: Path, domain: str) -> Iterator[dict]:
    """The rows of one domain, in the order of the file.

    Raises: UserError naming file and line where a file is not UTF-8 or a line not what the format says.
    """
    texts = _lines(source / f"{FILES[domain]}_GroundTruth.txt", 3)
    panels = {p[0]: p[1:] for _, p in _lines(source / f"{FILES[domain]}_anonDataRatings.txt", 4)}
    for number, (key, published, text) in texts:
        where = f"{source / FILES[domain]}_GroundTruth.txt, line {number}"
        if key not in panels:
            raise UserError(f"{where}: no ratings for id {key!r} in the file of individual ratings")
        _, deviation, listed = panels[key]
        try:
            ratings = np.array(json.loads(listed), np.float32)
            if ratings.ndim != 1 or not ratings.size:
                raise ValueError(f"{listed} is no list of numbers")
            row = {
                "id": key,
                "domain": domain,
                "document": key.rsplit("_", 1)[0]
                if domain in ("amazon", "nyt")
                else splits.normalized(text),
                "text": text,
                "ratings": ratings,
                "rating": float(ratings.mean(dtype=np.float64)),
                "published_mean": float(published),
                "standard_deviation": float(deviation),
            }
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{where}: the ratings of id {key!r} cannot be read: {error}"
            ) from error
        yield row


def _lines(path: Path, fields: int) -> Iterator[tuple[int, list[str]]]:
    try:
        content = path.read_bytes().decode(
            "utf-8-sig"
        )  # one of the files opens with a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8: {error}") from error
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        parts = line.rstrip("\r").split("\t", fields - 1)  # a text may hold tabs and stray quotes
        if len(parts) != fields:
            raise UserError(f"{path}, line {number}: {len(parts)} fields, {fields} expected")
        yield number, parts


def load(source: Path, prepared: Path) -> dict[str, list[RatedText]]:
    """The records of each split, prepared in `prepared` first where they are not."""
    tfds.disable_progress_bar()
    builder = HumanRatings(source=str(source), data_dir=str(prepared))
    with contextlib.redirect_stdout(io.StringIO()):  # "Downloading Unknown size ..."
        builder.download_and_prepare()
    found = {}
    for split in splits.SPLITS:
        rows = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue] (decorated)
        # All at once, as PyTorch's loaders ask for them, takes a third of the time of one by one.
        found[split] = [_record(row) for row in rows.__getitems__(range(len(rows)))]
    return found


def _record(row) -> RatedText:
    word = lambda name: row[name].decode("utf-8")
    ratings = tuple(float(v) for v in row["ratings"])
    # TFDS keeps floats in 32 bits, so the mean is taken anew from the (whole) ratings.
    return RatedText(
        word("id"), word("domain"), word("document"), word("text"), float(np.mean(ratings)), ratings
    )
