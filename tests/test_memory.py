"""Freed memory is kept for the next step, and given back when it is asked for."""

import subprocess
import sys

from rmjax import memory

CODE = """
from rmjax import memory
memory.keep_freed()
import numpy as np
before, big = memory.resident(), np.ones(2**28, np.uint8)
del big
memory.release(beyond=before + 2**29)
kept = memory.resident() - before
memory.release(beyond=before + 2**27)
print(kept, memory.resident() - before)
"""


def test_freed_memory_is_kept_until_it_is_released():
    made = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    kept, left = map(int, made.stdout.split())
    assert left < 0.1 * 2**28
    assert kept > 0.9 * 2**28 or memory.GLIBC is None  # other libraries have their own way
