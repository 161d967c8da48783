"""A disk that fills up, is taken away, forbids writing or is slow, whenever a test wants it."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import Any

import pytest
from zarr.storage import LocalStore

#: What a disk may answer, and what a person then reads.
ANSWERS = {
    errno.ENOSPC: "No space left on device",
    errno.EROFS: "Read-only file system",
    errno.EACCES: "Permission denied",
    errno.EIO: "Input/output error",
}


class Disk:
    """Stands between the program and the disk: every plane, file and line that is to last passes through it.

    Attributes
    ----------
    writes : int
        How many there have been.
    failing : range of numbers of writes that fail
    answer : errno with which they do
    delay : float
        Seconds that each takes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes, self.failing, self.answer, self.delay = 0, range(0), errno.ENOSPC, 0.0
        store_set, fsync = LocalStore.set, os.fsync

        async def watched_set(store: LocalStore, *args: Any, **kwargs: Any) -> None:
            # Not in the way of other readers and writers, as little as a real disk.
            await asyncio.sleep(self.delay)
            self.touch()
            await store_set(store, *args, **kwargs)

        def watched_fsync(handle: int) -> None:
            time.sleep(self.delay)
            self.touch()
            fsync(handle)

        monkeypatch.setattr(LocalStore, "set", watched_set)
        monkeypatch.setattr(os, "fsync", watched_fsync)

    def touch(self) -> None:
        number, self.writes = self.writes, self.writes + 1
        if number in self.failing:
            raise OSError(self.answer, os.strerror(self.answer))

    def fail(self, first: int, count: int, answer: int = errno.ENOSPC) -> None:
        """Fail `count` writes, from the `first` one after now."""
        self.failing, self.answer = range(self.writes + first, self.writes + first + count), answer
