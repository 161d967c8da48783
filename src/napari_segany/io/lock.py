"""One writer per output: a lock file that tells who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from napari_segany.core.errors import StorageError


class OutputLock:
    """Lock beside an output folder, ``<name>.lock``.

    Parameters
    ----------
    output : Path
    """

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(output.name + ".lock")
        self._held = False

    def acquire(self) -> None:
        """Take the lock, also from a process that has died on this computer.

        Raises
        ------
        StorageError
            Another process holds it, or the folder cannot be written.
        """
        mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})
        for _ in range(2):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("x") as file:
                    file.write(mine)
                self._held = True
                return
            except FileExistsError:
                self._refuse_if_alive()
                self.path.unlink(missing_ok=True)
            except OSError as error:
                reason = error.strerror or error
                raise StorageError(f"{self.path.parent} cannot be written: {reason}; choose another output.") from error
        raise StorageError(f"{self.path} is being taken by another process; try again.")

    def _refuse_if_alive(self) -> None:
        try:
            owner = json.loads(self.path.read_text())
            host, pid, since = owner["host"], int(owner["pid"]), float(owner["since"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if host == socket.gethostname() and (pid == os.getpid() or not _is_alive(pid)):
            # Of a dead process, or of an earlier session in this one that was never closed.
            return
        minutes = (time.time() - since) / 60
        raise StorageError(
            f"Process {pid} on {host} has been writing to {self.path.with_suffix('').name} for {minutes:.0f} minutes; "
            f"close it, or delete {self.path} if it is gone."
        )

    def release(self) -> None:
        """Give the lock back."""
        if self._held:
            self.path.unlink(missing_ok=True)
            self._held = False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
