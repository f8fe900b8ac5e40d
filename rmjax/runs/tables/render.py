"""A table as Markdown, CSV, LaTeX or JSON text.

A figure NAME may have NAME_low, NAME_high (its interval) and NAME_published (as printed in the paper) beside it:
separate columns for machines, one cell for people: "0.874 [0.869, 0.878] / .881".
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]
BESIDE = ("_low", "_high", "_published")
MISSING = "–"
SPECIALS = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MISSING: "--",
}


class Table(NamedTuple):
    """What a table shows, and how: records (one a row), the order of columns, and notes for the reader."""

    title: str
    columns: Sequence[str]
    records: Sequence[Record]
    notes: Sequence[str]


def markdown(table: Table) -> str:
    """A heading, the table, and its notes as a list."""
    lines = [_row(table.columns), _row(["---"] * len(table.columns))]
    lines += [_row(_cells(record, table.columns)) for record in table.records]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"# {table.title}", "", *lines, "", *notes]) + "\n"


def comma_separated(table: Table) -> str:
    """A heading line and one line a record; an undefined figure is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, _all_columns(table), restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(_plain(table))
    return text.getvalue()


def latex(table: Table) -> str:
    """A `table` of one `tabular`, without any package; the notes are comments."""
    rows = [_latex_row(table.columns)] + [
        _latex_row(_cells(r, table.columns)) for r in table.records
    ]
    head = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
        r"\hline",
    ]
    tail = [r"\hline", r"\end{tabular}", r"\end{table}"]
    notes = [f"% {note}" for note in table.notes]
    return "\n".join([*notes, *head, rows[0], r"\hline", *rows[1:], *tail]) + "\n"


def plain_json(table: Table) -> str:
    """An object of title, notes and rows; an undefined figure is null."""
    rows = list(_plain(table))
    whole = {"title": table.title, "notes": list(table.notes), "rows": rows}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS = {"md": markdown, "csv": comma_separated, "tex": latex, "json": plain_json}


def _all_columns(table: Table) -> list[str]:
    """The columns, each followed by those beside it that any record has."""
    names = [f"{column}{more}" for column in table.columns for more in ("", *BESIDE)]
    return [n for n in names if n in table.columns or any(n in r for r in table.records)]


def _plain(table: Table) -> Iterable[dict[str, Any]]:
    """The records with every column, undefined figures None."""
    columns = _all_columns(table)
    return ({c: None if _undefined(r.get(c)) else r[c] for c in columns} for r in table.records)


def _cells(record: Record, columns: Sequence[str]) -> list[str]:
    return [_cell(*(record.get(f"{column}{more}") for more in ("", *BESIDE))) for column in columns]


def _cell(value: Any, low: Any, high: Any, published: Any) -> str:
    interval = "" if _undefined(low) or _undefined(high) else f" [{low:.3f}, {high:.3f}]"
    return _text(value) + interval + ("" if published is None else f" / {published}")


def _text(value: Any) -> str:
    if _undefined(value):
        return MISSING
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _row(cells: Sequence[str]) -> str:
    """A Markdown row; a cell has no line breaks, and its pipes are no borders."""
    return f"| {' | '.join(' '.join(c.split()).replace('|', chr(92) + '|') for c in cells)} |"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(c) for c in cells) + r" \\"


def _latex(text: str) -> str:
    characters = "".join(map(re.escape, SPECIALS))
    return re.sub(f"[{characters}]", lambda found: SPECIALS[found.group()], " ".join(text.split()))
