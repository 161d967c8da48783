"""How much memory this computer has left, and giving back what is not needed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path


def free_memory() -> int | None:
    """Bytes that can be had without swapping; all of the memory, or None, where the system does not tell."""
    try:
        # Not the pages that are free: the system fills those with files that it would give up.
        with Path("/proc/meminfo").open() as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def give_back_memory() -> None:
    """Return what was freed to the system, where its allocator can.

    That of glibc keeps what lies between pieces still in use: over hundreds of
    tiles this came to 2 GB.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
