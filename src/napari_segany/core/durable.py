"""Files that are there as a whole or not at all, after a loss of power too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; folders cannot be waited for on Windows."""
    if not path.is_dir():
        handle = os.open(path, os.O_RDWR)
    elif os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
    else:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which then replaces `path` in one step: whoever reads finds the old or the new.

    Raises
    ------
    OSError
        `path` is as it was.
    """
    new = path.with_name(path.name + ".new")
    try:
        yield new
        sync(new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)
