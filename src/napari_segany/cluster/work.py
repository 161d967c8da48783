"""What workers do: open the stack where they run, load the model once, look at tiles, write planes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_segany.cluster.connection import told_where
from napari_segany.cluster.deliveries import delivery
from napari_segany.cluster.pages import keep_pages
from napari_segany.core.boxes import Box
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import ImageModel
from napari_segany.core.settings import PropagationSettings
from napari_segany.core.state import ImageReference
from napari_segany.session.carried import Carried
from napari_segany.session.everything import EverythingSearch
from napari_segany.session.planes import PlaneSearch, enlarged
from napari_segany.session.propagation import Done, Run, Visit, Way, begin_tracking
from napari_segany.session.stitching import Piece
from napari_segany.session.tiling import Search

if TYPE_CHECKING:
    from napari_segany.io.embeddings import EmbeddingStore

#: Models and searches kept by a worker.
KEPT = 2


@dataclass(frozen=True)
class Stack:
    """A stack that every worker can open.

    Attributes
    ----------
    image : ImageReference
        With a path that is the same on every worker.
    level : int
        Resolution level.
    """

    image: ImageReference
    level: int = 0

    def open(self) -> Any:
        """Open it."""
        from napari_segany.io.frames import open_frames

        image = self.image
        axis = 0 if image.axis is None else image.axis
        frames = open_frames(image.path, axis=axis, axes=image.axes, index=image.index, level=self.level)
        frames.intensity = image.intensity
        return frames


@dataclass(frozen=True, eq=False)
class Task:
    """A search over a stack; see `napari_segany.labelling.Job`.

    Attributes
    ----------
    token : str
        Names the task, so that a worker prepares it once.
    embeddings : Path, optional
        A folder that all workers see, where tiles are kept for the next search.
    """

    token: str
    stack: Stack
    what: Search
    example_frame: int
    region: Box
    full: tuple[int, int]
    model: str
    output: Path
    embeddings: Path | None


_KEPT: OrderedDict[Any, Any] = OrderedDict()
_TURN = Lock()


def _kept(key: Any, make: Any) -> Any:
    """What was made under a key before, or is made now; threads of a worker wait for each other."""
    with _TURN:
        if key not in _KEPT:
            _KEPT[key] = make()
            while len(_KEPT) > 2 * KEPT:
                _KEPT.popitem(last=False)
        _KEPT.move_to_end(key)
        return _KEPT[key]


def _model(name: str) -> ImageModel:
    from napari_segany.models.registry import load_model

    keep_pages()
    return _kept(("model", name), lambda: load_model(name))


def _search(task: Task) -> PlaneSearch:
    model, what = _model(task.model), task.what
    if isinstance(what, EverythingSearch) and what.detector is not None:
        what = replace(what, detector=_model(str(what.detector)))
    store = None if task.embeddings is None else _store(task.embeddings)
    return _kept(
        task.token, lambda: PlaneSearch(model, task.stack.open(), what, task.example_frame, task.region, store)
    )


def _store(folder: Path, limit: int | None = None) -> EmbeddingStore:
    from napari_segany.io.embeddings import LIMIT, EmbeddingStore

    return _kept(("store", folder, limit), lambda: EmbeddingStore(folder, LIMIT if limit is None else limit))


@told_where
def count_tiles(task: Task) -> int:
    """Tiles of a plane."""
    return len(_search(task).windows)


@told_where
def look(task: Task, frame: int, number: int) -> list[Piece]:
    """What one tile shows."""
    return _search(task).tile(frame, number)


@told_where
def finish(task: Task, frame: int, pieces: Sequence[Sequence[Piece]]) -> int:
    """Put a plane together and write it, all of its shards and nobody else's; returns the number of objects."""
    from napari_segany.io.labels import write_plane

    found = _search(task).join([piece for part in pieces for piece in part])
    write_plane(task.output, frame, enlarged(found, task.full))
    return len(found)


@told_where
def precompute(stack: Stack, model: str, folder: Path, limit: int, frame: int) -> bool:
    """Encode one plane ahead; see `napari_segany.precompute`."""
    store = _store(folder, limit)
    frames = _kept(stack.image.path, stack.open)
    return bool(store.precompute(_model(model), frames[frame], frames.intensity))


@told_where
def carry(
    name: str,
    stack: Stack,
    model: str,
    anchors: dict[int, dict[int, Prompt | Carried]],
    span: range,
    done: Done,
    earlier: Mapping[tuple[int, int], Carried],
    settings: PropagationSettings,
) -> tuple[int, list[tuple[Way, Visit]]]:
    """Carry some objects through a stack, and deliver each way's visits in order; returns what was not fetched.

    Parameters
    ----------
    name : str
        Of the delivery.
    done : way -> frames
        See `Run.visits`.
    earlier : (object id, frame) -> Carried
        What labels hold on the frames that the run may be reminded of.
    """
    network, frames = _model(model), stack.open()
    tracker = begin_tracking(network, frames, settings)
    last: tuple[int, Any] = (-1, None)

    def embed(frame: int) -> Any:
        nonlocal last
        if last[0] != frame:
            last = frame, network.embed(frames[frame], frames.intensity)
        return last[1]

    def mask_of(object_id: int, frame: int) -> np.ndarray:
        found = earlier.get((object_id, frame))
        return np.zeros(frames.shape[1:3], dtype=bool) if found is None else found.mask

    run = Run(tracker, embed, anchors, span, mask_of, settings)
    with delivery(name) as made:
        for way in done:
            for visit in run.visits(way, done):
                made.add((way, visit))
                if made.stopped:
                    return made.rest()
    return made.rest()
