"""Drawing whole objects: what is known of one on a few planes is completed on those around, all at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_segany.core.errors import UnreadableError
from napari_segany.core.masks import Candidates, sigmoid
from napari_segany.core.parts import in_parts
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Embedding, FrameSource, VolumeModel
from napari_segany.core.volume_windows import VolumeWindow, read_windows
from napari_segany.session.carried import Carried

#: How much a mask that was found counts against one that was given.
FOUND_COUNTS = 0.5
#: Planes on which an object may be missing before it is given up.
GAP = 3
#: Windows that are drawn at once.
TOGETHER = 8
#: Logit of what is no part of an object.
OUTSIDE = -10.0


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object in a window.

    Attributes
    ----------
    window : VolumeWindow
    logits : (depth, side, side) float16
    damaged : frame -> error
        Planes that could not be read.
    """

    window: VolumeWindow
    logits: np.ndarray
    damaged: Mapping[int, UnreadableError]

    def on(self, frame: int) -> Candidates:
        """The object on a plane of the window."""
        logits = self.logits[frame - self.window.frames.start].astype(np.float32)
        return Candidates(logits[None], np.array([expected_iou(logits)], dtype=np.float32), self.window.grid)

    def reaches(self, frame: int) -> bool:
        """Whether the window shows a plane, and all that it showed of the object in its middle on the way there."""
        if frame not in self.window.frames:
            return False
        middle, at = self.window.shape.reach, frame - self.window.frames.start
        way = self._is_cut[middle + 1 : at + 1] if at > middle else self._is_cut[at:middle]
        return bool(self._is_cut[middle] or not way.any())

    @cached_property
    def _is_cut(self) -> np.ndarray:
        """(depth,) bool: whether the object lies on the window's edge where the image goes on."""
        edge = self.window.inside.copy()
        edge[1:-1, 1:-1] = False
        return np.asarray((self.logits[:, edge] > 0).any(axis=1))


