"""One propagation at a time, in another thread, that can be cancelled between planes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from threading import Event

from napari.qt.threading import create_worker
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]

from napari_segany.gui.jobs import Outcome
from napari_segany.session.session import Direction, Session


def count_frames(session: Session, start: int, stop: int, direction: Direction) -> int:
    """How many frames a propagation is going to visit."""
    known = [frame for _, frame in (*session.prompts, *session.accepted) if start <= frame < stop]
    if direction == "forward" and known:
        return stop - min(known)
    if direction == "backward" and known:
        return max(known) + 1 - start
    return stop - start


class Propagation(QObject):
    """Runs `Session.propagate`; the session itself announces each plane it has written."""

    #: Whether one is running.
    running_changed = QtSignal(bool)
    #: Planes done, planes in all.
    progressed = QtSignal(int, int)

    def __init__(self) -> None:
        super().__init__()
        self._stop: Event | None = None

    @property
    def running(self) -> bool:
        """Whether a propagation runs that has not been cancelled."""
        return self._stop is not None

    def start(
        self, session: Session, objects: Sequence[int] | None, start: int, stop: int, direction: Direction
    ) -> None:
        """Start, unless one is running."""
        if self.running:
            show_warning("A propagation is running; cancel it first.")
            return
        asked = self._stop = Event()
        total = count_frames(session, start, stop, direction)
        done: set[int] = set()

        def frames() -> Generator[int, None, Outcome]:
            try:
                for frame, _ in session.propagate(objects, start, stop, direction):
                    yield frame
                    if asked.is_set():
                        break
            except Exception as error:
                return Outcome(error=error)
            return Outcome()

        def yielded(frame: int) -> None:
            done.add(frame)
            if asked is self._stop:
                self.progressed.emit(len(done), total)

        def returned(outcome: Outcome) -> None:
            if not asked.is_set():
                outcome.tell()

        def finished() -> None:
            if asked is self._stop:
                self._stop = None
                self.running_changed.emit(False)

        self.running_changed.emit(True)
        self.progressed.emit(0, total)
        create_worker(
            frames,
            _connect={"yielded": yielded, "returned": returned, "finished": finished},
            _progress={"total": total, "desc": "Propagating"},
        )

    def cancel(self) -> None:
        """Stop after the plane in flight; what is finished stays."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
            self.running_changed.emit(False)
