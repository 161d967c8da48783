"""In which order frames are visited, and which objects are asked for on each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Embedding, FrameSource, ImageModel, Tracker, VolumeModel
from napari_segany.core.settings import PropagationSettings
from napari_segany.session.carried import Carried, as_prompt, by_frame
from napari_segany.session.carrying import begin_memory
from napari_segany.session.completing import CompletingTracker

#: Where an object is known: frame -> what to ask there, or the mask already given.
Anchors = Mapping[int, Prompt | Carried]
Way = Literal["forward", "backward"]
Done = Mapping[Way, frozenset[int]]


@dataclass(frozen=True)
class Visit:
    """One frame of a run.

    Attributes
    ----------
    frame : int
    found : object id -> Carried
        Objects present on the frame.
    running : object ids that were asked for
    """

    frame: int
    found: dict[int, Carried]
    running: frozenset[int]


def done_by_way(
    anchors: Mapping[int, Anchors], direction: Literal["both", "forward", "backward"], finished: Collection[int]
) -> dict[Way, frozenset[int]]:
    """The ways of a run in their order, and what of the frames that a cancelled run has finished counts for each.

    Both ways visit the frames between the first anchors of different objects.
    Those were finished on the way forward alone, unless the way back has got
    beyond them.
    """
    done = frozenset(finished)
    if direction != "both":
        return {direction: done}
    first = min(frame for own in anchors.values() for frame in own)
    return {"forward": done, "backward": done if first - 1 in done else frozenset()}


def begin_tracking(model: ImageModel, frames: FrameSource, settings: PropagationSettings) -> Tracker:
    """A fresh memory for objects on a stack, of the kind that suits the model and the stack."""
    if settings.depth and not settings.motion and isinstance(model, VolumeModel):
        return CompletingTracker(model, frames)
    return begin_memory(model, len(frames), settings)


class Runs(Protocol):
    """A propagation of some objects, wherever it is computed."""

    def visits(self, way: Way, done: Done) -> Iterator[Visit]:
        """Forward from each object's first anchor to the end; backward from its first or last one to the start."""
        ...

    def close(self) -> None:
        """Stop what is computed elsewhere, when no more visits are wanted."""
        ...


