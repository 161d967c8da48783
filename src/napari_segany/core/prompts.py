"""What a person gives for one object on one image: points, a box, a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.errors import InvalidPromptError

PointsLike = Sequence[Sequence[float]] | np.ndarray


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points, a box and a mask for one object, in array-index coordinates.

    Build one with `make_prompt`, which checks it against the image.

    Attributes
    ----------
    points : (N, 2) float64
        Rows first: (y, x), where a pixel's centre has integer coordinates.
    labels : (N,) int64
        1 inside the object, 0 outside.
    box : (4,) float64 or None
        (y0, x0, y1, x1), half-open as `skimage.measure.regionprops` gives it.
    mask : (H, W) float32 or None
        Logits, positive inside.
    """

    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def is_ambiguous(self) -> bool:
        """Whether a single click is all there is, so that several masks fit."""
        return len(self.points) == 1 and self.box is None and self.mask is None

    @property
    def known_mask(self) -> np.ndarray | None:
        """(H, W) bool when a mask is all there is: then nothing is left to ask."""
        if self.mask is None or self.box is not None or len(self.points):
            return None
        return self.mask > 0

    def merged(self, later: Prompt) -> Prompt:
        """Return both prompts as one; the later box and mask win."""
        return Prompt(
            np.concatenate([self.points, later.points]),
            np.concatenate([self.labels, later.labels]),
            self.box if later.box is None else later.box,
            self.mask if later.mask is None else later.mask,
        )


#: Logit given to the pixels of a boolean mask prompt, as SAM 2 does.
MASK_LOGIT = 10.0


def mask_logits(mask: np.ndarray) -> np.ndarray:
    """Logits, float32, of a boolean mask whose every pixel is sure; any shape to the same."""
    return np.where(mask, np.float32(MASK_LOGIT), np.float32(-MASK_LOGIT))


def make_prompt(
    shape: tuple[int, int],
    points: PointsLike | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    box: Sequence[float] | np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Prompt:
    """Check prompts against an image and return them as one `Prompt`.

    Parameters
    ----------
    shape : (H, W) of the image
    points : N x (y, x), optional
    labels : N x {0, 1}, optional
        All 1 when absent.
    box : (y0, x0, y1, x1), optional
        Half-open; clipped to the image.
    mask : (H, W) bool, integer (nonzero inside) or floating logits, optional

    Raises
    ------
    InvalidPromptError
        Nothing given, a point outside the image, a box without area in it,
        NaN coordinates, or shapes that do not fit.
    """
    if points is None and box is None and mask is None:
        raise InvalidPromptError("Give at least one point, a box or a mask.")
    checked_points, checked_labels = _check_points(shape, points, labels)
    prompt = Prompt(
        checked_points,
        checked_labels,
        None if box is None else check_boxes(shape, _numbers(box, "A box")[None])[0],
        None if mask is None else _check_mask(shape, mask),
    )
    if len(checked_points) == 0 and prompt.box is None and prompt.mask is None:
        raise InvalidPromptError("Give at least one point, a box or a mask.")
    return prompt


def _check_points(
    shape: tuple[int, int], points: PointsLike | None, labels: Sequence[int] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if points is None:
        if labels is not None and np.size(_numbers(labels, "Point labels")):
            raise InvalidPromptError("Point labels came without points.")
        return np.zeros((0, 2)), np.zeros(0, dtype=np.int64)
    coords = _numbers(points, "Points")
    coords = coords.reshape(-1, 2) if coords.size == 0 else coords
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise InvalidPromptError(f"Points must be N pairs (y, x), got shape {coords.shape}.")
    signs = np.ones(len(coords), dtype=np.int64) if labels is None else _numbers(labels, "Point labels")
    if signs.shape != (len(coords),) or not np.isin(signs, (0, 1)).all():
        raise InvalidPromptError(f"Give one label, 1 (inside) or 0 (outside), for each of the {len(coords)} points.")
    if not np.isfinite(coords).all():
        raise InvalidPromptError("A point has a coordinate that is not a finite number.")
    height, width = shape
    # Pixel (0, 0) reaches from -0.5 to 0.5.
    outside = (coords < -0.5).any(axis=1) | (coords[:, 0] >= height - 0.5) | (coords[:, 1] >= width - 0.5)
    if outside.any():
        y, x = coords[outside][0]
        raise InvalidPromptError(f"The point (y={y:g}, x={x:g}) lies outside the image of {height} x {width} pixels.")
    return coords, signs.astype(np.int64)


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidPromptError(f"{what} must be numbers, not {str(values)[:40]!r}.") from error


def check_boxes(shape: tuple[int, int], boxes: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Clip boxes to the image.

    Parameters
    ----------
    shape : (H, W) of the image
    boxes : N x (y0, x0, y1, x1), half-open

    Returns
    -------
    (N, 4) float64

    Raises
    ------
    InvalidPromptError
        Another shape, not finite, corners swapped, or no area inside the image.
    """
    array = _numbers(boxes, "Boxes")
    if array.ndim != 2 or array.shape[1] != 4:
        raise InvalidPromptError(f"A box must be four numbers (y0, x0, y1, x1), got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise InvalidPromptError("A box has a coordinate that is not a finite number.")
    clipped = np.clip(array, 0, [shape[0], shape[1], shape[0], shape[1]])
    flat = (clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1])
    if flat.any():
        shown = tuple(float(v) for v in array[flat][0])
        raise InvalidPromptError(
            f"The box {shown} covers no part of the image of {shape[0]} x {shape[1]} pixels; "
            "give (y0, x0, y1, x1) with y0 < y1 and x0 < x1."
        )
    return clipped


def check_region(shape: tuple[int, int], region: Sequence[float]) -> Box:
    """Whole pixels of the image (H, W) that a region (y0, x0, y1, x1) touches.

    Raises
    ------
    InvalidPromptError
        See `check_boxes`.
    """
    ((y0, x0, y1, x1),) = check_boxes(shape, [region])
    return math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1)


def _check_mask(shape: tuple[int, int], mask: np.ndarray) -> np.ndarray:
    try:
        mask = np.asarray(mask)
    except ValueError as error:
        raise InvalidPromptError("A mask must be an array of the image's height and width.") from error
    if mask.shape != tuple(shape):
        raise InvalidPromptError(f"The mask has the shape {mask.shape} and the image {tuple(shape)}.")
    if mask.dtype.kind in "bui":
        inside = mask != 0
        if not inside.any():
            raise InvalidPromptError("The mask prompt is empty: no pixel is inside.")
        return mask_logits(inside)
    if mask.dtype.kind != "f" or not np.isfinite(mask).all():
        raise InvalidPromptError("A mask must be boolean, integer, or finite floating logits.")
    return mask.astype(np.float32)
