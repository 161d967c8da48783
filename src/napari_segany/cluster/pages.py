"""Memory that workers keep for the next tensor."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: Parameters of glibc's mallopt, and its largest threshold.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX, LARGEST = -1, -3, -8, 32 << 20


def keep_pages() -> None:
    """Let this process keep up to a gigabyte of freed memory, where the C library is glibc.

    Dask starts workers with an allocator that gives every large block back
    to the system at once. Networks ask for such blocks all the time, and
    zeroing fresh pages then takes more time than computing in them.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, 1 << 30), (ARENA_MAX, 1)):
            mallopt(parameter, value)
