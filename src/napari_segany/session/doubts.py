"""Places along a stack that deserve a look: likely identity switches, drifts and gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from napari_segany.core.state import Key

#: An area that grows or shrinks by a larger factor from one frame to the next is suspicious.
GROWTH = 2.0
#: A step of so many times its usual step, and at least its diameter, is a jump.
JUMP = 4.0
#: Masks with a lower predicted IoU are doubtful.
LOW_SCORE = 0.5


@dataclass(frozen=True)
class Doubt:
    """One place to look at.

    Attributes
    ----------
    object_id, frame : int
    reason : {"switch", "jump", "size", "gap", "score"}
        The order is that of how much it matters.
    text : str
        What was noticed, for a person to read.
    """

    object_id: int
    frame: int
    reason: str
    text: str


REASONS = ("switch", "jump", "size", "gap", "score")


@dataclass(frozen=True)
class _Sight:
    """An object on a frame."""

    frame: int
    area: int
    centre: np.ndarray


def find_doubts(planes: Iterable[np.ndarray], scores: Mapping[Key, float]) -> list[Doubt]:
    """Look through labels frame by frame; only two frames are held at a time.

    Parameters
    ----------
    planes : iterable of (H, W) integer arrays
    scores : (object id, frame) -> predicted IoU

    Returns
    -------
    list of Doubt
        What matters most first, then by object and frame.
    """
    seen: dict[int, list[_Sight]] = {}
    found: list[Doubt] = []
    before: np.ndarray | None = None
    for frame, plane in enumerate(planes):
        overlaps = {} if before is None else _overlaps(before, plane)
        for object_id, sight in _sights(plane, frame).items():
            earlier = seen.setdefault(object_id, [])
            if earlier and earlier[-1].frame == frame - 1:
                found += _switch(object_id, sight, overlaps)
            elif earlier:
                away = frame - earlier[-1].frame - 1
                planes_away = "a plane" if away == 1 else f"{away} planes"
                found.append(Doubt(object_id, frame, "gap", f"comes back after {planes_away}"))
            earlier.append(sight)
        before = plane
    for object_id, sights in seen.items():
        switched = {doubt.frame for doubt in found if doubt.object_id == object_id and doubt.reason == "switch"}
        found += [doubt for doubt in _course(object_id, sights) if doubt.frame not in switched]
    found += _low_scores(scores)
    return sorted(found, key=lambda doubt: (REASONS.index(doubt.reason), doubt.object_id, doubt.frame))


def _sights(plane: np.ndarray, frame: int) -> dict[int, _Sight]:
    ys, xs = np.nonzero(plane)
    ids, inverse, areas = np.unique(plane[ys, xs], return_inverse=True, return_counts=True)
    rows, columns = (np.bincount(inverse, weights=along, minlength=len(ids)) / areas for along in (ys, xs))
    return {
        int(i): _Sight(frame, int(area), np.array([y, x]))
        for i, area, y, x in zip(ids, areas, rows, columns, strict=True)
    }


def _overlaps(before: np.ndarray, now: np.ndarray) -> dict[tuple[int, int], int]:
    """Pixels shared by an object before and an object now."""
    both = (before > 0) & (now > 0)
    pairs, counts = np.unique(np.stack([before[both], now[both]]), axis=1, return_counts=True)
    return {(int(a), int(b)): int(count) for (a, b), count in zip(pairs.T, counts, strict=True)}


def _switch(object_id: int, now: _Sight, overlaps: Mapping[tuple[int, int], int]) -> list[Doubt]:
    others = {a: count for (a, b), count in overlaps.items() if b == object_id and a != object_id}
    most = max(others, key=others.__getitem__, default=0)
    if most and others[most] > max(overlaps.get((object_id, object_id), 0), now.area / 2):
        return [Doubt(object_id, now.frame, "switch", f"lies where object {most} was")]
    return []


def _course(object_id: int, sights: list[_Sight]) -> list[Doubt]:
    """Jumps and sudden sizes of one object; its first and last step do not count for sizes, since objects taper off."""
    pairs = [(a, b) for a, b in pairwise(sights) if b.frame == a.frame + 1]
    steps = [float(np.hypot(*(b.centre - a.centre))) for a, b in pairs]
    usual, found = float(np.median(steps)) if steps else 0.0, []
    for (last, now), step in zip(pairs, steps, strict=True):
        factor = max(now.area / last.area, last.area / now.area)
        if step > max(JUMP * usual, 2 * np.sqrt(min(last.area, now.area) / np.pi)):
            found.append(Doubt(object_id, now.frame, "jump", f"jumps by {step:.0f} pixels"))
        elif factor > GROWTH and last is not sights[0] and now is not sights[-1]:
            way = "grows" if now.area > last.area else "shrinks"
            found.append(Doubt(object_id, now.frame, "size", f"{way} by a factor of {factor:.1f}"))
    return found


def _low_scores(scores: Mapping[Key, float]) -> list[Doubt]:
    """The worst frame of each run of frames with low scores."""
    low = sorted(key for key, score in scores.items() if score < LOW_SCORE)
    runs: list[list[Key]] = []
    for key in low:
        if runs and runs[-1][-1] == (key[0], key[1] - 1):
            runs[-1].append(key)
        else:
            runs.append([key])
    worst = [min(run, key=scores.__getitem__) for run in runs]
    return [Doubt(*key, "score", f"has a predicted IoU of {scores[key]:.2f}") for key in worst]
