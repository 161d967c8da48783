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

from napari_segany.core.errors import InsufficientMemoryError, SeganyError


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
        Called in the main thread instead of `then` when the work raised.
    late : callable
        Receives a result that nobody waits for any more, for example to close it.
    """

    work: Callable[[], Any]
    then: Callable[[Any], None]
    busy: str = ""
    failed: Callable[[], None] = lambda: None
    late: Callable[[Any], None] = lambda result: None


@dataclass(frozen=True)
class Outcome:
    """What work came to. Workers return it, since napari 0.9 stumbles over errors that they raise."""

    value: Any = None
    error: Exception | None = None

    def tell(self, out_of_memory: Callable[[str], None] = show_warning) -> None:
        """Show a refusal as one sentence; raise any other error, for napari to report."""
        if isinstance(self.error, InsufficientMemoryError):
            out_of_memory(str(self.error))
        elif isinstance(self.error, SeganyError):
            show_warning(str(self.error))
        elif self.error is not None:
            raise self.error


class Jobs:
    """A queue with one worker; results of work that was cleared away are dropped."""

    #: What is being done now, empty when the queue is.
    busy_changed = Signal(str)
    #: The sentence that says so.
    out_of_memory = Signal(str)

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
        late: Callable[[Any], None] = lambda result: None,
    ) -> None:
        """Add work to the queue; see `Job`."""
        self._waiting.append(Job(work, then, busy, failed, late))
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

        def guarded() -> Outcome:
            try:
                return Outcome(job.work())
            except Exception as error:
                return Outcome(error=error)

        def returned(outcome: Outcome) -> None:
            if number != self._round:
                if outcome.error is None:
                    job.late(outcome.value)
                return
            if outcome.error is None:
                job.then(outcome.value)
            else:
                job.failed()
                outcome.tell(self.out_of_memory.emit)

        def finished() -> None:
            self._running = False
            self._next()

        connect: dict[str, Any] = {"returned": returned, "finished": finished}
        if job.busy:
            create_worker(guarded, _connect=connect, _progress={"desc": job.busy})
        else:
            # Without an entry in the task list, which would grow by one for every click.
            create_quick_worker(guarded, _connect=connect)  # type: ignore[arg-type]
