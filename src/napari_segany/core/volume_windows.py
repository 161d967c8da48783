"""Windows of a stack in which a model draws a whole object: resampled so that it is as large as the model expects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_segany.core.boxes import Box, meeting
from napari_segany.core.errors import UnreadableError
from napari_segany.core.intensity import to_gray
from napari_segany.core.masks import LogitsGrid, linear_interpolation

if TYPE_CHECKING:
    from napari_segany.core.protocols import FrameSource

#: Something long is not taken for larger than this share of its length.
LENGTH_COUNTS = 0.6
#: Windows that lie within so many pixels of a plane are read together.
READ_TOGETHER = 1 << 22


@dataclass(frozen=True)
class WindowShape:
    """What a model looks at.

    Attributes
    ----------
    reach : int
        Planes before and after the one in the middle.
    side : int
        Rows and columns, cells.
    object_size : float
        How large an object should be on the plane in the middle, cells.
    """

    reach: int
    side: int
    object_size: float

    @property
    def depth(self) -> int:
        """Planes in all."""
        return 2 * self.reach + 1


@dataclass(frozen=True)
class VolumeWindow:
    """A window around an object.

    Attributes
    ----------
    shape : WindowShape
    frame : int
        The plane in the middle.
    image_shape : (H, W) of a plane
    centre : (y, x)
        Of the window, pixels.
    scale : float
        Pixels to a cell.
    """

    shape: WindowShape
    frame: int
    image_shape: tuple[int, int]
    centre: tuple[float, float]
    scale: float

    @classmethod
    def around(
        cls, box: Box, patch: np.ndarray, frame: int, image_shape: tuple[int, int], shape: WindowShape
    ) -> VolumeWindow:
        """The window for an object whose mask on `frame` is `patch` (h, w) bool in its tight `box`."""
        y0, x0, y1, x1 = box
        centre = (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2
        return cls(shape, frame, image_shape, centre, size_of(patch) / shape.object_size)

    @cached_property
    def frames(self) -> range:
        """Planes that it would show of an endless stack."""
        return range(self.frame - self.shape.reach, self.frame + self.shape.reach + 1)

    @cached_property
    def box(self) -> Box:
        """Pixels of a plane (y0, x0, y1, x1) that it shows."""
        half = self.shape.side / 2 * self.scale
        spans = [
            (min(max(0, math.ceil(c - half)), n - 1), max(1, min(n, math.floor(c + half) + 1)))
            for c, n in zip(self.centre, self.image_shape, strict=True)
        ]
        (y0, y1), (x0, x1) = spans
        return y0, x0, y1, x1

    @cached_property
    def _cells(self) -> tuple[slice, slice]:
        """Rows and columns of cells whose centre lies in the image; there may be none in an image narrower than one."""
        at = (np.arange(self.shape.side) - (self.shape.side - 1) / 2) * self.scale
        rows, cols = (
            slice(int(np.searchsorted(c + at, -0.5)), int(np.searchsorted(c + at, n - 0.5, side="right")))
            for c, n in zip(self.centre, self.image_shape, strict=True)
        )
        return rows, cols

    @cached_property
    def inside(self) -> np.ndarray:
        """(side, side) bool: cells whose centre lies in the image."""
        inside = np.zeros((self.shape.side, self.shape.side), dtype=bool)
        inside[self._cells] = True
        return inside

    def sampled(self, pixels: np.ndarray, origin: tuple[int, int]) -> np.ndarray:
        """Values (h, w) of a part of a plane, which begins at `origin` and reaches over the window, at the cells.

        Where cells are larger than pixels they take the mean of several places.
        """
        side, scale = self.shape.side, self.scale
        places = max(1, math.floor(scale))
        rows, cols = (
            linear_interpolation(
                n, side * places, c - side / 2 * scale + 0.5 - first, c + side / 2 * scale + 0.5 - first
            )
            .reshape(side, places, n)
            .mean(axis=1)
            for n, c, first in zip(pixels.shape, self.centre, origin, strict=True)
        )
        return rows @ pixels.astype(np.float32) @ cols.T

    def mask_cells(self, box: Box, patch: np.ndarray) -> np.ndarray:
        """A mask, `patch` (h, w) bool in its `box`, in the cells; (side, side) bool."""
        y0, x0, y1, x1 = self.box
        own = np.zeros((y1 - y0, x1 - x0), dtype=bool)
        shared = meeting(self.box, box)
        if shared is not None:
            top, left, bottom, right = shared
            part = patch[top - box[0] : bottom - box[0], left - box[1] : right - box[1]]
            own[top - y0 : bottom - y0, left - x0 : right - x0] = part
        return (self.sampled(own, (y0, x0)) > 0.5) & self.inside

    @cached_property
    def grid(self) -> LogitsGrid:
        """How logits of its cells reach a plane's pixels; those of cells beyond the image's edge do not."""
        y0, x0, y1, x1 = self.box
        matrices = []
        for first, stop, c, cells in zip((y0, x0), (y1, x1), self.centre, self._cells, strict=True):
            start, end = ((edge - 0.5 - c) / self.scale + self.shape.side / 2 for edge in (first, stop))
            matrices.append(linear_interpolation(self.shape.side, stop - first, start, end, cells))
        return LogitsGrid(self.image_shape, (y0, x0), matrices[0], matrices[1])


@dataclass(frozen=True, eq=False)
class Shown:
    """What windows show.

    Attributes
    ----------
    pixels : (P, depth, side, side) float32
        Brightness from 0 to 1.
    seen : (P, depth, side, side) bool
        Where there is a plane that can be read, and the image.
    damaged : frame -> error
        Planes that cannot be read.
    """

    pixels: np.ndarray
    seen: np.ndarray
    damaged: Mapping[int, UnreadableError]


def size_of(patch: np.ndarray) -> float:
    """How large a mask (h, w) bool that fills its box is: its diameter, were it a disc, or more if it is long."""
    return max(2 * math.sqrt(np.count_nonzero(patch) / math.pi), LENGTH_COUNTS * max(patch.shape))


def read_windows(frames: FrameSource, windows: Sequence[VolumeWindow]) -> Shown:
    """Read what windows around the same plane show; what of a plane lies between them is read where that is little."""
    shape, planes = windows[0].shape, windows[0].frames
    pixels = np.zeros((len(windows), shape.depth, shape.side, shape.side), dtype=np.float32)
    seen = np.zeros(pixels.shape, dtype=bool)
    damaged: dict[int, UnreadableError] = {}
    boxes = np.array([window.box for window in windows])
    whole = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))
    together = (whole[2] - whole[0]) * (whole[3] - whole[1]) <= READ_TOGETHER
    for at, frame in enumerate(planes):
        if not 0 <= frame < len(frames):
            continue
        try:
            known = _brightness(frames, frame, whole) if together else None
            for i, window in enumerate(windows):
                y0, x0, y1, x1 = window.box
                if known is None:
                    part = _brightness(frames, frame, window.box)
                else:
                    part = known[y0 - whole[0] : y1 - whole[0], x0 - whole[1] : x1 - whole[1]]
                pixels[i, at] = window.sampled(part, (y0, x0))
                seen[i, at] = window.inside
        except UnreadableError as error:
            damaged[frame], seen[:, at] = error, False
    return Shown(pixels * seen, seen, damaged)


def _brightness(frames: FrameSource, frame: int, box: Sequence[int]) -> np.ndarray:
    """A part of a plane from 0 to 1, (h, w) float32; the mean of its colours."""
    part = np.asarray(frames.plane(frame)[box[0] : box[2], box[1] : box[3]])
    return to_gray(part, frames.intensity) / 255.0