class CompletingTracker:
    """The `Tracker` of models that see planes ahead, for objects in space.

    On the planes near one that an object is given on, a window around it is
    drawn at once, with all planes in it that it is given on. Farther on, the
    last mask takes the place of a given one, and counts half.

    Parameters
    ----------
    model : VolumeModel
    frames : FrameSource
    """

    encodes = False

    def __init__(self, model: VolumeModel, frames: FrameSource) -> None:
        self.model, self.frames = model, frames
        self.given: dict[int, dict[int, Carried]] = defaultdict(dict)
        self.latest: dict[int, tuple[int, Carried]] = {}
        self.drawn: dict[int, dict[int, Drawn]] = defaultdict(dict)

    def condition(self, frame: int, embedding: Embedding, given: Mapping[int, Prompt]) -> dict[int, Candidates]:
        """Learn objects on a frame; see `Tracker.condition`."""
        answers = dict(zip(given, self.model.predict(embedding, list(given.values())), strict=True))
        for object_id, answer in answers.items():
            mask = given[object_id].known_mask
            carried = Carried.from_candidates(answer) if mask is None else Carried.from_mask(mask)
            if not carried.is_empty:
                self.given[object_id][frame] = carried
            self.drawn.pop(object_id, None)
        return answers

    def remind(self, frame: int, embedding: Embedding | None, masks: Mapping[int, np.ndarray]) -> None:
        """Go on from masks found earlier; see `Tracker.remind`."""
        for object_id, mask in masks.items():
            self.latest[object_id] = frame, Carried.from_mask(mask)

    def forget(self, object_id: int) -> None:
        """Drop an object."""
        for table in (self.given, self.latest, self.drawn):
            table.pop(object_id, None)  # type: ignore[attr-defined]

    def follow(
        self, frame: int, embedding: Embedding | None, objects: Collection[int], backward: bool = False
    ) -> dict[int, Candidates]:
        """Draw the objects of a frame; see `Tracker.follow`."""
        middles = {i: middle for i in objects if (middle := self._middle(i, frame, backward)) is not None}
        self._draw({i: middle for i, middle in middles.items() if middle not in self.drawn[i]})
        found = {}
        for object_id, middle in middles.items():
            drawn = self.drawn[object_id][middle]
            if frame in drawn.damaged:
                raise drawn.damaged[frame]
            answer = drawn.on(frame)
            carried = Carried.from_candidates(answer)
            if not carried.is_empty:
                found[object_id] = answer
                self.latest[object_id] = frame, carried
        return found

    def _middle(self, object_id: int, frame: int, backward: bool) -> int | None:
        """The plane in the middle of the window that shows an object on a frame; None when it has ended."""
        drawn, step = self.drawn[object_id], -1 if backward else 1
        for middle in [m for m in drawn if abs(frame - m) > 2 * self.model.volume_window.reach]:
            del drawn[middle]
        nearest = min(self.given[object_id], key=lambda at: abs(frame - at), default=None)
        near = nearest is not None and abs(frame - nearest) <= self.model.volume_window.reach
        if near and (nearest not in drawn or drawn[nearest].reaches(frame)):
            return nearest
        going_on = [m for m in drawn if m not in self.given[object_id] and (frame - m) * step > 0]
        if going_on and drawn[last := max(going_on, key=lambda m: m * step)].reaches(frame):
            return last
        at, _ = self.latest.get(object_id, (None, None))
        return at if at is not None and 0 < (frame - at) * step <= GAP else None

    def _draw(self, wanted: Mapping[int, int]) -> None:
        """Draw objects (by id) in windows around the planes in their middle."""
        by_middle: dict[int, list[int]] = defaultdict(list)
        for object_id, middle in wanted.items():
            by_middle[middle].append(object_id)
        for middle, together in by_middle.items():
            for part in in_parts(together, TOGETHER):
                self._draw_around(middle, part)

    def _draw_around(self, middle: int, objects: Sequence[int]) -> None:
        height, width = self.frames.shape[1:3]
        shape = self.model.volume_window
        known = [self._known(i, middle) for i in objects]
        windows = [
            VolumeWindow.around(own[middle][0].box, own[middle][0].patch, middle, (height, width), shape)
            for own in known
        ]
        shown = read_windows(self.frames, windows)
        given = np.zeros(shown.pixels.shape, dtype=np.float32)
        for i, (window, own) in enumerate(zip(windows, known, strict=True)):
            for frame, (carried, counts) in own.items():
                at = frame - window.frames.start
                cells = window.mask_cells(carried.box, carried.patch)
                given[i, at] = np.where(shown.seen[i, at], counts * (2.0 * cells - 1.0), 0.0)
        logits = self.model.complete(shown.pixels, given, shown.seen)
        for object_id, window, own, told in zip(objects, windows, logits, given, strict=True):
            kept = _connected(np.where(window.inside, own, OUTSIDE), told > 0)
            self.drawn[object_id][middle] = Drawn(window, kept.astype(np.float16), shown.damaged)

    def _known(self, object_id: int, middle: int) -> dict[int, tuple[Carried, float]]:
        """What is known of an object near a plane: frame -> its mask, and how much that counts."""
        reach = self.model.volume_window.reach
        known = {at: (one, 1.0) for at, one in self.given[object_id].items() if abs(at - middle) <= reach}
        if middle not in known:
            known[middle] = self.latest[object_id][1], FOUND_COUNTS
        return known


def expected_iou(logits: np.ndarray) -> float:
    """IoU to be expected of the mask that logits draw, if each cell is inside with the probability they state."""
    probability = sigmoid(logits)
    inside = logits > 0
    union = np.count_nonzero(inside) + float(probability[~inside].sum())
    return float(probability[inside].sum()) / union if union else 0.0


def _connected(logits: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Logits (D, h, w) without what is not connected to the masks that were told (D, h, w) bool."""
    from scipy import ndimage

    parts, _ = ndimage.label((logits > 0) | told, structure=np.ones((3, 3, 3)))
    own = np.unique(parts[told])
    return np.where((logits <= 0) | np.isin(parts, own), logits, OUTSIDE)
