"""Does generated code pass its tests.

Legend: N completions. The reward is float32 [N].
"""

import ast
import re
from collections.abc import Sequence

import numpy as np

from rmjax.errors import UserError
from rmjax.rewards import sandbox

_FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def unit_tests(
    completions: Sequence[str],
    references: Sequence[str],
    *,
    allow_code: bool = False,
    seconds: float = 5.0,
    memory: int = 512,
) -> np.ndarray:
    """Share of its tests that each completion passes, in [0, 1]; runs code that a model wrote.

    Each completion is a Python program (its last block between ``` fences, or all of it) of the standard library alone.
    It runs in a process of its own, without network, further processes or threads, in an empty folder; what contains
    it, and which protections are weaker, is said in `sandbox`. One that fails before its tests scores 0.

    references: Python statements that run after the program; each top-level `assert` is a test, the rest prepares.
    allow_code: must be set to True: nothing runs otherwise.
    seconds: wall time of a completion with all its tests, > 0; those passed before its end count.
    memory: MiB of address space, >= 64.
    Raises: UserError without allow_code, or where programs cannot be contained; ValueError if references have no test
      or are no Python, sizes differ, or options are outside their range.
    """
    if not allow_code:
        raise UserError(
            "unit_tests() runs programs that a model wrote, isolated as far as the machine allows; "
            "to allow it, write unit_tests(allow_code=True)"
        )
    if not seconds > 0 or memory < 64:
        raise ValueError(
            f"seconds must be positive and memory at least 64 MiB, got {seconds} and {memory}"
        )
    counts = np.array([_tests(r) for r in references], np.float32)
    if not np.all(counts):
        raise ValueError(
            f"{np.sum(counts == 0)} of {len(counts)} references are no Python with an assert"
        )
    programs = [sandbox.Program(_code(c), r) for c, r in zip(completions, references, strict=True)]
    passed = sandbox.passed(programs, seconds=seconds, memory=memory)
    return np.array(passed, np.float32) / counts


def _tests(source: str) -> int:
    try:
        return sum(isinstance(s, ast.Assert) for s in ast.parse(source).body)
    except (SyntaxError, ValueError):
        return 0


def _code(completion: str) -> str:
    blocks = _FENCE.findall(completion)
    return blocks[-1] if blocks else completion
