"""Many objects of one image: boxes, scores, masks and the label image they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from napari_segany.core.boxes import Box, box_iou, meeting
from napari_segany.core.masks import paste

#: A mask as its tight box and what is inside it.
Found = tuple[Box, np.ndarray]
#: Side of the cells by which neighbours are looked up, pixels.
CELL = 256


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects found in one image; object `i` has the label ``i + 1``.

    Attributes
    ----------
    shape : (H, W)
    boxes : (N, 4) int64
        Tight boxes (y0, x0, y1, x1), half-open; zeros for an empty mask.
    patches : N arrays of bool
        Each object's mask inside its box.
    scores : (N,) float32
    features : (N, D) float32 or None
        What each object looks like to the model that found it, for telling objects apart.
    """

    shape: tuple[int, int]
    boxes: np.ndarray
    patches: Sequence[np.ndarray]
    scores: np.ndarray
    features: np.ndarray | None = None

    @classmethod
    def from_patches(
        cls,
        shape: tuple[int, int],
        found: Sequence[Found],
        scores: Sequence[float] | np.ndarray,
        features: np.ndarray | None = None,
    ) -> Instances:
        """Build from (box, mask inside the box) pairs, as `Candidates.patch` gives them."""
        boxes = np.array([box for box, _ in found], dtype=np.int64).reshape(-1, 4)
        return cls(shape, boxes, [patch for _, patch in found], np.asarray(scores, dtype=np.float32), features)

    def __len__(self) -> int:
        return len(self.patches)

    def found(self) -> list[Found]:
        """(box, mask inside the box) of each object."""
        boxes: list[Box] = [(int(y0), int(x0), int(y1), int(x1)) for y0, x0, y1, x1 in self.boxes]
        return list(zip(boxes, self.patches, strict=True))

    def take(self, which: Sequence[int] | np.ndarray) -> Instances:
        """Some of the objects, by number, in the order given."""
        features = None if self.features is None else self.features[which]
        return Instances(self.shape, self.boxes[which], [self.patches[i] for i in which], self.scores[which], features)

    def placed(self, shape: tuple[int, int], origin: tuple[int, int]) -> Instances:
        """The same objects in an image (H, W), of which this one begins at `origin` (y, x)."""
        boxes = self.boxes + np.where(self.boxes[:, 2:3] > self.boxes[:, :1], np.tile(origin, 2), 0)
        return Instances(shape, boxes, self.patches, self.scores, self.features)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) bool, the whole mask of one object, overlaps included."""
        y0, x0, y1, x1 = (int(v) for v in self.boxes[index])
        return paste(self.shape, (y0, x0, y1, x1), self.patches[index])

    @cached_property
    def labels(self) -> np.ndarray:
        """(H, W) int32, 0 is background; where objects overlap, the higher score wins."""
        return self.labels_in((0, 0, *self.shape))

    def labels_in(self, window: Box) -> np.ndarray:
        """`labels` of a window (y0, x0, y1, x1) of the image."""
        top, left, bottom, right = window
        labels = np.zeros((bottom - top, right - left), dtype=np.int32)
        near = (self.boxes[:, :2] < window[2:]).all(axis=1) & (self.boxes[:, 2:] > window[:2]).all(axis=1)
        for index in np.flatnonzero(near)[np.argsort(self.scores[near], kind="stable")]:
            y0, x0, y1, x1 = (int(v) for v in self.boxes[index])
            rows, cols = slice(max(y0, top), min(y1, bottom)), slice(max(x0, left), min(x1, right))
            inside = self.patches[index][rows.start - y0 : rows.stop - y0, cols.start - x0 : cols.stop - x0]
            labels[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left][inside] = index + 1
        return labels


def common_pixels(first: Found, second: Found) -> int:
    """Pixels that two masks share."""
    (box, patch), (other_box, other_patch) = first, second
    shared = meeting(box, other_box)
    if shared is None:
        return 0
    y0, x0, y1, x1 = shared
    mine = patch[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]]
    other = other_patch[y0 - other_box[0] : y1 - other_box[0], x0 - other_box[1] : x1 - other_box[1]]
    return int(np.count_nonzero(mine & other))


def found_iou(first: Found, second: Found) -> float:
    """IoU of two masks; 0 where both are empty."""
    common = common_pixels(first, second)
    return common / max(int(np.count_nonzero(first[1]) + np.count_nonzero(second[1])) - common, 1)


def best_of_overlapping(
    found: Sequence[Found], scores: np.ndarray, threshold: float, contained: float = 1.0
) -> list[int]:
    """Choose among masks that overlap.

    Parameters
    ----------
    found : N masks
    scores : (N,)
    threshold : float
        A mask goes when a better one overlaps it with a higher IoU.
    contained : float
        It also goes when a larger share of it lies in a better one, or of a better one in it.

    Returns
    -------
    indices of the masks kept, best score first; empty masks go
    """
    areas = np.array([np.count_nonzero(patch) for _, patch in found])
    kept: list[int] = []
    # Kept masks by the cells of a grid that their boxes touch: of a large image, few are near each other.
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in np.argsort(-scores, kind="stable"):
        if not areas[index]:
            continue
        touched = list(_cells(found[index][0]))
        candidates = sorted({k for cell in touched for k in cells.get(cell, ())})
        near = np.array([k for k in candidates if meeting(found[index][0], found[k][0])], dtype=np.int64)
        shared = np.array([common_pixels(found[index], found[k]) for k in near])
        union, smaller = areas[index] + areas[near] - shared, np.minimum(areas[index], areas[near])
        if not ((shared > threshold * union) | (shared > contained * smaller)).any():
            kept.append(int(index))
            for cell in touched:
                cells[cell].append(int(index))
    return kept


def _cells(box: Box) -> Iterator[tuple[int, int]]:
    y0, x0, y1, x1 = (v // CELL for v in box)
    return product(range(y0, y1 + 1), range(x0, x1 + 1))


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes kept, best score first.

    A box goes when a better one overlaps it with an IoU above `threshold`.
    One row of IoUs at a time keeps the memory linear in the number of boxes.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        order = rest[box_iou(boxes[best], boxes[rest]) <= threshold]
    return np.array(kept, dtype=np.int64)
