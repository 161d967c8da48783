"""Work on the session, one piece after another in another thread, so that the window never waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_warning
from psygnal import Signal
from superqt.utils import create_worker as create_quick_worker

from napari_segany.core.errors import SeganyError


@dataclass
class Job:
    """One piece of work.

    Attributes
    ----------
    work : callable
        Runs in another thread; touches no layer and no widget.
    then : callable
        Receives the result in the main thread.
    busy : str
        What to tell the person meanwhile; empty for work of milliseconds.
    failed : callable
        Called in the main thread after a refusal has been shown.
    """

    work: Callable[[], Any]
    then: Callable[[Any], None]
    busy: str = ""
    failed: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Refused:
    """The sentence of a `SeganyError`, as a result: an exception would be raised again by the worker."""

    sentence: str


class Jobs:
    """A queue with one worker; results of work that was cleared away are dropped."""

    #: What is being done now, empty when the queue is.
    busy_changed = Signal(str)

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._running = False
        self._round = 0

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._running

    def submit(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], None] = lambda result: None,
        busy: str = "",
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Add work to the queue; see `Job`."""
        self._waiting.append(Job(work, then, busy, failed))
        if not self._running:
            self._next()

    def clear(self) -> None:
        """Forget what waits and what the running work will answer."""
        self._waiting.clear()
        self._round += 1

    def _next(self) -> None:
        if not self._waiting:
            self.busy_changed.emit("")
            return
        job, number = self._waiting.popleft(), self._round
        self._running = True
        self.busy_changed.emit(job.busy)

        def guarded() -> Any:
            try:
                return job.work()
            except SeganyError as error:
                return Refused(str(error))

        def returned(result: Any) -> None:
            if number != self._round:
                return
            if isinstance(result, Refused):
                show_warning(result.sentence)
                job.failed()
            else:
                job.then(result)

        def finished() -> None:
            self._running = False
            self._next()

        connect = {"returned": returned, "finished": finished}
        if job.busy:
            create_worker(guarded, _connect=connect, _progress={"desc": job.busy})
        else:
            # Without an entry in the task list, which would grow by one for every click.
            create_quick_worker(guarded, _connect=connect)
