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

#: Version 1 wrote one event a line.
VERSION = 2


class Journal:
    """Append-only JSON lines, each with a checksum and on disk before `append` returns.

    What one gesture changed is one line, so that it is there as a whole or not at all.

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
        # Where a line begins that could be neither finished nor removed.
        self._torn: int | None = None
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

    def append(self, *events: dict[str, Any]) -> None:
        """Write events that belong together.

        Raises
        ------
        StorageError
            The disk is full or gone, or the journal was closed; the journal then is as before.
        """
        body = json.dumps({"version": VERSION, "events": events}, separators=(",", ":"))
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        with self._turn:
            if self._file.closed:
                raise StorageError(f"The journal {self.path} was closed.")
            try:
                self._remove_torn()
                self._torn = os.fstat(self._file.fileno()).st_size
                if self._file.write(line) != len(line):
                    raise OSError(None, "the disk is full")
                os.fsync(self._file.fileno())
                self._torn = None
            except OSError as error:
                with suppress(OSError):
                    self._remove_torn()
                raise self._failure(error) from error

    def _remove_torn(self) -> None:
        if self._torn is not None:
            self._file.truncate(self._torn)
            self._torn = None

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
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            version, found = _parse(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            warnings.warn(f"Line {number} of the journal {path} is damaged and was left out.", stacklevel=2)
            continue
        if version > VERSION:
            raise StorageError(f"The journal {path} was written by a newer version; update napari-segany.")
        events += found
    return events


def _parse(line: bytes) -> tuple[int, list[dict[str, Any]]]:
    """Version and events of one line; an error where it is not what `Journal.append` writes."""
    checksum, _, body = line.partition(b" ")
    if f"{zlib.crc32(body):08x}".encode() != checksum:
        raise ValueError("the checksum is another")
    document = json.loads(body)
    version = document.pop("version")
    if type(version) is not int:
        raise TypeError("the version is no number")
    if version > VERSION:
        return version, []
    events = [document] if version == 1 else document["events"]
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise TypeError("there are no events")
    return version, events
