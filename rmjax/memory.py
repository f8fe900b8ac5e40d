"""What glibc does with freed memory: on CPU a step's large buffers are best kept for the next, but not all for ever."""

import ctypes
import platform

GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def keep_freed() -> None:
    """Has glibc keep what a step frees for the next one.

    Else large buffers go back to the system after every step, and page faults take about a quarter of a step on CPU.
    It works only before other libraries start threads, which have memory of their own from then on.
    """
    mmap_max, trim_threshold, arena_max = -4, -1, -8  # as malloc.h numbers them
    if GLIBC is not None:
        for option, value in ((mmap_max, 0), (trim_threshold, -1), (arena_max, 1)):
            GLIBC.mallopt(option, value)


def release() -> None:
    """Gives what is free back to the system, for the moments between steps when other work has broken it up.

    A small buffer that stays behind one of gigabytes keeps glibc from using that place for an equal one: it takes a
    new one. Without this a few validations and checkpoints took a model of 135 million parameters from 8 to 22 GB.
    """
    if GLIBC is not None:
        GLIBC.malloc_trim(0)
