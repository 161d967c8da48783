"""Carrying objects through a stack on the workers of a cluster, some objects on each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import numpy as np

from napari_segany.cluster import deliveries, work
from napari_segany.cluster.connection import GONE, close, connect, result_of
from napari_segany.core.errors import ClusterError
from napari_segany.core.settings import PropagationSettings
from napari_segany.session.carried import Carried
from napari_segany.session.propagation import Anchors, Done, Visit, Way

#: Seconds between two looks for what workers have done.
PAUSE = 0.1


class Group:
    """Some of the objects, which one task carries.

    Attributes
    ----------
    future : Future
    arrived : (way, Visit) in order
        What was not asked for yet.
    received : int
        How many have arrived in all.
    ended : bool
        Whether no more will arrive.
    """

    def __init__(self, future: Any) -> None:
        self.future = future
        self.arrived: deque[tuple[Way, Visit]] = deque()
        self.received, self.ended = 0, False

    def add(self, items: Sequence[tuple[Way, Visit]]) -> None:
        """Take what has arrived."""
        self.arrived.extend(items)
        self.received += len(items)


class ClusterRun:
    """A `session.propagation.Run` whose objects are spread over workers; implements `Runs`.

    Objects are independent of each other until their masks are put on one
    plane, which happens where the session is: it alone writes labels,
    journal and scores. A plane is visited as soon as every worker has been
    there. What a dying worker had in hand is done again.

    Parameters
    ----------
    address : str
        Of the scheduler.
    stack : Stack
    model : str
    anchors : object id -> Anchors
    span : range of frames
    mask_of : callable
        The mask (H, W) bool that labels hold of an object (id) on a frame.
    settings : PropagationSettings
    resources : mapping, optional
        What a worker must offer.
    """

    def __init__(
        self,
        address: str,
        stack: work.Stack,
        model: str,
        anchors: Mapping[int, Anchors],
        span: range,
        mask_of: Callable[[int, int], np.ndarray],
        settings: PropagationSettings,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        self.address, self.stack, self.model, self.anchors, self.span = address, stack, model, anchors, span
        self.mask_of, self.settings, self.resources = mask_of, settings, dict(resources or {}) or None
        self._client: Any = None
        self._groups: dict[str, Group] = {}

    def visits(self, way: Way, done: Done) -> Iterator[Visit]:
        """See `Run.visits`; raises `ClusterError`."""
        if self._client is None:
            self._begin(done)
        streams = {name: self._visits(group, way) for name, group in self._groups.items()}
        heads = {name: visit for name, stream in streams.items() if (visit := next(stream, None))}
        first = max if way == "backward" else min
        while heads:
            frame = first(visit.frame for visit in heads.values())
            there = {name: visit for name, visit in heads.items() if visit.frame == frame}
            found: dict[int, Carried] = {}
            for visit in there.values():
                found.update(visit.found)
            yield Visit(frame, found, frozenset().union(*(visit.running for visit in there.values())))
            for name in there:
                del heads[name]
                if (visit := next(streams[name], None)) is not None:
                    heads[name] = visit

    def close(self) -> None:
        """Let workers stop after the planes they have in hand, and leave them."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.cancel([group.future for group in self._groups.values()], force=True)
                client.run(deliveries.stop, list(self._groups), on_error="ignore")
            close(client)

    def _begin(self, done: Done) -> None:
        self._client = client = connect(self.address, self.resources)
        earlier = self._earlier(done)
        for objects in _groups(sorted(self.anchors), sum(client.nthreads().values())):
            name = f"segany-carry-{uuid4().hex}"
            future = client.submit(
                work.carry,
                name,
                self.stack,
                self.model,
                {i: dict(self.anchors[i]) for i in objects},
                self.span,
                dict(done),
                {key: found for key, found in earlier.items() if key[0] in objects},
                self.settings,
                key=name,
                retries=2,
                resources=self.resources,
            )
            self._groups[name] = Group(future)

    def _earlier(self, done: Done) -> dict[tuple[int, int], Carried]:
        """Masks on the frames that a run which goes on is reminded of."""
        frames = {
            frame - step * distance
            for way, finished in done.items()
            for frame in self.span
            for step in (-1 if way == "backward" else 1,)
            if frame not in finished and frame - step in finished
            for distance in range(1, self.settings.memory_frames + 1)
        }
        masks = {(i, at): self.mask_of(i, at) for i in self.anchors for at in frames if at in self.span}
        return {key: Carried.from_mask(mask) for key, mask in masks.items() if mask.any()}

    def _visits(self, group: Group, way: Way) -> Iterator[Visit]:
        """One way of a group, as it arrives."""
        while True:
            while not (group.arrived or group.ended):
                self._look(group)
            if not group.arrived or group.arrived[0][0] != way:
                return
            yield group.arrived.popleft()[1]

    def _look(self, group: Group) -> None:
        """Take what workers have done since the last time; rest a little if that is nothing for this group."""
        if group.future.done():
            gone, items = result_of(group.future, "Propagating")
            group.add(items[group.received - gone :])
            group.ended = True
            return
        try:
            have = {name: one.received for name, one in self._groups.items()}
            answers = self._client.run(deliveries.fetch, have, on_error="ignore")
        except Exception as error:
            if self._client.status == "running":
                answers = {}
            else:
                raise ClusterError(f"Propagating was cut off: {GONE}") from error
        for answer in answers.values():
            for name, items in answer.items():
                # Of a task that was begun again, only what goes beyond its first attempt.
                self._groups[name].add(items if self._groups[name].received == have[name] else [])
        if not group.arrived:
            time.sleep(PAUSE)


def _groups(objects: Sequence[int], count: int) -> list[Sequence[int]]:
    """Objects in at most `count` groups of nearly the same size."""
    return [part for part in (objects[i::count] for i in range(count)) if part]
