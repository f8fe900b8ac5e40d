"""Runs programs that no one has read: one process each, without network, rights, further processes or much of anything.

What holds, and what is weaker (Linux only):
  * by the kernel: wall time, processor time, memory, size of a file, no second process or thread, no output but the
    report; root becomes nobody first. Where processes cannot be limited, nothing is run.
  * by the kernel where it allows network namespaces: no network.
  * by a hook inside the interpreter: no sockets, no other program, no signals, files only in an empty folder. This is
    weaker, being as strong as the interpreter, and all that keeps the network away where namespaces are forbidden.
  * not at all: a program shares its interpreter with its tests, so one that is written to cheat can report a pass.
"""

import functools
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rmjax.errors import UserError

RUNNER = Path(__file__).with_name("runner.py")
REPORT_BYTES = 1 << 20


class Program(NamedTuple):
    """Python source, and the source of the statements run after it, whose top-level `assert`s are its tests."""

    code: str
    tests: str


def passed(programs: Sequence[Program], *, seconds: float, memory: int) -> list[int]:
    """How many tests of each program pass, as many programs at once as there are cores.

    seconds: wall and processor time of a program with all its tests; those passed before its end count.
    memory: of a program, MiB.
    Raises: UserError where programs cannot be contained.
    """
    if sys.platform != "linux":
        raise UserError(
            "unit_tests() contains programs by means that Linux alone has; run it there"
        )
    _try_out(seconds, memory)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda p: len(_reported(p, seconds, memory) - {"ready"}), programs))


@functools.cache
def _try_out(seconds: float, memory: int) -> None:
    # Once, with a program of ours: of an unknown one, neither a refusal nor silence would prove a thing.
    said = _reported(Program("", "assert True"), seconds, memory)
    if said != {"ready", "passed 0"}:
        why = (
            "".join(said).removeprefix("refused ")
            or f"it needs more than {seconds} s or {memory} MiB"
        )
        raise UserError(f"unit_tests() cannot run programs here: {why}")


def _reported(program: Program, seconds: float, memory: int) -> set[str]:
    """What the runner says: "ready", and "passed" with the number of each test that has."""
    token = secrets.token_hex(16)
    job = {**program._asdict(), "token": token, "seconds": seconds, "memory": memory}
    # Files, not pipes: a flood of output ends at the limit of a file's size and is never held in memory here.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as report,
    ):
        given.write(json.dumps(job).encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(RUNNER)],
            stdin=given, stdout=report, stderr=subprocess.DEVNULL, cwd=folder, env={},
        )  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
        report.seek(0)
        lines = report.read(REPORT_BYTES).decode(errors="replace").splitlines()
    return {line.removeprefix(f"{token} ") for line in lines if line.startswith(f"{token} ")}
