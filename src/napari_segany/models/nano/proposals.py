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

#: Objects whose median longest side is below this look small, pixels of a level.
SMALL_SIZE = 50.0
#: Level that enlarges the image most in search of objects.
FINEST_SEARCH = -2


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


def look_small(boxes: np.ndarray) -> bool:
    """Whether objects are so small, or so few that they may be too small to be seen, that a finer level shows more.

    Parameters
    ----------
    boxes : (N, 4)
        (y0, x0, y1, x1) in pixels of the level.
    """
    return not len(boxes) or float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))) < SMALL_SIZE
