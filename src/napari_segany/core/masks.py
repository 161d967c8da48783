"""Candidate masks of one prompt: logits on a coarse grid, scores, and where the grid lies in the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from napari_segany.core.boxes import Box

Strategy = Literal["highest", "balanced", "largest", "smallest"]
#: Logit of a hole that was filled, and less it that of an island that was dropped.
SPECK_LOGIT = np.float32(0.1)


def linear_interpolation(
    n_in: int, n_out: int, start: float = 0.0, stop: float | None = None, within: slice | None = None
) -> np.ndarray:
    """Matrix that resamples `n_in` samples to `n_out` by linear interpolation.

    Samples are cell centres and edges are clamped, as in
    ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.

    Parameters
    ----------
    n_in, n_out : int
    start, stop : float
        Part of the input, in input cells, that the output covers; all of it by default.
    within : slice, optional
        Samples that count, in whose place beyond them the nearest one stands; all by default.

    Returns
    -------
    (n_out, n_in) float32
    """
    stop = float(n_in) if stop is None else stop
    position = start + (np.arange(n_out) + 0.5) * ((stop - start) / max(n_out, 1)) - 0.5
    first, end, _ = (within or slice(n_in)).indices(n_in)
    position = np.clip(position, first, max(first, end - 1))
    lower = np.minimum(np.floor(position).astype(np.int64), max(n_in - 2, 0))
    upper = np.minimum(lower + 1, n_in - 1)
    weight = position - lower
    matrix = np.zeros((n_out, n_in), dtype=np.float32)
    rows = np.arange(n_out)
    np.add.at(matrix, (rows, lower), (1.0 - weight).astype(np.float32))
    np.add.at(matrix, (rows, upper), weight.astype(np.float32))
    return matrix


@dataclass(frozen=True, eq=False)
class LogitsGrid:
    """Where a decoder's logits lie in the image, and how they reach its pixels.

    A pixel window of the image starting at `origin` is ``rows @ logits @ cols.T``.
    Two resizings in a row, as SAM needs, are one product of matrices.

    Attributes
    ----------
    image_shape : (H, W)
    origin : (y0, x0)
        First pixel of the window; everything outside the window is background.
    rows : (H', h) float32
    cols : (W', w) float32
    """

    image_shape: tuple[int, int]
    origin: tuple[int, int]
    rows: np.ndarray
    cols: np.ndarray

    def upsample(self, logits: np.ndarray) -> np.ndarray:
        """Resample (h, w) logits to the window, (H', W') float32."""
        return self.rows @ logits @ self.cols.T

    def logits_patch(self, logits: np.ndarray) -> tuple[Box, np.ndarray]:
        """Return the tight box (y0, x0, y1, x1) of ``logits > 0`` and the resampled logits inside it.

        Only the part of the window that can be inside is resampled. An empty
        mask has the box (0, 0, 0, 0) and the shape (0, 0).
        """
        inside = logits > 0
        near_rows = np.flatnonzero(self.rows @ inside.any(axis=1).astype(np.float32))
        near_cols = np.flatnonzero(self.cols @ inside.any(axis=0).astype(np.float32))
        empty = (0, 0, 0, 0), np.zeros((0, 0), dtype=np.float32)
        if near_rows.size == 0 or near_cols.size == 0:
            return empty
        top, left = int(near_rows[0]), int(near_cols[0])
        fine = self.rows[top : near_rows[-1] + 1] @ logits @ self.cols[left : near_cols[-1] + 1].T
        y0, x0, y1, x1 = bounding_box(fine > 0)
        if y0 == y1:
            return empty
        dy, dx = self.origin[0] + top, self.origin[1] + left
        return (y0 + dy, x0 + dx, y1 + dy, x1 + dx), fine[y0:y1, x0:x1]

    def patch(self, logits: np.ndarray) -> tuple[Box, np.ndarray]:
        """Return the tight box (y0, x0, y1, x1) of a mask and the bool mask inside it; see `logits_patch`."""
        box, inside = self.logits_patch(logits)
        return box, inside > 0


def bounding_box(mask: np.ndarray) -> Box:
    """Tight half-open box (y0, x0, y1, x1) of a boolean mask; zeros when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    cols = np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def paste(shape: tuple[int, int], box: Box, patch: np.ndarray) -> np.ndarray:
    """Put a mask's patch back into an otherwise empty (H, W) mask."""
    mask = np.zeros(shape, dtype=bool)
    mask[box[0] : box[2], box[1] : box[3]] = patch
    return mask


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logistic function that does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


@dataclass(frozen=True, eq=False)
class Candidates:
    """The masks that one prompt may mean.

    Attributes
    ----------
    logits : (K, h, w) float32
        Mask logits at the decoder's resolution.
    scores : (K,) float32
        Predicted IoU of each mask.
    grid : LogitsGrid
        How the logits reach the image's pixels.
    presence : float
        Logit of "the object is in this image", where the model says.
    """

    logits: np.ndarray
    scores: np.ndarray
    grid: LogitsGrid
    presence: float = np.inf

    @cached_property
    def masks(self) -> np.ndarray:
        """(K, H, W) bool, every candidate at the image's resolution."""
        return np.stack([self.mask(k) for k in range(len(self.scores))])

    def patch(self, index: int) -> tuple[Box, np.ndarray]:
        """Tight box and mask of candidate `index`; see `LogitsGrid.patch`."""
        return self.grid.patch(self.logits[index])

    def mask(self, index: int) -> np.ndarray:
        """(H, W) bool, candidate `index` at the image's resolution."""
        return paste(self.grid.image_shape, *self.patch(index))

    @property
    def best(self) -> np.ndarray:
        """(H, W) bool, the candidate with the highest score."""
        return self.select("highest")

    @cached_property
    def best_index(self) -> int:
        """Index of the candidate with the highest score."""
        return self.index("highest")

    def index(self, strategy: Strategy = "highest") -> int:
        """Index of the candidate that a strategy chooses.

        Parameters
        ----------
        strategy : {"highest", "balanced", "largest", "smallest"}
            Highest score; score tempered by how much of the largest candidate
            the mask covers; largest or smallest area that is not empty.
        """
        areas = (self.logits > 0).sum(axis=(1, 2)).astype(np.float64)
        filled = areas > 0
        if strategy == "highest" or not filled.any():
            return int(np.argmax(self.scores))
        if strategy == "balanced":
            return int(np.argmax(self.scores * np.sqrt(areas / areas.max())))
        if strategy == "largest":
            return int(np.argmax(areas))
        if strategy == "smallest":
            return int(np.argmin(np.where(filled, areas, np.inf)))
        raise ValueError(f'Unknown strategy {strategy!r}; use "highest", "balanced", "largest" or "smallest".')

    def select(self, strategy: Strategy = "highest") -> np.ndarray:
        """(H, W) bool, the candidate that `strategy` chooses; see `index`."""
        return self.mask(self.index(strategy))

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """(H, W) float32 in 0-1: 1 where the candidates are split, 0 where they agree surely.

        ``4 p (1 - p)`` of the mean foreground probability p, weighted by score.
        """
        weights = np.clip(self.scores, 1e-3, None)
        p = np.average(sigmoid(self.logits), axis=0, weights=weights)
        full = np.zeros(self.grid.image_shape, dtype=np.float32)
        window = self.grid.upsample((4.0 * p * (1.0 - p)).astype(np.float32))
        y0, x0 = self.grid.origin
        full[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window
        return full

    def stability(self, offset: float = 1.0) -> np.ndarray:
        """(K,) share of the mask that survives when the threshold moves by `offset`.

        Area of ``logits > offset`` over area of ``logits > -offset``, at the
        decoder's resolution; 0 for an empty mask (segment-anything's stability score).
        """
        inner = (self.logits > offset).sum(axis=(1, 2))
        outer = (self.logits > -offset).sum(axis=(1, 2))
        return inner / np.maximum(outer, 1)


def remove_small_parts(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Fill holes and drop islands smaller than `min_area` pixels; the largest island stays."""
    from scipy import ndimage

    if min_area <= 0 or not mask.any():
        return mask
    holes, n_holes = ndimage.label(~mask)
    if n_holes:
        small = np.bincount(holes.ravel()) < min_area
        small[0] = False
        # A patch of background that reaches the edge is not a hole.
        edge = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
        small[edge] = False
        mask = mask | small[holes]
    islands, n_islands = ndimage.label(mask, structure=np.ones((3, 3)))
    if n_islands > 1:
        areas = np.bincount(islands.ravel())
        areas[0] = 0
        keep = areas >= min_area
        keep[int(np.argmax(areas))] = True
        keep[0] = False
        mask = keep[islands]
    return mask


def clear_specks(logits: np.ndarray, area: int) -> np.ndarray:
    """Fill holes and drop islands of at most `area` cells in mask logits (h, w), as SAM 3 does.

    An island stays if it is more than half of the mask. What changes becomes
    barely inside or outside.
    """
    from scipy import ndimage

    if area <= 0:
        return logits

    def sizes(where: np.ndarray) -> np.ndarray:
        """Size of the part that each cell belongs to, 0 elsewhere."""
        parts, _ = ndimage.label(where, structure=np.ones((3, 3)))
        counts = np.bincount(parts.ravel())
        counts[0] = 0
        return counts[parts]

    hole = sizes(logits <= 0)
    logits = np.where((hole > 0) & (hole <= area), SPECK_LOGIT, logits)
    island = sizes(logits > 0)
    return np.where((island > 0) & (island <= min(area, int((logits > 0).sum()) // 2)), -SPECK_LOGIT, logits)


def interior_point(mask: np.ndarray) -> tuple[int, int]:
    """Pixel (y, x) deepest inside a non-empty mask: the maximum of its distance transform."""
    from scipy import ndimage

    y0, x0, y1, x1 = bounding_box(mask)
    depth = ndimage.distance_transform_edt(np.pad(mask[y0:y1, x0:x1], 1))
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(y) - 1 + y0, int(x) - 1 + x0


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 when both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
