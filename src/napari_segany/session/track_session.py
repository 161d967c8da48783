"""A session in which objects along the stack are mended: given to each other, split, filled in, checked."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.masks import bounding_box
from napari_segany.core.state import TABLES
from napari_segany.session.doubts import Doubt, find_doubts
from napari_segany.session.history import LabelEdit, Step
from napari_segany.session.propagating_session import PropagatingSession


class TrackSession(PropagatingSession):
    """A `PropagatingSession` with edits of whole objects; each is one step to undo."""

    def doubts(self) -> list[Doubt]:
        """Where to look first: likely switches, jumps, sudden sizes, gaps and low scores; accepted masks are right."""
        with self._lock:
            scores = {key: score for key, score in self.scores.items() if key not in self.accepted}
        found = find_doubts((self.store.read(frame) for frame in range(len(self.frames))), scores)
        return [doubt for doubt in found if (doubt.object_id, doubt.frame) not in self.accepted]

    def reassign(self, object_id: int, new_id: int, start: int | None = None, stop: int | None = None) -> None:
        """Give an object's labels, prompts and scores to another id, new or in use.

        With an id that is in use this merges two objects; on frames where both have prompts,
        those of `new_id` stay.

        Parameters
        ----------
        object_id, new_id : int
        start, stop : int, optional
            On the frames ``start <= frame < stop``; on all by default.

        Raises
        ------
        InvalidPromptError
            The object is on none of these frames, or both ids are the same.
        InvalidLabelsError
            The id does not fit into the labels.
        """
        span, target = self._span(start, stop), self._check_object(new_id)
        if object_id == target:
            raise InvalidPromptError(f"This is object {object_id} already; choose another number.")
        step = Step("relabel")
        with self._lock:
            for frame in span:
                before = self.store.read(frame)
                if (before == object_id).any():
                    after = np.where(before == object_id, before.dtype.type(target), before)
                    step.edits.append(LabelEdit(self.store, frame, before, after))
            for table in TABLES:
                entries = getattr(self, table)
                for key in [key for key in entries if key[0] == object_id and key[1] in span]:
                    self._candidates.pop(key, None)
                    step.edits.append(self._set(table, key, None))
                    if (target, key[1]) not in entries:
                        step.edits.append(self._set(table, (target, key[1]), entries[key]))
            if not step.edits:
                raise InvalidPromptError(f"Object {object_id} is not on these planes.")
            if len(span) == len(self.frames):
                daughters = [key for key, parent in self.parents.items() if parent == object_id and key[0] != object_id]
                step.edits += [self._set("parents", key, target) for key in daughters]
            self._apply(step)
        for frame in sorted(step.frames):
            self.labels_changed.emit(frame)

    def split(self, object_id: int, frame: int) -> int:
        """Make an object another one from a frame on, for example after an identity switch; returns the new id."""
        highest = max(int(self.store.read(at).max()) for at in range(len(self.frames)))
        new_id = max(self.next_object_id(), highest + 1)
        self.reassign(object_id, new_id, self._check_frame(frame))
        return new_id

    def interpolate(self, object_id: int) -> list[int]:
        """Fill an object in between the planes on which it was accepted, for structures that lose a model.

        Outlines are blended by their distance to the edge (Raya & Udupa 1990), and move
        along between the centres. Other objects keep their pixels.

        Returns
        -------
        frames that were filled in

        Raises
        ------
        InvalidPromptError
            It was accepted on fewer than two planes, or on neighbouring ones only.
        """
        known = sorted(frame for one, frame in self.accepted if one == object_id)
        gaps = [(a, b) for a, b in pairwise(known) if b > a + 1]
        if not gaps:
            raise InvalidPromptError(f"Accept object {object_id} on two planes first, with planes between them.")
        step = Step("interpolate")
        with self._lock:
            for first, last in gaps:
                ends = [self.store.read(frame) == object_id for frame in (first, last)]
                if not (ends[0].any() and ends[1].any()):
                    continue
                for frame in range(first + 1, last):
                    before = self.store.read(frame)
                    mask = blend(ends[0], ends[1], (frame - first) / (last - first))
                    after = np.where(before == object_id, 0, before)
                    after[mask & (after == 0)] = object_id
                    if (before != after).any():
                        step.edits.append(LabelEdit(self.store, frame, before, after))
            self._apply(step)
        frames = sorted(step.frames)
        for frame in frames:
            self.labels_changed.emit(frame)
        return frames


def blend(first: np.ndarray, last: np.ndarray, share: float) -> np.ndarray:
    """Shape between two masks (H, W) bool; at a share of 0 the first, of 1 the last."""
    from scipy import ndimage

    boxes = np.array([bounding_box(first), bounding_box(last)])
    y0, x0 = np.maximum(boxes[:, :2].min(axis=0) - 1, 0)
    y1, x1 = boxes[:, 2:].max(axis=0) + 1
    window = slice(y0, y1), slice(x0, x1)
    centres = [np.array(ndimage.center_of_mass(end[window])) for end in (first, last)]
    # Room to move, in which the distances go on.
    room = int(np.abs(centres[1] - centres[0]).max()) + 1
    middle = (1 - share) * centres[0] + share * centres[1]
    distances = []
    for end, centre in zip((first, last), centres, strict=True):
        inside = np.pad(end[window], room)
        signed = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        moved = ndimage.shift(signed, middle - centre, order=1, mode="nearest")
        distances.append(moved[room:-room, room:-room])
    mask = np.zeros(first.shape, dtype=bool)
    mask[window] = (1 - share) * distances[0] + share * distances[1] > 0
    return mask
