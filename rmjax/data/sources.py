"""The user's own files, JSONL or Parquet, local or hf://: every bad line is named before any compute is spent."""

import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

import pyarrow.parquet

from rmjax.data.records import Pair, RatedText, Record
from rmjax.data.splits import normalized
from rmjax.errors import UserError

SHOWN = 5  # bad lines named in one error
FIELDS = 'needs "text" with "rating" or "ratings", or "chosen" and "rejected" (with "prompt")'


class Read(NamedTuple):
    """The records of a file, of one kind, and notes on what was left out."""

    records: list[Record]
    notes: list[str]


class _Bad(Exception):
    """What is wrong with one line, its field named."""


def read(path: str, domain: str = "") -> Read:
    """Reads {"text", "rating" | "ratings"} or {"prompt", "chosen", "rejected"} records.

    path: .jsonl, .jsonl.gz, .json (one object a line) or .parquet; or hf://datasets/ORG/NAME/FILE.
      Optional fields: id, document, domain, weight; of pairs margin and votes,
      [for chosen, for rejected] or with a third number of ties. chosen, rejected and prompt are strings or
      lists of {"role", "content"} messages; what both lists begin with joins the prompt. Pairs that are empty
      or identical are dropped and counted.
    domain: of records that do not name theirs; default: the file's stem.
    Raises: UserError naming the file, the first bad lines and their fields; or that nothing is left.
    """
    stem = domain or PurePosixPath(path).name.split(".")[0]
    records: list[Record] = []
    bad, kinds, dropped = [], set(), 0
    for number, row in _rows(path):
        try:
            record = _record(row, number, stem)
        except _Bad as problem:
            bad.append(f"line {number}: {problem}")
            if len(bad) == SHOWN:
                break
            continue
        kinds.add(type(record).__name__)
        if isinstance(record, Pair) and (
            record.chosen == record.rejected
            or not (record.chosen.strip() and record.rejected.strip())
        ):
            dropped += 1
            continue
        records.append(record)
    if bad:
        more = " (and perhaps more)" if len(bad) == SHOWN else ""
        raise UserError(
            f"{path}: {'; '.join(bad)}{more}. A record {FIELDS}; mend or remove these lines"
        )
    if len(kinds) > 1:
        raise UserError(f"{path}: holds rated texts and pairs; put them into two files")
    if not records:
        raise UserError(
            f"{path}: holds no usable record ({dropped} empty or identical pairs). A record {FIELDS}"
        )
    notes = [f"{path}: {dropped} pairs dropped, empty or identical"] if dropped else []
    return Read(records, notes)


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
    """Line numbers and parsed lines; a line that is no JSON comes as the _Bad that says so."""
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
                    yield number, _Bad(str(error))
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


def _record(row: Any, number: int, stem: str) -> Record:
    if isinstance(row, _Bad):
        raise row
    if not isinstance(row, Mapping):
        raise _Bad("is no JSON object")
    row = {k: v for k, v in row.items() if v is not None}  # Parquet gives absent fields as null
    paired = "chosen" in row or "rejected" in row
    if paired == ("text" in row):
        raise _Bad(FIELDS)
    common = {
        "id": str(row.get("id", number)),
        "domain": _string(row, "domain", stem),
        "weight": _number(row, "weight", 1.0, lambda v: v >= 0, "a number of at least 0"),
    }
    return _pair(row, common) if paired else _rated(row, common)


def _rated(row: Mapping, common: dict) -> RatedText:
    text = _string(row, "text")
    if not text.strip():
        raise _Bad('field "text": is empty')
    ratings = row.get("ratings", ())
    if not isinstance(ratings, list | tuple) or not all(_finite(v) for v in ratings):
        raise _Bad('field "ratings": must be a list of numbers')
    if "rating" in row:
        rating = _number(row, "rating")
    elif ratings:
        rating = sum(ratings) / len(ratings)
    else:
        raise _Bad('needs "rating" or a non-empty "ratings"')
    document = str(row.get("document", normalized(text)))
    own = tuple(float(v) for v in ratings)
    return RatedText(document=document, text=text, rating=float(rating), ratings=own, **common)


def _pair(row: Mapping, common: dict) -> Pair:
    prompt, chosen, rejected = _split_prompt(
        *(row.get(k, "") for k in ("prompt", "chosen", "rejected"))
    )
    target = None
    if "votes" in row:
        votes = row["votes"]
        listed = isinstance(votes, list | tuple) and len(votes) in (2, 3)
        if not listed or not all(_finite(v) and v >= 0 for v in votes) or not sum(votes):
            raise _Bad(
                'field "votes": must be [for chosen, for rejected] or [.., .., ties], not all 0'
            )
        target = (votes[0] + sum(votes[2:]) / 2) / sum(votes)
    return Pair(
        document=str(row.get("document", normalized(prompt) or normalized(chosen))),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        margin=_number(row, "margin") if "margin" in row else None,
        target=target,
        **common,
    )


def _split_prompt(prompt: Any, chosen: Any, rejected: Any) -> tuple[str, str, str]:
    """The three as text; the messages that chosen and rejected begin with alike belong to the prompt."""
    head = _messages(prompt, "prompt")
    sides = [_messages(chosen, "chosen"), _messages(rejected, "rejected")]
    shared: list[tuple[str, str]] = []
    if isinstance(chosen, list) and isinstance(rejected, list):
        while all(len(s) > 1 for s in sides) and sides[0][0] == sides[1][0]:
            shared.append(sides[0][0])
            sides = [s[1:] for s in sides]
    if (
        shared
        and [content for _, content in head] == [content for _, content in shared][-len(head) :]
    ):
        head = []  # both sides repeat the prompt
    better, worse = [_text(s) if s and s[-1][1].strip() else "" for s in sides]
    return _text(head + shared), better, worse


def _messages(value: Any, field: str) -> list[tuple[str, str]]:
    """Role and content of each message; a string is one of no role."""
    if isinstance(value, str):
        return [("", value)] if value else []
    well = isinstance(value, list) and all(
        isinstance(m, Mapping)
        and isinstance(m.get("role"), str)
        and isinstance(m.get("content"), str)
        for m in value
    )
    if not well:
        raise _Bad(f'field "{field}": must be a string or a list of {{"role", "content"}} messages')
    return [(m["role"], m["content"]) for m in value]


def _text(messages: list[tuple[str, str]]) -> str:
    return "\n".join(f"{role}: {content}" if role else content for role, content in messages)


def _string(row: Mapping, field: str, default: str | None = None) -> str:
    value = row.get(field, default)
    if not isinstance(value, str):
        raise _Bad(f'field "{field}": must be a string, not {value!r}')
    return value


def _number(
    row: Mapping,
    field: str,
    default: float | None = None,
    good: Callable[[float], bool] = lambda v: True,
    what: str = "a finite number",
) -> float:
    value = row.get(field, default)
    if not _finite(value) or not good(value):
        raise _Bad(f'field "{field}": must be {what}, not {value!r}')
    return float(value)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
