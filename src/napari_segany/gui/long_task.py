"""Work of minutes in another thread, beside the queue of jobs: it tells how far it is and can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QObject
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]

from napari_segany.gui.jobs import Outcome

#: Takes what there is to tell; False when the work is to stop.
Report = Callable[..., bool]


class LongTask(QObject):
    """One piece of work at a time."""

    running_changed = QtSignal(bool)
    #: What the work told, as a tuple.
    progressed = QtSignal(object)

    def __init__(self) -> None:
        super().__init__()
        self._stop: Event | None = None

    @property
    def running(self) -> bool:
        """Whether work goes on, be it told to stop."""
        return self._stop is not None

    def start(self, title: str, work: Callable[[Report], Any], then: Callable[[Any], None]) -> None:
        """Start work, unless some goes on.

        Parameters
        ----------
        title : str
            Shown in napari's list of tasks.
        work : callable
            Runs in another thread and gets a `Report` to call.
        then : callable
            Receives the result in the main thread, unless the work raised or was cancelled.
        """
        if self.running:
            show_warning(f"{title} has to wait: one at a time. Try again when the other is done, or cancelled.")
            return
        stop, stopped = Event(), Event()
        self._stop = stop

        def report(*told: Any) -> bool:
            self.progressed.emit(told)
            if stop.is_set():
                stopped.set()
            return not stop.is_set()

        def guarded() -> Outcome:
            try:
                return Outcome(work(report))
            except Exception as error:
                return Outcome(error=error)

        def returned(outcome: Outcome) -> None:
            self._stop = None
            self.running_changed.emit(False)
            # Work that was done before it heard of it was not cancelled.
            if stopped.is_set():
                show_info(f"{title}: cancelled.")
            elif outcome.error is not None:
                outcome.tell()
            else:
                then(outcome.value)

        self.running_changed.emit(True)
        create_worker(guarded, _connect={"returned": returned}, _progress={"desc": title})

    def cancel(self) -> None:
        """Stop at the next report."""
        if self._stop is not None:
            self._stop.set()
