"""What was done, line by line, so that nothing is lost when the program dies."""

from __future__ import annotations

import json
import os
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_segany.core.errors import StorageError

VERSION = 1


class Journal:
    """Append-only JSON lines, each with a checksum and on disk before `append` returns.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StorageError
        The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what failed once must not be written by a later event.
            self._file = path.open("ab", buffering=0)
            self._cut_torn_line()
        except OSError as error:
            raise self._failure(error) from error

    def _cut_torn_line(self) -> None:
        """Remove the line that a dying process left unfinished; whole lines stay, even damaged ones."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self._file.truncate(data.rfind(b"\n") + 1)

    def append(self, event: dict[str, Any]) -> None:
        """Write one event.

        Raises
        ------
        StorageError
            The disk is full or gone, or the journal was closed; the journal then is as before.
        """
        body = json.dumps({"version": VERSION, **event}, separators=(",", ":"))
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        with self._turn:
            if self._file.closed:
                raise StorageError(f"The journal {self.path} was closed.")
            end = os.fstat(self._file.fileno()).st_size
            try:
                if self._file.write(line) != len(line):
                    raise OSError(None, "the disk is full")
                os.fsync(self._file.fileno())
            except OSError as error:
                with suppress(OSError):
                    self._file.truncate(end)
                raise self._failure(error) from error

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(f"The journal {self.path} cannot be written: {error.strerror or error}.")

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Read the events of a journal.

    A last line that was never finished is dropped. Damaged lines before it
    are left out with a warning: each event stands for itself.

    Parameters
    ----------
    path : Path
        May not exist: then there are no events.

    Raises
    ------
    StorageError
        The file cannot be read, or was written by a newer version.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"The journal {path} cannot be read: {error.strerror or error}.") from error
    events = []
    for number, line in enumerate(lines, start=1):
        checksum, _, body = line.partition(b" ")
        if f"{zlib.crc32(body):08x}".encode() != checksum:
            warnings.warn(f"Line {number} of the journal {path} is damaged and was left out.", stacklevel=2)
            continue
        event = json.loads(body)
        if event["version"] > VERSION:
            raise StorageError(f"The journal {path} was written by a newer version; update napari-segany.")
        events.append(event)
    return events
