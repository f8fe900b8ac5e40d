"""JSON lines in and out, from files or through pipes."""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from rmjax.data import sources
from rmjax.errors import UserError


def objects(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, Any]]:
    """Line numbers and values; empty lines are passed over.

    Raises: UserError naming the file and line that is no JSON.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, sources.parse(line, number)
        except ValueError as error:
            raise UserError(f"{name}, line {number}: {error}") from error


def chunks(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` rows, the last perhaps shorter."""
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


@contextlib.contextmanager
def reading(name: str) -> Iterator[BinaryIO]:
    """The lines of a file; - is the standard input.

    Raises: UserError if it cannot be read.
    """
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(name, "rb")  # noqa: SIM115 (what happens to the lines is no fault of opening)
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def writing(name: str) -> Iterator[TextIO]:
    """A file that appears whole, once the block ends; - is the standard output.

    Raises: UserError if it cannot be written.
    """
    if name == "-":
        yield sys.stdout
        return
    partial = Path(f"{name}.partial")
    try:
        file = open(partial, "w", encoding="utf-8")  # noqa: SIM115 (as in reading)
    except OSError as error:
        raise UserError(f"{name}: cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
        os.replace(partial, name)
    finally:
        partial.unlink(missing_ok=True)
