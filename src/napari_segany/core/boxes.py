"""Boxes around objects: rows first, half-open."""

from __future__ import annotations

import numpy as np

#: Half-open (y0, x0, y1, x1) in whole pixels.
Box = tuple[int, int, int, int]


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes (..., 4), or (..., 6) in space, with others, broadcast; 0 where both are empty."""
    half = a.shape[-1] // 2
    low, high = np.maximum(a[..., :half], b[..., :half]), np.minimum(a[..., half:], b[..., half:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [np.clip(c[..., half:] - c[..., :half], 0, None).prod(axis=-1) for c in (a, b)]
    union = (areas[0] + areas[1] - common).astype(np.float64)
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


def meeting(a: Box, b: Box) -> Box | None:
    """What two boxes share; None when that is nothing."""
    y0, x0, y1, x1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None
