"""What glibc does with freed memory: on CPU a step's large buffers are best kept for the next, but not all for ever."""

import ctypes
import os
import platform
from pathlib import Path

GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
STATM = Path("/proc/self/statm")


def keep_freed() -> None:
    """Has glibc keep what a step frees for the next one.

    Else large buffers go back to the system after every step, and page faults take about a quarter of a step on CPU.
    It works only before other libraries start threads, which have memory of their own from then on.
    """
    mmap_max, trim_threshold, arena_max = -4, -1, -8  # as malloc.h numbers them
    if GLIBC is not None:
        for option, value in ((mmap_max, 0), (trim_threshold, -1), (arena_max, 1)):
            GLIBC.mallopt(option, value)


def resident() -> int:
    """Bytes that the process has in memory; 0 where the system does not say."""
    if not STATM.exists():
        return 0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def release(beyond: float) -> None:
    """Gives what is free back to the system if the process has more than `beyond` bytes, for moments between steps.

    A small buffer that comes to lie behind one of gigabytes keeps glibc from using that place for an equal one: it
    takes a new one. Without this a model of 135 million parameters went from 8 to 22 GB in a few steps.
    """
    if GLIBC is not None and resident() > beyond:
        GLIBC.malloc_trim(0)
