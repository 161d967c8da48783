"""Labelling the planes of a stack on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from napari_segany.cluster import work
from napari_segany.cluster.connection import connected, result_of
from napari_segany.core.errors import UnreadableError
from napari_segany.session.planes import Labelled

#: Tiles in the hands of each worker's threads at once, so that the scheduler is not flooded.
AHEAD = 4
#: A failed task is tried again so often; one whose worker died, as often as Dask allows, thrice by default.
RETRIES = 2


def label_planes(
    address: str, task: work.Task, planes: Iterable[int], resources: Mapping[str, float] | None = None
) -> Iterator[Labelled]:
    """Find and write the objects of planes; they come as they are finished, in any order.

    Every tile is a task, and putting a plane together and writing it is
    another, so that each shard of the output has one writer. When a worker
    dies, what it had in hand is done again by the others: a plane is written
    as a whole and the same each time.

    Raises
    ------
    ClusterError
    """
    from distributed import as_completed

    todo = iter(planes)
    with connected(address, resources) as client:
        options: dict[str, Any] = {"resources": dict(resources) if resources else None, "retries": RETRIES}
        count = result_of(client.submit(work.count_tiles, task, **options), "Preparing the search")

        def submit(frame: int) -> Any:
            name = f"{task.token}-{frame}"
            pieces = [
                client.submit(work.look, task, frame, number, key=f"segany-look-{name}-{number}", **options)
                for number in range(count)
            ]
            return client.submit(work.finish, task, frame, pieces, key=f"segany-plane-{name}", **options)

        threads = sum(client.nthreads().values())
        running: dict[Any, int] = {}
        waiting = as_completed(loop=client.loop)

        def add() -> None:
            frame = next(todo, None)
            if frame is not None:
                future = submit(frame)
                running[future.key] = frame
                waiting.add(future)

        for _ in range(max(2, -(-AHEAD * threads // count))):
            add()
        for future in waiting:
            frame = running.pop(future.key)
            try:
                yield Labelled(frame, result_of(future, f"Plane {frame}"))
            except UnreadableError as error:
                yield Labelled(frame, damage=str(error))
            add()
