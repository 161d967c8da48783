"""Objects of volumes over time: found plane by plane in each volume, then linked from time to time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_segany.core.boxes import box_iou
from napari_segany.core.motion import BoxMotion
from napari_segany.core.protocols import Embedding, FrameSource, VolumeModel
from napari_segany.core.settings import PropagationSettings, TrackSettings
from napari_segany.session.association import assign, similarity
from napari_segany.session.carrying import begin_memory
from napari_segany.session.compose import compose
from napari_segany.session.concept_run import DetectingRun
from napari_segany.session.concept_tracking import DIVIDED, PART, AssignedRun
from napari_segany.session.whole_tracking import WholeRun


@dataclass(frozen=True, eq=False)
class Solid:
    """An object in a volume.

    Attributes
    ----------
    box : (6,) int64
        (z0, y0, x0, z1, y1, x1), half-open.
    patch : (z1 - z0, y1 - y0, x1 - x0) bool
    score : float
    """

    box: np.ndarray
    patch: np.ndarray
    score: float

    @property
    def window(self) -> tuple[slice, ...]:
        """Where it lies in its volume."""
        return tuple(slice(int(a), int(b)) for a, b in zip(self.box[:3], self.box[3:], strict=True))

    def common(self, other: Solid) -> int:
        """Voxels that both have."""
        low, high = np.maximum(self.box[:3], other.box[:3]), np.minimum(self.box[3:], other.box[3:])
        if (low >= high).any():
            return 0
        mine, others = (
            one.patch[tuple(slice(int(a), int(b)) for a, b in zip(low - one.box[:3], high - one.box[:3], strict=True))]
            for one in (self, other)
        )
        return int(np.count_nonzero(mine & others))


def find_solids(model: Any, planes: FrameSource, concepts: Sequence[Any], settings: TrackSettings) -> list[Solid]:
    """Find the objects of a volume: those of every plane, followed in depth.

    Parameters
    ----------
    model : ConceptModel
    planes : (Z, H, W[, C])
    concepts : what `model.describe` made
    settings : TrackSettings
        Of the run in depth; its `divisions` do not count.
    """
    depth, height, width = planes.shape[:3]
    settings = replace(settings, rule="assignment", divisions=False)

    def embed(z: int) -> Embedding:
        embedding: Embedding = model.embed(planes[z], planes.intensity)
        return embedding

    run: DetectingRun
    if isinstance(model, VolumeModel):
        run = WholeRun(model, embed, concepts, 1, settings, planes)
    else:
        run = AssignedRun(model, embed, concepts, 1, settings, begin_memory(model, depth, PropagationSettings()))
    labels = np.zeros((depth, height, width), dtype=np.int32)
    scores: dict[int, list[float]] = {}
    last: dict[int, int] = {}
    for tracked in run.frames(range(depth)):
        labels[tracked.frame] = compose(labels[tracked.frame], tracked.found, frozenset(tracked.found))
        for object_id in tracked.found.keys() - tracked.unseen:
            scores.setdefault(object_id, []).append(tracked.found[object_id].score)
            last[object_id] = tracked.frame
    for object_id, z in last.items():
        # The memory bridges planes on which an object was missed, but knows no end.
        labels[z + 1 :][labels[z + 1 :] == object_id] = 0
    return solids(labels, {i: float(np.mean(known)) for i, known in scores.items()})


def solids(labels: np.ndarray, scores: Mapping[int, float]) -> list[Solid]:
    """Take labels (Z, H, W) apart."""
    from scipy.ndimage import find_objects

    found = []
    for object_id, window in enumerate(find_objects(labels), start=1):
        if window is not None:
            box = np.array([*(part.start for part in window), *(part.stop for part in window)], dtype=np.int64)
            found.append(Solid(box, labels[window] == object_id, scores.get(object_id, 1.0)))
    return found


@dataclass
class Life:
    """An object while it lives.

    Attributes
    ----------
    last, before : Solid
        Where it was seen last, and before that.
    motion : BoxMotion
        Of its outline from above; in depth it is expected where it was.
    missing : int
        Times in a row on which it was not found.
    """

    last: Solid
    before: Solid
    motion: BoxMotion
    missing: int = 0


class VolumeLinker:
    """Gives objects of one volume after another lasting ids, by the likeness that links planes.

    Parameters
    ----------
    settings : TrackSettings
        The memory's part in them does not count: between times there is none.
    """

    def __init__(self, settings: TrackSettings) -> None:
        self.settings = settings
        self.lives: dict[int, Life] = {}
        self.next_id = 1

    def link(self, found: Sequence[Solid]) -> tuple[dict[int, Solid], dict[int, int]]:
        """Objects of the next time by id, and the parents of those that begin by division."""
        now: dict[int, Solid] = {}
        ids, free = list(self.lives), set(range(len(found)))
        for row, column in self._match(ids, found):
            life, solid = self.lives[ids[row]], found[column]
            life.motion.update(_seen_from_above(solid), np.array([True]))
            life.before, life.last, life.missing = life.last, solid, 0
            now[ids[row]] = solid
            free.discard(column)
        older = list(now)
        parents: dict[int, int] = {}
        for column in sorted(free):
            solid = found[column]
            if solid.score < self.settings.new_threshold:
                continue
            parent = next((i for i in older if self._is_part(solid, self.lives[i])), None)
            born = self._birth(solid)
            if parent is not None and self.settings.divisions:
                older.remove(parent)
                sister = self._birth(now.pop(parent))
                now[sister] = self.lives[sister].last
                del self.lives[parent]
                parents |= {born: parent, sister: parent}
            now[born] = solid
        for object_id in ids:
            if object_id in self.lives and object_id not in now:
                self.lives[object_id].missing += 1
                if self.lives[object_id].missing > self.settings.keep_alive >= 0:
                    del self.lives[object_id]
        return now, parents

    def _match(self, ids: Sequence[int], found: Sequence[Solid]) -> list[tuple[int, int]]:
        """Pairs (place in `ids`, place in `found`)."""
        expected = [self._expected(self.lives[i]) for i in ids]
        if not ids or not found:
            return []
        boxes = np.stack([solid.box for solid in found]).astype(np.float64)
        overlaps = np.zeros((len(ids), len(found)))
        known = [self.lives[i].last for i in ids]
        for i, j in zip(*np.nonzero(box_iou(np.stack([one.box for one in known])[:, None], boxes[None])), strict=True):
            common = known[i].common(found[j])
            overlaps[i, j] = common / (np.count_nonzero(known[i].patch) + np.count_nonzero(found[j].patch) - common)
        scores = np.array([solid.score for solid in found])
        likeness = similarity(overlaps, np.stack(expected), boxes, None, scores, self.settings)
        return assign(likeness, self.settings.least)

    @staticmethod
    def _expected(life: Life) -> np.ndarray:
        y0, x0, y1, x1 = life.motion.predict()[0]
        return np.array([life.last.box[0], y0, x0, life.last.box[3], y1, x1])

    def _birth(self, solid: Solid) -> int:
        object_id, self.next_id = self.next_id, self.next_id + 1
        self.lives[object_id] = Life(solid, solid, BoxMotion(_seen_from_above(solid)))
        return object_id

    @staticmethod
    def _is_part(solid: Solid, life: Life) -> bool:
        """Whether a new object was a part of one that has shrunk just now."""
        shrunk = np.count_nonzero(life.last.patch) < DIVIDED * np.count_nonzero(life.before.patch)
        return bool(shrunk and solid.common(life.before) > PART * np.count_nonzero(solid.patch))


def _seen_from_above(solid: Solid) -> np.ndarray:
    """Box (1, 4) of its rows and columns."""
    return solid.box[[1, 2, 4, 5]][None].astype(np.float64)
