"""The user's own files, JSONL or Parquet, local or hf://: every bad line is named before any compute is spent."""

import collections
import dataclasses
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

import pyarrow.parquet

from rmjax.data import formats
from rmjax.data.fields import Bad
from rmjax.data.records import Process, RatedText, Record
from rmjax.errors import UserError

SHOWN = 5  # bad lines named in one error


class Read(NamedTuple):
    """The records of a file, of one kind, and notes on what was left out; classes: names in order, or ()."""

    records: list[Record]
    notes: list[str]
    classes: tuple[str, ...] = ()


def read(path: str, domain: str = "", rating: str = "", classes: Sequence[str] = ()) -> Read:
    """Reads the records of a file; `formats` lists what may stand in a line.

    path: .jsonl, .jsonl.gz, .json (one object a line) or .parquet; or hf://datasets/ORG/NAME/FILE.
    domain: of records that do not name theirs; default: the file's stem.
    rating: the attribute that is a text's rating; default: the text's own rating, or the mean of its attributes.
    classes: the names that labels may have, in order; default: those that occur, sorted.
    Raises: UserError naming the file, the first bad lines and their fields; or that nothing is left.
    """
    stem = domain or PurePosixPath(path).name.split(".")[0]
    return collect(path, _rows(path), formats.Reading(stem, rating, tuple(classes)))


def collect(source: str, rows: Iterable[tuple[int, Any]], reading: formats.Reading) -> Read:
    """The records of numbered rows; a row that is a Bad says what is wrong with it.

    source: the name that errors and notes begin with.
    Raises: UserError as `read`.
    """
    records: list[Record] = []
    labels: list[str] = []
    bad, kinds, notes = [], set(), collections.Counter()
    for number, row in rows:
        try:
            if isinstance(row, Bad):
                raise row
            draft = formats.draft(row, number, reading)
        except Bad as problem:
            bad.append(f"line {number}: {problem}")
            if len(bad) == SHOWN:
                break
            continue
        if draft.note:
            notes[draft.note] += 1
        if draft.record is not None:
            records.append(draft.record)
            labels.append(draft.label)
            kinds.add((type(draft.record).__name__, bool(draft.label)))
    told = [f"{count} {note}" for note, count in sorted(notes.items())]
    if bad:
        more = " (and perhaps more)" if len(bad) == SHOWN else ""
        raise UserError(
            f"{source}: {'; '.join(bad)}{more}. A record {formats.FIELDS}; mend or remove these lines"
        )
    if len(kinds) > 1:
        names = sorted(f"{kind}{' with label' * labeled}" for kind, labeled in kinds)
        raise UserError(
            f"{source}: holds records of several kinds ({', '.join(names)}); one a file"
        )
    if not records:
        left_out = "; ".join(told) or "it is empty"
        raise UserError(f"{source}: holds no usable record ({left_out}). A record {formats.FIELDS}")
    if any(labels):
        names = reading.classes or _sorted(labels)
        place = {name: float(i) for i, name in enumerate(names)}
        rated = [
            dataclasses.replace(r, rating=place[label])
            for r, label in zip(records, labels, strict=True)
            if isinstance(r, RatedText)
        ]
        return Read(list(rated), [f"{source}: {note}" for note in told], tuple(names))
    return Read(_between_0_and_1(records), [f"{source}: {note}" for note in told])


def _sorted(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels, whole numbers by value."""
    whole = all(label.lstrip("-").isdecimal() for label in labels)
    return tuple(sorted(set(labels), key=(lambda v: (int(v), v)) if whole else None))


def _between_0_and_1(records: list[Record]) -> list[Record]:
    """Step labels of 1, 0 and -1 as 1, 1/2 and 0, in a file that holds a -1; others as they are."""
    steps = [r for r in records if isinstance(r, Process)]
    if all(label >= 0 for r in steps for label in r.labels):
        return records
    return [
        dataclasses.replace(r, labels=tuple((label + 1) / 2 for label in r.labels)) for r in steps
    ]


def parse(line: bytes, number: int) -> Any:
    """The value of a line of JSON; line 1 may open with a byte-order mark.

    Raises: ValueError where it is none, or holds half a surrogate pair, which is no text.
    """
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise ValueError(f"is not JSON in UTF-8: {error}") from error
    return value


def _rows(path: str) -> Iterator[tuple[int, Any]]:
    """Line numbers and parsed lines; a line that is no JSON comes as the Bad that says so."""
    try:
        with _open(path) as file:
            if path.endswith(".parquet"):
                table = pyarrow.parquet.read_table(file)
                yield from enumerate(table.to_pylist(), 1)
                return
            lines = gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield number, parse(line, number)
                except ValueError as error:
                    yield number, Bad(str(error))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _open(path: str) -> io.BufferedIOBase:
    if not path.endswith((".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")):
        raise UserError(f"{path}: should end in .jsonl, .jsonl.gz, .json or .parquet")
    if not path.startswith("hf://"):
        return open(path, "rb")
    from huggingface_hub import HfFileSystem

    try:
        with HfFileSystem().open(path.removeprefix("hf://"), "rb") as file:
            return io.BytesIO(cast(bytes, file.read()))
    except FileNotFoundError:
        raise
    except Exception as error:  # the hub's and the network's errors share no class
        raise UserError(
            f"{path}: cannot be fetched: {error}; a local file needs no network"
        ) from error
