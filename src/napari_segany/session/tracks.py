"""Where each object is along the stack, and how sure the model is of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Track(NamedTuple):
    """One object along the propagation axis.

    Attributes
    ----------
    object_id : int
    first, last : int
        First and last frame on which it is present.
    parent : int
        Object it came from by division, 0 when none.
    scores : dict of frame -> float
        Predicted IoU on each frame where the model answered.
    """

    object_id: int
    first: int
    last: int
    parent: int
    scores: dict[int, float]


def tracks(scores: Mapping[tuple[int, int], float], parents: Mapping[tuple[int, int], int]) -> list[Track]:
    """Gather scores and parents by (object id, frame) into one track for each object, ordered by id."""
    came_from = {object_id: parent for (object_id, _), parent in parents.items()}
    by_object: dict[int, dict[int, float]] = {}
    for (object_id, frame), score in sorted(scores.items()):
        by_object.setdefault(object_id, {})[frame] = score
    return [
        Track(object_id, min(found), max(found), came_from.get(object_id, 0), found)
        for object_id, found in by_object.items()
    ]
