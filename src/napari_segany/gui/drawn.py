"""What is drawn for one object on one plane, and the prompt that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.masks import bounding_box, interior_point

Place = tuple[float, float]

#: Points that a scribble becomes at most.
POINTS_PER_STROKE = 8
#: Pixels between the points of a scribble at least.
STROKE_SPACING = 4.0
#: Pixels by which the outline of a mask may leave it, so that it has few corners to take hold of.
OUTLINE_TOLERANCE = 0.3


@dataclass(frozen=True)
class Line:
    """A scribble, or the outline of an area.

    Attributes
    ----------
    vertices : N x (y, x)
    inside : bool
        Whether it lies on the object or on what is not part of it.
    filled : bool
        Whether it is the outline of an area.
    """

    vertices: tuple[Place, ...]
    inside: bool
    filled: bool


@dataclass(frozen=True)
class Drawn:
    """The prompts of one object on one frame as they stand in the layers.

    Attributes
    ----------
    points : N x (y, x)
    labels : N x {0, 1}
    box : (y0, x0, y1, x1) half-open, or None
    lines : scribbles and outlines
    """

    points: tuple[Place, ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, ...] | None = None
    lines: tuple[Line, ...] = ()

    def arguments(self, shape: tuple[int, int]) -> dict[str, Any]:
        """Arguments of `Session.prompt` on a plane of (H, W) pixels.

        A scribble becomes points. Outlined areas become a mask, less those that are
        not part of the object, and the box around it unless a box is drawn.

        Raises
        ------
        InvalidPromptError
            An outline without a pixel of the plane in it.
        """
        points, labels = list(self.points), list(self.labels)
        mask = np.zeros(shape, dtype=bool)
        areas = [(line, fill(line.vertices, shape)) for line in self.lines if line.filled]
        for line in self.lines:
            if not line.filled:
                found = _along(line.vertices, shape)
                points += found
                labels += [int(line.inside)] * len(found)
        for line, area in areas:
            if not area.any():
                raise InvalidPromptError("An outline that is drawn covers no pixel of the image.")
            if line.inside:
                mask |= area
        wanted = mask.any()
        for line, area in areas:
            if not line.inside and wanted:
                mask &= ~area
            elif not line.inside:
                points.append(interior_point(area))
                labels.append(0)
        box = bounding_box(mask) if wanted and self.box is None else self.box
        return {"points": points or None, "labels": labels or None, "box": box, "mask": mask if wanted else None}


def fill(vertices: Sequence[Place], shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, the pixels whose centre lies inside a closed outline."""
    from skimage.draw import polygon

    mask = np.zeros(shape, dtype=bool)
    corners = np.asarray(vertices, dtype=np.float64)
    mask[polygon(corners[:, 0], corners[:, 1], shape)] = True
    return mask


def outlines(mask: np.ndarray) -> tuple[Line, ...]:
    """Outlines of a mask (H, W) bool; those of its holes are not part of the object."""
    from skimage.measure import approximate_polygon, find_contours

    lines = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        corners = approximate_polygon(contour - 1.0, OUTLINE_TOLERANCE)[:-1]
        if len(corners) > 2:
            y, x = corners.T
            hole = float(np.sum(y * np.roll(x, -1) - x * np.roll(y, -1))) > 0
            lines.append(Line(tuple((float(a), float(b)) for a, b in corners), not hole, True))
    return tuple(lines)


def ellipse(corners: np.ndarray, count: int = 48) -> np.ndarray:
    """Outline (count, 2) of the ellipse inside a rectangle of four corners (4, 2)."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None]
    centre = corners.mean(axis=0)
    first, second = (corners[1] - corners[0]) / 2, (corners[2] - corners[1]) / 2
    return np.asarray(centre + np.cos(angle) * first + np.sin(angle) * second)


def _along(vertices: Sequence[Place], shape: tuple[int, int]) -> list[Place]:
    """Evenly spaced places along a stroke that lie on a plane."""
    corners = np.asarray(vertices, dtype=np.float64)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    count = int(np.clip(along[-1] / STROKE_SPACING, 2, POINTS_PER_STROKE)) if along[-1] > 1 else 1
    # In the middle of equal parts: the ends of a stroke are the least careful.
    at = (np.arange(count) + 0.5) / count * along[-1]
    places = np.stack([np.interp(at, along, corners[:, i]) for i in (0, 1)], axis=-1)
    on_plane = ((places >= -0.5) & (places < np.array(shape) - 0.5)).all(axis=1)
    return [(float(y), float(x)) for y, x in places[on_plane]]
