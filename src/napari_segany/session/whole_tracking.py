"""Every object of a concept in depth: found on planes, drawn whole from there, and of those that overlap the surest.

To link what is found on one plane with what is found on the next goes from one
object into another that lies above it. A model that draws whole objects knows
where they end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from napari_segany.core.boxes import box_iou
from napari_segany.core.errors import UnreadableError
from napari_segany.core.instances import common_pixels
from napari_segany.core.protocols import FrameSource
from napari_segany.session.association import mask_overlaps
from napari_segany.session.carried import Carried
from napari_segany.session.completing import CompletingTracker
from napari_segany.session.concept_run import Detected, DetectingRun, Tracked
from napari_segany.session.tiling import Progress

#: Planes after the one it was found on that are searched before an object is settled.
AHEAD = 6
#: IoU of masks on neighbouring planes from which on they are taken for one object when it is asked where to draw it.
SAME = 0.5
#: An object of which a larger share lies in another is that one again.
COVERED = 0.3


@dataclass(frozen=True, eq=False)
class Whole:
    """An object drawn from its mask on one plane.

    Attributes
    ----------
    frame : int
        That plane.
    masks : frame -> Carried
    """

    frame: int
    masks: Mapping[int, Carried]

    @cached_property
    def score(self) -> float:
        """How sure the model is of the object where it was found, and of its masks elsewhere; 0 of one plane alone."""
        others = [carried.score for at, carried in self.masks.items() if at != self.frame]
        return self.masks[self.frame].score * float(np.mean(others)) if others else 0.0

    @cached_property
    def box(self) -> np.ndarray:
        """(z0, y0, x0, z1, y1, x1), half-open."""
        boxes = np.array([carried.box for carried in self.masks.values()])
        return np.array([min(self.masks), *boxes[:, :2].min(0), max(self.masks) + 1, *boxes[:, 2:].max(0)])

    @cached_property
    def size(self) -> int:
        """Voxels."""
        return sum(int(np.count_nonzero(carried.patch)) for carried in self.masks.values())

    def covers(self, other: Whole) -> bool:
        """Whether much of the smaller of both lies in the other."""
        if not box_iou(self.box, other.box):
            return False
        shared = self.masks.keys() & other.masks.keys()
        common = sum(common_pixels(self.masks[at].found, other.masks[at].found) for at in shared)
        return common > COVERED * min(self.size, other.size)


@dataclass(eq=False)
class WholeRun(DetectingRun):
    """Detection over planes, and completion of what is detected.

    Of the settings only what concerns detection counts.

    Attributes
    ----------
    model : ConceptModel that is a VolumeModel
    planes : FrameSource
    open : objects that something surer may still cover
    settled : object id -> Whole
        Those that reach onto planes not given out yet.
    """

    model: Any
    planes: FrameSource
    open: list[Whole] = field(default_factory=list)
    settled: dict[int, Whole] = field(default_factory=dict)

    def frames(self, span: range, progress: Progress | None = None) -> Iterator[Tracked]:
        """Visit planes in order; each is given out when no object that may be on it is open any more."""
        detected: dict[int, Detected] = {}
        given = span.start
        for frame in span:
            detected[frame] = self.detect(self.embed(frame))
            if frame > span.start:
                self._open(frame - 1, detected, range(given, span.stop))
                detected.pop(frame - 2, None)
            if progress is not None and progress(frame + 1 - span.start, len(span)) is False:
                span = range(span.start, frame + 1)
                break
            self._settle(frame - AHEAD)
            while given <= frame - AHEAD and not self._is_open(given):
                yield self._tracked(given)
                given += 1
        if span:
            self._open(span[-1], detected, range(given, span.stop))
        self._settle(span.stop)
        for frame in range(given, span.stop):
            yield self._tracked(frame)

    def _open(self, frame: int, detected: Mapping[int, Detected], span: range) -> None:
        """Draw what is found on a plane, unless it is larger or surer on one beside it; on planes not given out yet."""
        here = detected[frame]
        wanted = [j for j, carried in enumerate(here.carried) if carried.score >= self.settings.new_threshold]
        weight = _weights(here)
        for beside in (frame - 1, frame + 1):
            if beside in detected and wanted:
                overlaps = mask_overlaps([here.carried[j].found for j in wanted], detected[beside].found)
                same = here.concepts[wanted][:, None] == detected[beside].concepts[None]
                rivals = np.where((overlaps >= SAME) & same, _weights(detected[beside])[None], 0.0).max(1, initial=0.0)
                # Of two alike the first.
                wanted = [
                    j
                    for j, rival in zip(wanted, rivals, strict=True)
                    if weight[j] > rival or (weight[j] == rival and beside > frame)
                ]
        known = [whole.masks[frame].found for whole in self.settled.values() if frame in whole.masks]
        taken = mask_overlaps([here.carried[j].found for j in wanted], known)
        new = [here.carried[j] for j, own in zip(wanted, taken, strict=True) if own.max(initial=0.0) < SAME]
        wholes = self._drawn(frame, new, span)
        self.open += [whole for whole in wholes if whole.score > 0 or len(self.planes) == 1]

    def _drawn(self, frame: int, new: Sequence[Carried], span: range) -> list[Whole]:
        """Objects in all of depth from their masks on a plane."""
        tracker = CompletingTracker(self.model, self.planes)
        known = {j: carried.mask for j, carried in enumerate(new)}
        masks = [{frame: carried} for carried in new]
        for step in (1, -1):
            tracker.remind(frame, None, known)
            going, at = set(known), frame + step
            while going and at in span:
                try:
                    answers = tracker.follow(at, None, going, step < 0)
                except UnreadableError:
                    break
                for j, answer in answers.items():
                    masks[j][at] = Carried.from_candidates(answer)
                going, at = {j for j in answers if not masks[j][at].is_empty}, at + step
        return [Whole(frame, {at: one for at, one in own.items() if not one.is_empty}) for own in masks]

    def _settle(self, until: int) -> None:
        """Keep open objects found up to a plane that none surer covers, and drop those that they cover."""
        waiting: list[Whole] = []
        for whole in sorted(self.open, key=lambda one: -one.score):
            if any(other.covers(whole) for other in self.settled.values()):
                continue
            if whole.frame > until or any(other.covers(whole) for other in waiting):
                waiting.append(whole)
            else:
                self.settled[self.new_id()] = whole
        self.open = waiting

    def _is_open(self, frame: int) -> bool:
        return any(frame in whole.masks for whole in self.open)

    def _tracked(self, frame: int) -> Tracked:
        """What is on a plane; objects that end there are forgotten."""
        found = {i: whole.masks[frame] for i, whole in self.settled.items() if frame in whole.masks}
        self.settled = {i: whole for i, whole in self.settled.items() if max(whole.masks) > frame}
        return Tracked(frame, found, {})


def _weights(detected: Detected) -> np.ndarray:
    """How large and how sure detections are, (M,)."""
    areas = [np.count_nonzero(carried.patch) for carried in detected.carried]
    return np.sqrt(np.array(areas, dtype=np.float64)) * detected.scores
