"""Through which window, at which zoom, nano looks at the object of a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_segany.core.masks import Candidates, LogitsGrid, bounding_box, linear_interpolation
from napari_segany.core.prompts import Prompt
from napari_segany.models.nano.network import WINDOW

#: Rows and columns of a window's masks.
N_CELLS = WINDOW // 4
#: Longest side, in pixels of the level, that an object should have in the window.
COMFORTABLE_SIZE = 72.0
#: The same where a box says how large it is: then more of its surroundings help more than finer cells.
BOXED_SIZE = 56.0
#: Longest side of what is thin, in pixels of the level.
LONGEST = 150.0
#: Windows begin at multiples of this, pixels of the level: cells of the coarser features.
STEP = 8
#: Level that enlarges the image most.
FINEST_LEVEL = -3
#: Levels at which a click, which does not tell the size of its object, is looked at first.
SEARCH_LEVELS = (-2, -1, 0)
#: How much more a sure look counts than an unsure one.
SCORE_POWER = 6

#: Logit of what lies beyond the image's edge, or beyond what a window shows.
OUTSIDE = -10.0

#: Logits (4, h, w) and scores (4,) of one look.
Answer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class View:
    """A window on one zoom level.

    Attributes
    ----------
    level : int
        The image is seen at ``2 ** -level`` of its size.
    origin : (y, x)
        First pixel of the window at that level, multiples of `STEP`.
    """

    level: int
    origin: tuple[int, int]

    @classmethod
    def at(cls, centre: Sequence[float] | np.ndarray, level: int) -> View:
        """Centre the window of a level on an image position (y, x), counted from the image's edge."""
        y, x = (STEP * round((c * 2.0**-level - WINDOW / 2) / STEP) for c in centre)
        return cls(level, (y, x))

    @property
    def centre(self) -> tuple[float, float]:
        """(y, x) in the image, counted from its edge."""
        y, x = ((o + WINDOW / 2) * 2.0**self.level for o in self.origin)
        return y, x

    def cells(self, image_shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the window's cells that show some of an image (H, W), at least one of each."""
        found = []
        for origin, extent in zip(self.origin, image_shape, strict=True):
            first = min(max(0, -origin // 4), N_CELLS - 1)
            stop = math.ceil((extent * 2.0**-self.level - origin) / 4)
            found.append(slice(first, max(min(stop, N_CELLS), first + 1)))
        return found[0], found[1]

    def box(self, inside: np.ndarray) -> tuple[float, float, float, float]:
        """Tight box (y0, x0, y1, x1) in the image of what is inside a mask (h, w) bool of the window."""
        y0, x0, y1, x1 = bounding_box(inside)
        (top, left), scale = self.origin, 2.0**self.level
        return (4 * y0 + top) * scale, (4 * x0 + left) * scale, (4 * y1 + top) * scale, (4 * x1 + left) * scale

    def resampled(self, other: View, logits: np.ndarray) -> np.ndarray:
        """Logits (..., h, w) of another view in the cells of this one, `OUTSIDE` where that one did not reach."""
        if other == self:
            return logits
        zoom = 2.0 ** (self.level - other.level)
        along = []
        for ours, theirs in zip(self.origin, other.origin, strict=True):
            start, stop = ((edge * zoom - theirs) / 4 for edge in (ours, ours + WINDOW))
            centres = start + (np.arange(N_CELLS) + 0.5) * ((stop - start) / N_CELLS)
            reached = (centres >= 0) & (centres <= N_CELLS)
            along.append((linear_interpolation(N_CELLS, N_CELLS, start, stop), reached))
        (rows, reached_rows), (cols, reached_cols) = along
        return np.where(reached_rows[:, None] & reached_cols, rows @ logits @ cols.T, np.float32(OUTSIDE))

    def grid(self, image_shape: tuple[int, int]) -> LogitsGrid:
        """How logits of this window reach the image's pixels; those of cells beyond its edge do not."""
        scale = 2.0**self.level
        matrices, starts = [], []
        for origin, extent, cells in zip(self.origin, image_shape, self.cells(image_shape), strict=True):
            first = min(max(0, math.floor(origin * scale)), extent)
            last = max(first, min(extent, math.ceil((origin + WINDOW) * scale)))
            start, stop = ((edge / scale - origin) / 4 for edge in (first, last))
            matrices.append(linear_interpolation(N_CELLS, last - first, start, stop, cells))
            starts.append(first)
        return LogitsGrid(image_shape, (starts[0], starts[1]), matrices[0], matrices[1])


@dataclass(frozen=True, eq=False)
class Seen(Candidates):
    """Masks, and the view through which they were seen."""

    view: View = field(kw_only=True)

    @classmethod
    def through(cls, view: View, logits: np.ndarray, scores: np.ndarray, image_shape: tuple[int, int]) -> Seen:
        """Masks (K, h, w) and scores (K,) of a view of an image (H, W)."""
        return cls(logits, scores, view.grid(image_shape), view=view)


def comfortable_level(size: float, coarsest: int, wanted: float = COMFORTABLE_SIZE) -> int:
    """Level at which an object of `size` image pixels is of the `wanted` size."""
    return min(max(round(math.log2(max(size, 1.0) / wanted)), FINEST_LEVEL), coarsest)


def view_of(prompt: Prompt, coarsest: int) -> View | None:
    """The view that suits the box or mask of a prompt; None when it has neither."""
    if prompt.box is not None:
        y0, x0, y1, x1 = prompt.box
    elif prompt.mask is not None and (prompt.mask > 0).any():
        y0, x0, y1, x1 = bounding_box(prompt.mask > 0)
    else:
        return None
    wanted = COMFORTABLE_SIZE if prompt.box is None else BOXED_SIZE
    return View.at(((y0 + y1) / 2, (x0 + x1) / 2), comfortable_level(max(y1 - y0, x1 - x0), coarsest, wanted))


def search_views(prompt: Prompt, coarsest: int) -> list[View]:
    """Views around the clicks of a prompt at every level to be searched."""
    points = prompt.points[prompt.labels == 1] if (prompt.labels == 1).any() else prompt.points
    # Around the first click, so that further clicks find their windows encoded already. A prompt may
    # be an empty mask alone: then its object may be anywhere.
    centre = points[0] + 0.5 if len(points) else np.zeros(2)
    return [View.at(centre, level) for level in SEARCH_LEVELS if level <= coarsest]


def vote(looks: Sequence[tuple[View, Answer]], coarsest: int) -> View:
    """Choose the view for an object from looks at it on several levels.

    Each look tells how large the object is. It counts the more, the surer it
    is and the nearer to a comfortable size the object appears in it. Where the
    level that wins has been looked at, that very view is returned.
    """
    total = weights = 0.0
    centre = np.zeros(2)
    for view, (logits, scores) in looks:
        inside = logits[0] > 0
        if not inside.any():
            continue
        y0, x0, y1, x1 = view.box(inside)
        off = math.log2(max(y1 - y0, x1 - x0) * 2.0**-view.level / COMFORTABLE_SIZE)
        weight = float(scores[0]) ** SCORE_POWER * math.exp(-abs(off)) + 1e-9
        total += weight * (view.level + off)
        centre += weight * np.array([y0 + y1, x0 + x1]) / 2
        weights += weight
    if weights == 0.0:
        return looks[-1][0]
    level = min(max(round(total / weights), FINEST_LEVEL), coarsest)
    return next((view for view, _ in looks if view.level == level), View.at(centre / weights, level))


def nearer(view: View, answer: Answer) -> View:
    """The view of a box again, or one that magnifies it more where what lies in it turns out to be thin.

    Of something long and thin the width is lost at a zoom that suits its
    length, so the diameter of a disc of the same area counts; but what is long
    has to fit into the window.
    """
    inside = answer[0][0] > 0
    if not inside.any():
        return view
    y0, x0, y1, x1 = bounding_box(inside)
    across = math.sqrt(4 / math.pi * np.count_nonzero(inside))
    size = 4 * max(across, max(y1 - y0, x1 - x0) * BOXED_SIZE / LONGEST)
    level = max(view.level + min(0, round(math.log2(size / BOXED_SIZE))), FINEST_LEVEL)
    return view if level == view.level else View.at(view.centre, level)
