"""Carrying objects through a stack on the workers of a cluster, some objects on each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from napari_segany.cluster import work
from napari_segany.cluster.connection import connected, result_of
from napari_segany.core.settings import PropagationSettings
from napari_segany.session.carried import Carried
from napari_segany.session.propagation import Anchors, Visit


class ClusterRun:
    """A `session.propagation.Run` whose objects are spread over workers.

    Objects are independent of each other until their masks are put on one
    plane, which happens where the session is: it alone writes labels,
    journal and scores. What a dying worker had in hand is done again.

    Parameters
    ----------
    address : str
        Of the scheduler.
    stack : Stack
    model : str
    anchors : object id -> Anchors
    span : range of frames
    direction : {"both", "forward", "backward"}
    settings : PropagationSettings
    resources : mapping, optional
        What a worker must offer.

    Raises
    ------
    ClusterError
    """

    def __init__(
        self,
        address: str,
        stack: work.Stack,
        model: str,
        anchors: Mapping[int, Anchors],
        span: range,
        direction: str,
        settings: PropagationSettings,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        ways = ("forward", "backward") if direction == "both" else (direction,)
        with connected(address, resources) as client:
            futures = [
                client.submit(
                    work.carry,
                    stack,
                    model,
                    {i: dict(anchors[i]) for i in group},
                    span,
                    ways,
                    settings,
                    pure=False,
                    retries=2,
                    resources=dict(resources) if resources else None,
                )
                for group in _groups(sorted(anchors), sum(client.nthreads().values()))
            ]
            self.visits: list[dict[str, list[Visit]]] = [result_of(one, "Propagating") for one in futures]

    def forward(self, finished: frozenset[int] = frozenset()) -> Iterator[Visit]:
        """See `Run.forward`."""
        yield from self._merged("forward", finished)

    def backward(self, from_first: bool, finished: frozenset[int] = frozenset()) -> Iterator[Visit]:
        """See `Run.backward`."""
        yield from self._merged("backward", finished)

    def _merged(self, way: str, finished: frozenset[int]) -> Iterator[Visit]:
        by_frame: dict[int, list[Visit]] = {}
        for visits in self.visits:
            for visit in visits[way]:
                by_frame.setdefault(visit.frame, []).append(visit)
        for frame in sorted(by_frame, reverse=way == "backward"):
            if frame not in finished:
                found: dict[int, Carried] = {}
                for visit in by_frame[frame]:
                    found.update(visit.found)
                yield Visit(frame, found, frozenset().union(*(visit.running for visit in by_frame[frame])))


def _groups(objects: Sequence[int], count: int) -> list[Sequence[int]]:
    """Objects in at most `count` groups of nearly the same size."""
    return [part for part in (objects[i::count] for i in range(count)) if part]