class Run:
    """One propagation of some objects; implements `Runs`.

    Parameters
    ----------
    tracker : Tracker
    embed : callable
        Gives the embedding of a frame; not called where nothing is asked, or the tracker does without.
    anchors : object id -> Anchors
        All of them are learned before the first frame is visited.
    span : range of frames
    mask_of : callable
        The mask (H, W) bool that labels hold of an object (id) on a frame.
    settings : PropagationSettings
    """

    def __init__(
        self,
        tracker: Tracker,
        embed: Callable[[int], Embedding],
        anchors: Mapping[int, Anchors],
        span: range,
        mask_of: Callable[[int, int], np.ndarray],
        settings: PropagationSettings,
    ) -> None:
        self.tracker, self.embed, self.span = tracker, embed, span
        self.mask_of, self.settings = mask_of, settings
        self.known = self._learn(anchors)

    def _learn(self, anchors: Mapping[int, Anchors]) -> dict[int, dict[int, Carried]]:
        known: dict[int, dict[int, Carried]] = {object_id: {} for object_id in anchors}
        for frame, given in by_frame(anchors).items():
            prompts = {i: as_prompt(anchor) for i, anchor in given.items()}
            answers = self.tracker.condition(frame, self.embed(frame), prompts)
            for i, anchor in given.items():
                known[i][frame] = anchor if isinstance(anchor, Carried) else Carried.from_candidates(answers[i])
        return known

    def visits(self, way: Way, done: Done) -> Iterator[Visit]:
        """Forward from each object's first anchor to the end; backward from its first or last one to the start.

        Parameters
        ----------
        way : {"forward", "backward"}
        done : way -> frames
            All ways of the run, and what a cancelled run has finished on each; see `done_by_way`.
        """
        if way == "forward":
            begins = {i: min(own) for i, own in self.known.items()}
            order = range(min(begins.values()), self.span.stop)
            yield from self._along(order, lambda i, frame: begins[i] <= frame, False, done[way])
        else:
            # On the way forward the first anchor was done, and all after it.
            ends = {i: min(own) - 1 if "forward" in done else max(own) for i, own in self.known.items()}
            order = range(max(ends.values()), self.span.start - 1, -1)
            yield from self._along(order, lambda i, frame: frame <= ends[i], True, done[way])

    def _along(
        self, order: range, runs: Callable[[int, int], bool], backward: bool, finished: frozenset[int]
    ) -> Iterator[Visit]:
        started = False
        for frame in order:
            running = frozenset(i for i in self.known if runs(i, frame))
            if not started and frame in finished:
                continue
            if not started and frame - order.step in finished:
                self._remind(frame, running, backward)
            started = True
            yield self._visit(frame, running, backward)

    def close(self) -> None:
        """All is computed here, when a visit is asked for."""

    def again(self, changed: Mapping[int, frozenset[int]]) -> Iterator[Visit]:
        """Redo only what changed anchors change.

        From each changed frame outwards until the masks of an object have
        equalled its labels for as many frames as a memory lasts; backwards at
        most half of the way to the anchor before.

        Parameters
        ----------
        changed : object id -> frames whose anchor came, went or changed
        """
        frames = [frame for own in changed.values() for frame in own]
        ways = (range(min(frames), self.span.stop), range(max(frames), self.span.start - 1, -1))
        for backward, order in enumerate(ways):
            equal: dict[int, int] = {}
            ends: dict[int, int] = {}
            for frame in order:
                fresh = {i for i, own in changed.items() if frame in own}
                if fresh:
                    self._remind(frame, fresh - equal.keys(), bool(backward))
                    equal.update(dict.fromkeys(fresh, 0))
                    ends.update({i: self._halfway(i, frame) for i in fresh})
                if backward:
                    equal = {i: count for i, count in equal.items() if frame > ends[i]}
                if not equal:
                    continue
                before = {i: self.mask_of(i, frame) for i in equal}
                visit = self._visit(frame, frozenset(equal), bool(backward))
                yield visit
                for i, mask in before.items():
                    same = _agree(visit.found.get(i), mask, self.settings.unchanged_overlap)
                    equal[i] = equal[i] + 1 if same else 0
                    if equal[i] >= self.settings.memory_frames and i not in fresh:
                        del equal[i]

    def _halfway(self, object_id: int, frame: int) -> int:
        """The frame between an anchor and the one before it; before the stack when there is none."""
        earlier = [anchor for anchor in self.known[object_id] if anchor < frame]
        return (max(earlier) + frame) // 2 if earlier else -1

    def _visit(self, frame: int, running: frozenset[int], backward: bool) -> Visit:
        found = {i: self.known[i][frame] for i in running if frame in self.known[i]}
        asked = sorted(running - found.keys())
        if asked:
            answers = self.tracker.follow(frame, self._encoded(frame), asked, backward)
            found.update({i: Carried.from_candidates(answer) for i, answer in answers.items()})
        return Visit(frame, {i: carried for i, carried in found.items() if not carried.is_empty}, running)

    def _remind(self, frame: int, objects: Sequence[int] | frozenset[int] | set[int], backward: bool) -> None:
        """Tell the tracker what labels say of the frames it would remember, farthest first."""
        step = -1 if backward else 1
        for distance in range(self.settings.memory_frames, 0, -1):
            earlier = frame - step * distance
            if earlier in self.span:
                masks = {i: self.mask_of(i, earlier) for i in objects if earlier not in self.known[i]}
                masks = {i: mask for i, mask in masks.items() if mask.any()}
                if masks:
                    self.tracker.remind(earlier, self._encoded(earlier), masks)

    def _encoded(self, frame: int) -> Embedding | None:
        return self.embed(frame) if self.tracker.encodes else None


def _agree(carried: Carried | None, mask: np.ndarray, overlap: float) -> bool:
    """Whether a new mask equals an old one."""
    if carried is None:
        return not mask.any()
    inside = mask[carried.box[0] : carried.box[2], carried.box[1] : carried.box[3]]
    common = np.count_nonzero(inside & carried.patch)
    union = np.count_nonzero(mask) + np.count_nonzero(carried.patch) - common
    return bool(common >= overlap * union)
