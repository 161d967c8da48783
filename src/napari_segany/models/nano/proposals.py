"""Where objects are, from the encoder's dense maps."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: Product of "inside" and "depth" above which a peak can be an object.
PEAK_THRESHOLD = 0.25
#: How far the product must fall between two peaks for them to be two objects.
PROMINENCE = 0.1
#: Probability of "inside" down to which a peak is flooded.
INSIDE_THRESHOLD = 0.4

#: Where "inside" is nowhere as likely as this there is nothing, however it is magnified.
BLANK = 0.1
#: Level that tells how large objects are.
FIRST_LOOK = -1
#: Levels, the finer first, that show objects of up to a median longest side best, pixels of the image.
BEST_LEVELS = ((25.0, (-2, -1)), (40.0, (-1, 0)), (np.inf, (0,)))


def basins(inside: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Boxes of objects.

    Prominent peaks of depth are flooded over what lies inside objects; a
    basin need only be good enough to tell where its object is and how large.

    Parameters
    ----------
    inside, depth : (h, w) float, 0-1
        See `Encoder.forward`.

    Returns
    -------
    (N, 4) float64
        (y0, x0, y1, x1) in cells, half-open.
    """
    from skimage.morphology import reconstruction
    from skimage.segmentation import watershed

    height = ndimage.gaussian_filter(inside * depth, 1.0)
    prominent = height - reconstruction(height - PROMINENCE, height) >= 0.999 * PROMINENCE
    seeds, _ = ndimage.label(prominent & (height > PEAK_THRESHOLD), np.ones((3, 3)))
    found = ndimage.find_objects(watershed(-height, seeds, mask=inside > INSIDE_THRESHOLD))
    boxes = [(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in filter(None, found)]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def suitable_levels(boxes: np.ndarray) -> tuple[int, ...]:
    """Levels that show objects best, of which a first look gave these boxes (N, 4) in pixels of the image."""
    size = float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))) if len(boxes) else 0.0
    return next(levels for largest, levels in BEST_LEVELS if size < largest)
