"""Encoding the planes of a stack on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from napari_segany.cluster import work
from napari_segany.cluster.connection import connected, result_of
from napari_segany.core.errors import UnsupportedError
from napari_segany.core.state import ImageReference


def precompute(
    address: str,
    image: ImageReference,
    model: str,
    folder: Path,
    limit: int,
    progress: Callable[[int, int], None] | None = None,
    resources: Mapping[str, float] | None = None,
) -> int:
    """Encode every plane into a folder that all workers see; see `napari_segany.precompute`.

    Raises
    ------
    ClusterError, UnsupportedError, StorageError
    """
    from distributed import as_completed

    if image.path is None:
        raise UnsupportedError("Give the path of the stack, so that every worker can open it.")
    planes = image.shape[0]
    with connected(address, resources) as client:
        needs = dict(resources) if resources else None
        stack, made = work.Stack(image), 0
        futures = [
            client.submit(work.precompute, stack, model, folder, limit, i, pure=False, retries=2, resources=needs)
            for i in range(planes)
        ]
        for done, future in enumerate(as_completed(futures, loop=client.loop), start=1):
            made += bool(result_of(future, "Encoding a plane"))
            if progress is not None:
                progress(done, planes)
    return made
