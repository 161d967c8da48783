"""Every object on every plane of a stack, written as it is found: on this computer, or on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np

from napari_segany import api
from napari_segany.core.boxes import Box
from napari_segany.core.concepts import checked_text
from napari_segany.core.errors import InvalidImageError, InvalidPromptError, StorageError, UnsupportedError
from napari_segany.core.prompts import check_boxes, check_region
from napari_segany.core.protocols import NoCache
from napari_segany.core.settings import EverythingSettings, FindSettings
from napari_segany.session.everything import EverythingSearch
from napari_segany.session.finding import FindSearch
from napari_segany.session.planes import Labelled, PlaneSearch, label_planes
from napari_segany.session.tiling import Search, cut

if TYPE_CHECKING:
    from napari_segany.cluster.work import Task
    from napari_segany.io.frames import Frames

#: Objects keep at least so many pixels along their longer side when a lower resolution is chosen for them.
ENOUGH = 64
#: Side of the part in the middle of the stack that is looked at to learn how large objects are.
PROBE = 1024


@dataclass(frozen=True)
class Job:
    """A search over a stack, in terms that can be sent to another computer.

    Attributes
    ----------
    frames : Frames
        At the resolution to work at.
    what : Search
    example_frame : int
    region : (y0, x0, y1, x1)
        The part of each plane to look at, at that resolution.
    full : (H, W)
        Size of a plane at full resolution.
    level : int
    """

    frames: Frames
    what: Search
    example_frame: int
    region: Box
    full: tuple[int, int]
    level: int


def label(
    stack: Any,
    output: str | Path,
    text: str | None = None,
    exemplars: Sequence[Sequence[float]] | np.ndarray | None = None,
    negatives: Sequence[Sequence[float]] | np.ndarray | None = None,
    frame: int = 0,
    settings: EverythingSettings | FindSettings | None = None,
    detector: api.ModelLike | None = None,
    model: api.ModelLike | None = None,
    axis: int | str = 0,
    axes: str | None = None,
    index: Mapping[str, int] | None = None,
    level: int | Literal["auto"] = 0,
    region: Sequence[float] | None = None,
    resume: bool = False,
    scheduler: str | None = None,
    resources: Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
    embeddings: str | Path | None = None,
) -> list[Labelled]:
    """Label every object on every plane: everything, or the objects of a concept.

    Neither a plane nor its labels need to fit into the memory. Ids begin at 1
    on every plane; `Session.track` gives objects one id through a stack.

    Parameters
    ----------
    stack, axis, axes, index
        See `Session`.
    output : folder ending in ``.zarr``
        OME-Zarr labels at full resolution.
    text, exemplars, negatives
        See `find`; boxes in pixels of full resolution, on plane `frame`. With
        neither text nor exemplars all objects are labelled.
    settings : EverythingSettings or FindSettings, optional
    detector : model, name or path, optional
        See `everything`; `text` is then what it looks for. With a scheduler a name or path.
    model : model, name or path, optional
        nano by default. With a scheduler a name or path, which every worker loads.
    level : int or "auto"
        Resolution to work at, 0 is full; "auto" takes the lowest at which the
        objects keep 64 pixels, judged by the exemplars or by a look at the middle.
    region : (y0, x0, y1, x1), optional
        Look only there on every plane, in pixels of full resolution; see
        `everything`. Labels have the size of the whole planes, 0 elsewhere.
    resume : bool
        Pass over the planes that an earlier run has finished.
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://host:8786".
    resources : mapping, optional
        What a worker must offer to be given work, such as ``{"GPU": 1}``.
    progress : callable, optional
        Called with (planes done, planes in all).
    embeddings : folder, optional
        See `everything`. With a scheduler all workers write into it.

    Returns
    -------
    list of Labelled
        One for each plane worked on, in order of planes; damaged planes are left out and say why.

    Raises
    ------
    InvalidImageError, InvalidPromptError, UnsupportedError, StorageError
    """
    from napari_segany.io.embeddings import EmbeddingStore
    from napari_segany.io.journal import Journal, read_journal
    from napari_segany.io.labels import ZarrLabels, check_writable

    output = Path(output)
    if output.suffix != ".zarr":
        raise StorageError(f"The labels of a stack are written as OME-Zarr: let {output.name} end in .zarr.")
    check_writable(output)
    full = stack if hasattr(stack, "plane") else api.open_stack(stack, axis, axes, index)
    if not 0 <= frame < len(full):
        raise InvalidPromptError(f"Plane {frame} is not in this stack of {len(full)} planes.")
    what = _search(full, text, exemplars, negatives, settings, detector)
    height, width = full.shape[1:3]
    place = (0, 0, height, width) if region is None else check_region((height, width), region)
    network = None if scheduler else api.resolve_model(model)
    job = _at_level(full, level, what, frame, place, stack, axis, axes, index, network or model)
    task = None if scheduler is None else _task(job, model, output.resolve(), embeddings)
    store = ZarrLabels(output, (len(full), *job.full), np.int32, full.axis_names, full.scale)
    try:
        noted = output / "segany" / "planes.jsonl"
        done = {event["frame"] for event in read_journal(noted)} if resume and noted.exists() else set()
        if not resume:
            noted.unlink(missing_ok=True)
        journal, results = Journal(noted), []
        try:
            todo = [one for one in range(len(full)) if one not in done]
            if task is None or scheduler is None:
                assert network is not None
                kept = None if embeddings is None else EmbeddingStore(embeddings)
                plane = PlaneSearch(network, job.frames, _loaded(job.what), job.example_frame, job.region, kept)
                run = label_planes(plane, todo, store.write_blocks, job.full)
            else:
                from napari_segany.cluster.label import label_planes as label_planes_there

                run = label_planes_there(scheduler, task, todo, resources)
            for result in run:
                results.append(result)
                if not result.damage:
                    journal.append({"event": "plane", "frame": result.frame, "objects": result.objects})
                if progress is not None:
                    progress(len(done) + len(results), len(full))
        finally:
            journal.close()
        store.finish()
    finally:
        store.close()
    return sorted(results, key=lambda result: result.frame)


def _task(job: Job, model: Any, output: Path, embeddings: str | Path | None) -> Task:
    """The job in terms that workers understand."""
    from napari_segany.cluster.work import Stack, Task

    detector = job.what.detector if isinstance(job.what, EverythingSearch) else None
    if not all(isinstance(one, str | Path | None) for one in (model, detector)):
        raise UnsupportedError("Give models by their names or paths, so that every worker can load them.")
    image = job.frames.reference()
    if image.path is None:
        raise UnsupportedError("Give the path of the stack, so that every worker can open it.")
    name = api.DEFAULT_MODEL if model is None else str(model)
    stack = Stack(image, job.level)
    kept = None if embeddings is None else Path(embeddings).resolve()
    return Task(uuid4().hex, stack, job.what, job.example_frame, job.region, job.full, name, output, kept)


def _search(
    frames: Frames,
    text: str | None,
    exemplars: Sequence[Sequence[float]] | np.ndarray | None,
    negatives: Sequence[Sequence[float]] | np.ndarray | None,
    settings: EverythingSettings | FindSettings | None,
    detector: api.ModelLike | None,
) -> Search:
    shape = frames.shape[1], frames.shape[2]
    shown, others = (
        np.zeros((0, 4)) if boxes is None or len(boxes) == 0 else check_boxes(shape, boxes)
        for boxes in (exemplars, negatives)
    )
    if detector is not None:
        if len(shown) + len(others) or isinstance(settings, FindSettings):
            raise InvalidPromptError("A detector goes by a phrase or by nothing: leave examples and FindSettings out.")
        return EverythingSearch(settings, detector, text)
    if text is None and not len(shown):
        if len(others) or isinstance(settings, FindSettings):
            raise InvalidPromptError("Say what to look for: a word, or boxes around one or more examples.")
        return EverythingSearch(settings)
    if isinstance(settings, EverythingSettings):
        raise InvalidPromptError("EverythingSettings are for labelling everything; give FindSettings with a concept.")
    return FindSearch(checked_text(text), shown, others, settings or FindSettings())


def _loaded(what: Search) -> Search:
    """The search, ready to be done in this process."""
    if isinstance(what, EverythingSearch) and what.detector is not None:
        return replace(what, detector=api.resolve_model(what.detector))
    return what


def _at_level(
    full: Frames,
    level: int | Literal["auto"],
    what: Search,
    frame: int,
    region: Box,
    stack: Any,
    axis: int | str,
    axes: str | None,
    index: Mapping[str, int] | None,
    model: Any,
) -> Job:
    """The job at the resolution asked for."""
    size = full.shape[1], full.shape[2]
    if level == 0:
        return Job(full, what, frame, region, size, 0)
    if hasattr(stack, "plane"):
        raise UnsupportedError("Give the path or the list of levels of the image to work at another resolution.")
    if level == "auto":
        longest = _size_of_objects(full, what, frame, region, model)
        levels = {0: full} | _levels(stack, axis, axes, index, len(full))
        chosen = max(n for n, one in levels.items() if n == 0 or longest * one.shape[1] / size[0] >= ENOUGH)
        frames = levels[chosen]
    else:
        chosen, frames = level, api.open_stack(stack, axis, axes, index, level)
    if len(frames) != len(full):
        raise UnsupportedError(
            f"Level {chosen} has {len(frames)} planes and the full resolution {len(full)}; choose a level with all."
        )
    frames.intensity = full.intensity
    factor = np.tile([frames.shape[1] / size[0], frames.shape[2] / size[1]], 2)
    region = check_region((frames.shape[1], frames.shape[2]), region * factor)
    if isinstance(what, FindSearch):
        what = replace(what, exemplars=what.exemplars * factor, negatives=what.negatives * factor)
    return Job(frames, what, frame, region, size, chosen)


def _levels(
    stack: Any, axis: int | str, axes: str | None, index: Mapping[str, int] | None, planes: int
) -> dict[int, Frames]:
    """Lower resolutions of a stack that have all of its planes."""
    found: dict[int, Frames] = {}
    for level in range(1, 32):
        try:
            frames = api.open_stack(stack, axis, axes, index, level)
        except InvalidImageError:
            break
        if len(frames) == planes:
            found[level] = frames
    return found


def _size_of_objects(full: Frames, what: Search, frame: int, region: Box, model: Any) -> float:
    """Median of the longer sides of examples, or of the objects in the middle; 0 when there are none."""
    if isinstance(what, FindSearch) and len(what.exemplars):
        boxes = what.exemplars
    else:
        network = api.resolve_model(model)
        plane = full.plane(len(full) // 2)
        y, x = (max(region[i], (region[i] + region[i + 2] - PROBE) // 2) for i in (0, 1))
        window = (y, x, min(y + PROBE, region[2]), min(x + PROBE, region[3]))
        boxes = _loaded(what).begin(network, full.plane(frame), full.intensity, NoCache())(cut(plane, window)).boxes
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))) if len(boxes) else 0.0
