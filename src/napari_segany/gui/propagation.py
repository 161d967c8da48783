"""One run along the stack at a time, in another thread, that can be paused and cancelled between planes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]

from napari_segany.gui.jobs import Outcome
from napari_segany.session.tiling import Progress


@dataclass
class _Run:
    stop: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)
    #: Planes that were worked on, of a run that tells.
    looked: int = 0


class Propagation(QObject):
    """Runs generators of (frame, labels); the session itself announces each plane it has written."""

    #: Whether one is running, be it paused.
    running_changed = QtSignal(bool)
    #: Whether the running one is paused.
    paused_changed = QtSignal(bool)
    #: Planes done, planes in all; 0 in all where that is not known.
    progressed = QtSignal(int, int)
    #: The sentence that says so.
    out_of_memory = QtSignal(str)

    def __init__(self) -> None:
        super().__init__()
        self._run: _Run | None = None

    @property
    def running(self) -> bool:
        """Whether a run goes on that has not been cancelled."""
        return self._run is not None

    @property
    def paused(self) -> bool:
        """Whether the run waits to be told to go on."""
        return self._run is not None and not self._run.go_on.is_set()

    def start(self, visits: Callable[[Progress], Iterable[tuple[int, Any]]], total: int = 0) -> None:
        """Start a run, unless one is going on.

        Parameters
        ----------
        visits : callable
            Called in the thread; makes the generator. What it is given may be told of planes on which work goes on
            before they are yielded, and is where the run pauses and is cancelled between them.
        total : int
            Planes it is going to visit, 0 when unknown.
        """
        if self.running:
            show_warning("A propagation is running; cancel it first.")
            return
        run = self._run = _Run()
        run.go_on.set()
        done: set[int] = set()

        def looked(count: int, in_all: int) -> bool:
            run.looked = count
            if run is self._run:
                self.progressed.emit(count, in_all)
            run.go_on.wait()
            return not run.stop.is_set()

        def frames() -> Generator[int, None, Outcome]:
            try:
                for frame, _ in visits(looked):
                    yield frame
                    run.go_on.wait()
                    # A run that tells ends by itself, with the planes it has worked on.
                    if run.stop.is_set() and not run.looked:
                        break
            except Exception as error:
                return Outcome(error=error)
            return Outcome()

        def yielded(frame: int) -> None:
            done.add(frame)
            if run is self._run and not run.looked:
                self.progressed.emit(len(done), total)

        def returned(outcome: Outcome) -> None:
            if not run.stop.is_set():
                outcome.tell(self.out_of_memory.emit)

        def finished() -> None:
            if run is self._run:
                self._run = None
                self.running_changed.emit(False)

        self.running_changed.emit(True)
        self.progressed.emit(0, total)
        create_worker(
            frames,
            _connect={"yielded": yielded, "returned": returned, "finished": finished},
            _progress={"total": total, "desc": "Propagating"},
        )

    def pause(self) -> None:
        """Wait after the plane in work, or go on."""
        if self._run is not None:
            waiting = self.paused
            (self._run.go_on.set if waiting else self._run.go_on.clear)()
            self.paused_changed.emit(not waiting)

    def cancel(self) -> None:
        """Stop after the plane in work; what is finished stays."""
        if self._run is not None:
            self._run.stop.set()
            self._run.go_on.set()
            self._run = None
            self.running_changed.emit(False)
