"""What was done, line by line, so that nothing is lost when the program dies."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from napari_segany.core.errors import StorageError

VERSION = 1


class Journal:
    """Append-only JSON lines, each with a checksum and on disk before `append` returns.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            read_journal(path, mend=True)
            self._file = path.open("ab")
        except OSError as error:
            raise StorageError(f"The journal {path} cannot be written: {error.strerror or error}.") from error

    def append(self, event: dict[str, Any]) -> None:
        """Write one event.

        Raises
        ------
        StorageError
            The disk is full or gone.
        """
        body = json.dumps({"version": VERSION, **event}, separators=(",", ":"))
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"The journal {self.path} cannot be written: {error.strerror or error}.") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_journal(path: Path, mend: bool = False) -> list[dict[str, Any]]:
    """Read the events of a journal up to the first damaged line.

    Parameters
    ----------
    path : Path
        May not exist: then there are no events.
    mend : bool
        Cut off what a dying process left unfinished.
    """
    if not path.exists():
        return []
    events, good = [], 0
    data = path.read_bytes()
    for line in data.splitlines(keepends=True):
        checksum, _, body = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or f"{zlib.crc32(body):08x}".encode() != checksum:
            break
        events.append(json.loads(body))
        good += len(line)
    if mend and good < len(data):
        with path.open("rb+") as file:
            file.truncate(good)
    return events
