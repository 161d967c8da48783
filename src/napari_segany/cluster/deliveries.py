"""What a task has made so far, fetched from its worker while it goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any


class Delivery:
    """Items in their order; those that whoever fetches has received are let go of."""

    def __init__(self) -> None:
        self.stopped = False
        self._first, self._items = 0, list[Any]()
        self._lock = Lock()

    def add(self, item: Any) -> None:
        """Lay an item down."""
        with self._lock:
            self._items.append(item)

    def after(self, have: int) -> list[Any]:
        """Items after the first `have`, which are not needed any more."""
        with self._lock:
            gone = min(have - self._first, len(self._items))
            del self._items[:gone]
            self._first += gone
            return list(self._items)

    def rest(self) -> tuple[int, list[Any]]:
        """How many are gone, and the others."""
        with self._lock:
            return self._first, list(self._items)


#: Deliveries of the tasks that run in this process, by name.
_OPEN: dict[str, Delivery] = {}


@contextmanager
def delivery(name: str) -> Iterator[Delivery]:
    """A delivery that can be fetched as long as the task goes on."""
    _OPEN[name] = made = Delivery()
    try:
        yield made
    finally:
        del _OPEN[name]


def fetch(have: Mapping[str, int]) -> dict[str, list[Any]]:
    """Called on a worker: what its tasks have made beyond what whoever asks has."""
    return {name: made.after(have[name]) for name, made in list(_OPEN.items()) if name in have}


def stop(names: Collection[str]) -> None:
    """Called on a worker: let its tasks end after what they have in hand."""
    for name, made in list(_OPEN.items()):
        made.stopped |= name in names
