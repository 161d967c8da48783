"""Whether a stack goes through depth or through time, found out by trying both on a few frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from napari_segany.core.errors import UnreadableError
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Embedding, FrameSource, Tracker, VolumeModel
from napari_segany.core.settings import PropagationSettings
from napari_segany.session.carried import Carried, as_prompt, by_frame
from napari_segany.session.carrying import begin_memory
from napari_segany.session.completing import CompletingTracker

#: Frames before and after one on which objects are known, and objects, that are tried.
FRAMES, OBJECTS = 4, 8
#: A memory is surest in time. Where twice its score is above that of whole drawn objects by more, a stack is of time.
TIME_BEGINS = 0.81


def goes_through_depth(
    model: VolumeModel,
    frames: FrameSource,
    embed: Callable[[int], Embedding],
    anchors: Mapping[int, Mapping[int, Prompt | Carried]],
    settings: PropagationSettings,
) -> bool:
    """Whether objects look more like whole ones in space than like ones that move.

    Parameters
    ----------
    model : VolumeModel
    frames : FrameSource
    embed : callable
        Gives the embedding of a frame.
    anchors : object id -> where it is known
        Those on the frame that has most of them are tried.
    settings : PropagationSettings
    """
    known = by_frame(anchors)
    middle = max(known, key=lambda frame: len(known[frame]))
    given = {i: as_prompt(anchor) for i, anchor in sorted(known[middle].items())[:OBJECTS]}
    ways = [
        range(middle + 1, min(middle + 1 + FRAMES, len(frames))),
        range(middle - 1, max(middle - 1 - FRAMES, -1), -1),
    ]
    sure: list[float] = []
    for tracker in (CompletingTracker(model, frames), begin_memory(model, len(frames), settings)):
        tracker.condition(middle, embed(middle), given)
        scores = [score for way in ways for score in _scores(tracker, way, embed, list(given))]
        sure.append(float(np.mean(scores or [0.0])))
    drawn, remembered = sure
    return drawn > max(2 * remembered - TIME_BEGINS, 0.0)


def _scores(tracker: Tracker, way: range, embed: Callable[[int], Embedding], objects: Sequence[int]) -> list[float]:
    """Predicted IoU of each object on each frame of a way, 0 where it is not found."""
    scores: list[float] = []
    for frame in way:
        try:
            found = tracker.follow(frame, embed(frame) if tracker.encodes else None, objects, way.step < 0)
        except UnreadableError:
            break
        scores += [float(found[i].scores[0]) if i in found else 0.0 for i in objects]
    return scores
