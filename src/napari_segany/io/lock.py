"""One writing process per output: an operating-system lock, and a note that tells who holds it."""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_segany.core.errors import StorageError

#: Of the note.
VERSION = 1


class OutputLock:
    """Lock beside an output folder, ``<name>.lock``; the note is ``<name>.lock.json``.

    The system lets go of it when its process dies, however it dies. Within
    one process it can be taken several times, so that a session that was
    never closed does not keep out the next one.

    Parameters
    ----------
    output : Path
    """

    def __init__(self, output: Path) -> None:
        output = output.absolute()
        self._output = output
        self._note = output.with_name(output.name + ".lock.json")
        self._lock = FileLock(output.with_name(output.name + ".lock"), is_singleton=True, thread_local=False)
        self._held = False

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        StorageError
            Another process holds it, or the folder cannot be written.
        """
        owner = {
            "version": VERSION,
            "owner": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.time(),
        }
        try:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            self._held = True
            self._note.write_text(json.dumps(owner))
        except Timeout as error:
            raise StorageError(self._refusal()) from error
        except OSError as error:
            self.release()
            raise StorageError(
                f"{self._output.parent} cannot be written: {error.strerror or error}; choose another output."
            ) from error

    def _refusal(self) -> str:
        try:
            note = json.loads(self._note.read_text())
            minutes = (time.time() - float(note["since"])) / 60
            who = f"Process {int(note['pid'])} of {note['owner']} on {note['host']}"
            return f"{who} has been writing to {self._output.name} for {minutes:.0f} minutes; close it first."
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return f"Another process is writing to {self._output.name}; close it first."

    def release(self) -> None:
        """Give the lock back."""
        if not self._held:
            return
        self._held = False
        if self._lock.lock_counter == 1:
            # While it is still ours; Windows removes the lock file by itself.
            for file in (self._note, Path(self._lock.lock_file)):
                with suppress(OSError):
                    file.unlink()
        self._lock.release()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "an unknown user"
