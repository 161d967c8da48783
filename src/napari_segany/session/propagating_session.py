"""A session that carries objects along its stack, and brings labels up to date after corrections."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import VolumeModel
from napari_segany.session.carried import Carried
from napari_segany.session.compose import compose
from napari_segany.session.depth import goes_through_depth
from napari_segany.session.history import EntryEdit, LabelEdit, Step
from napari_segany.session.propagation import Run, Runs, Visit, begin_tracking, done_by_way
from napari_segany.session.session import Session, event_of

Direction = Literal["both", "forward", "backward"]


class PropagatingSession(Session):
    """A `Session` whose objects are followed from where they are known."""

    def propagate(
        self,
        objects: Sequence[int] | None = None,
        start: int | None = None,
        stop: int | None = None,
        direction: Direction = "both",
        resume: bool = False,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Carry objects from their prompted frames through the stack.

        Parameters
        ----------
        objects : ids, optional
            All prompted or accepted objects by default. An object that has
            labels but no prompts is taken from the frame where it is largest.
        start, stop : int, optional
            Frames ``start <= frame < stop`` are visited; all by default.
        direction : {"both", "forward", "backward"}
        resume : bool
            Go on where the last run was stopped.

        Yields
        ------
        frame : int
        labels : (H, W) integer array
            The frame's labels, already written. Stop the loop whenever you
            like: what was yielded stays, and the whole run is one undo step.

        Raises
        ------
        InvalidPromptError
            No object to propagate, or a range outside the stack.
        """
        span = self._span(start, stop)
        if direction not in ("both", "forward", "backward"):
            raise InvalidPromptError(f'The direction must be "both", "forward" or "backward", got {direction!r}.')
        anchors = self._anchors(objects, span.start, span.stop)
        if not resume:
            self.finished.clear()
            self._record([{"event": "run"}])
        return self._propagate(anchors, span, direction)

    def _propagate(
        self, anchors: dict[int, dict[int, Prompt | Carried]], span: range, direction: Direction
    ) -> Iterator[tuple[int, np.ndarray]]:
        self._find_out_depth(anchors)
        run, done = self._start(anchors, span), done_by_way(anchors, direction, self.finished)
        step = Step("propagate")
        try:
            for way in done:
                yield from (self._write(step, visit, anchors=anchors) for visit in run.visits(way, done))
            for object_id in anchors:
                self._changed.pop(object_id, None)
        finally:
            self.history.push(step)
            run.close()

    def update(self) -> Iterator[tuple[int, np.ndarray]]:
        """Bring labels up to date after corrections, redoing only what they change.

        Objects whose prompts or accepted masks have changed since they were
        last propagated are followed from those frames outwards, until they are
        where they were before. Accepted frames stay as they are.

        Yields
        ------
        frame, labels
            As `propagate` does.
        """
        known = {i for i, _ in (*self.prompts, *self.accepted)}
        changed = {i: frozenset(frames) for i, frames in self._changed.items() if i in known}
        if not changed:
            return
        step = Step("update")
        try:
            anchors = self._anchors(sorted(changed), 0, len(self.frames))
            self._find_out_depth(anchors)
            run = self._run(anchors, range(len(self.frames)))
            yield from (self._write(step, visit) for visit in run.again(changed))
            for object_id, frames in changed.items():
                self._changed[object_id] -= frames
                if not self._changed[object_id]:
                    del self._changed[object_id]
        finally:
            self.history.push(step)

    def _find_out_depth(self, anchors: dict[int, dict[int, Prompt | Carried]]) -> None:
        """Find out whether the stack goes through depth or time, where nobody said and it makes a difference."""
        if self.settings.depth is None and not self.settings.motion and isinstance(self.model, VolumeModel):
            depth = goes_through_depth(self.model, self.frames, self.embedding, anchors, self.settings)
            self.settings = replace(self.settings, depth=depth)

    def _start(self, anchors: dict[int, dict[int, Prompt | Carried]], span: range) -> Runs:
        """Begin to propagate; here, unless a session has other places for it."""
        return self._run(anchors, span)

    def _run(self, anchors: dict[int, dict[int, Prompt | Carried]], span: range) -> Run:
        self._removed.clear()
        tracker = begin_tracking(self.model, self.frames, self.settings)
        return Run(tracker, self.embedding, anchors, span, self._mask_of, self.settings)

    def _mask_of(self, object_id: int, frame: int) -> np.ndarray:
        return self.store.read(frame) == object_id

    def _write(
        self,
        step: Step,
        visit: Visit,
        others: Sequence[EntryEdit] = (),
        anchors: Mapping[int, Collection[int]] | None = None,
    ) -> tuple[int, np.ndarray]:
        """Write what was found on a frame, and `others`; what the person accepted there stays as it is.

        Objects of `anchors` are of one run: of two that it carried to the same
        pixels on its two ways, the one that is known on a nearer frame has them.
        """
        frame, found = visit.frame, visit.found
        with self._lock:
            moving = {i for i in visit.running if (i, frame) not in self.accepted} - self._removed
            before = self.store.read(frame)
            known_at = {
                i: min(abs(frame - at) for at in own)
                for i, own in (anchors or {}).items()
                if (i, frame) not in self.accepted
            }
            yielding = {i: [j for j in known_at if known_at[j] > known_at[i]] for i in moving & known_at.keys()}
            after = compose(before, {i: mask for i, mask in found.items() if i in moving}, moving, yielding)
            if (before != after).any():
                step.do(LabelEdit(self.store, frame, before, after), lambda: self.store.write(frame, after))
            scores = {i: found[i].score if i in found else None for i in moving}
            edits = [
                self._set("scores", (i, frame), score)
                for i, score in scores.items()
                if score != self.scores.get((i, frame))
            ]
            for edit in (*others, *edits):
                step.do(edit)
            self.finished.add(frame)
            self._record([*map(event_of, (*others, *edits)), {"event": "frame", "frame": frame}])
        self.labels_changed.emit(frame)
        return frame, after

    def _anchors(self, objects: Sequence[int] | None, first: int, last: int) -> dict[int, dict[int, Prompt | Carried]]:
        """What is known of each object inside a range of frames; an accepted mask outranks its prompts."""
        known = sorted({object_id for object_id, _ in (*self.prompts, *self.accepted)})
        wanted = known if objects is None else [self._check_object(i) for i in objects]
        anchors: dict[int, dict[int, Prompt | Carried]] = {}
        for object_id in wanted:
            by_frame: dict[int, Prompt | Carried] = {
                frame: prompt for (i, frame), prompt in self.prompts.items() if i == object_id and first <= frame < last
            }
            for i, frame in self.accepted:
                if i == object_id and first <= frame < last:
                    mask = self.store.read(frame) == object_id
                    if mask.any():
                        by_frame[frame] = Carried.from_mask(mask)
            if not by_frame and object_id not in known:
                by_frame = self._largest(object_id, first, last)
            if by_frame:
                anchors[object_id] = by_frame
            elif objects is not None:
                raise InvalidPromptError(
                    f"Object {object_id} has no prompt and no labels between frames {first} and {last - 1}."
                )
        if not anchors:
            raise InvalidPromptError("There is nothing to propagate: prompt at least one object first.")
        return anchors

    def _largest(self, object_id: int, first: int, last: int) -> dict[int, Prompt | Carried]:
        best, frame_of_best = 0, -1
        for frame in range(first, last):
            area = int(np.count_nonzero(self.store.read(frame) == object_id))
            if area > best:
                best, frame_of_best = area, frame
        if best == 0:
            return {}
        return {frame_of_best: Carried.from_mask(self.store.read(frame_of_best) == object_id)}
