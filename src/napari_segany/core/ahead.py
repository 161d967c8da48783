"""Reading one piece ahead of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from threading import Lock, Thread
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def with_next(items: Sequence[Key]) -> Iterator[tuple[Key, Key | None]]:
    """Each item with the one after it; None after the last."""
    return zip(items, [*items[1:], None], strict=False)


class Ahead(Generic[Key, Value]):
    """Reads in another thread what will be asked for next, while what was asked for is worked on.

    One piece waits at most, and one read is on its way. An error of a reading
    is raised when that piece is asked for; if it never is, nobody hears of it.

    Parameters
    ----------
    read : callable
        Gives the piece of a key.
    """

    def __init__(self, read: Callable[[Key], Value]) -> None:
        self._read = read
        self._lock = Lock()
        self._waiting: tuple[Key, Future[Value]] | None = None

    def __call__(self, key: Key, following: Key | None = None) -> Value:
        """The piece of `key`; then begin to read the `following` one."""
        with self._lock:
            promise = None
            if self._waiting is not None and self._waiting[0] == key:
                promise, self._waiting = self._waiting[1], None
        value = self._read(key) if promise is None else promise.result()
        if following is not None:
            self._begin(following)
        return value

    def _begin(self, key: Key) -> None:
        with self._lock:
            if self._waiting is not None and (self._waiting[0] == key or not self._waiting[1].done()):
                return
            promise: Future[Value] = Future()
            self._waiting = key, promise
        # Nobody waits for it when the program ends.
        Thread(target=self._fulfil, args=(key, promise), daemon=True).start()

    def _fulfil(self, key: Key, promise: Future[Value]) -> None:
        try:
            promise.set_result(self._read(key))
        except BaseException as error:
            promise.set_exception(error)

    def close(self) -> None:
        """Wait for the read that is on its way, and forget what it gives."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            wait([waiting[1]])
