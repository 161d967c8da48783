"""Shapes and label images: blobs and rods drawn in local windows, packing, growing, tidying, distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_segany.training.generate.fields import Rng, warp


@dataclass(frozen=True)
class Shape:
    """A shape drawn in a window of the image.

    Attributes
    ----------
    corner : (y, x)
        Pixel of the image at the window's first element; may lie outside.
    depth : (h, w) float32
        About the distance to the outline in pixels, positive inside.
    """

    corner: tuple[int, int]
    depth: np.ndarray

    def within(self, shape: Sequence[int]) -> tuple[tuple[slice, slice], np.ndarray]:
        """The part inside an image of the given shape: its slices and its depth."""
        (y, x), (h, w) = self.corner, self.depth.shape
        y0, x0 = min(max(y, 0), shape[0]), min(max(x, 0), shape[1])
        y1, x1 = max(min(y + h, shape[0]), y0), max(min(x + w, shape[1]), x0)
        inside = self.depth[max(y0 - y, 0) : max(y0 - y, 0) + y1 - y0, max(x0 - x, 0) : max(x0 - x, 0) + x1 - x0]
        return (slice(y0, y1), slice(x0, x1)), inside


def _window(centre: Sequence[float], reach: float) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    corner = (int(np.floor(centre[0] - reach)), int(np.floor(centre[1] - reach)))
    n = int(np.ceil(2 * reach)) + 2
    axis = np.arange(n, dtype=np.float32)
    return corner, (axis + (corner[0] - centre[0]))[:, None], (axis + (corner[1] - centre[1]))[None, :]


def blob(
    rng: Rng,
    centre: Sequence[float],
    radius: float,
    stretch: float = 1.0,
    rough: float = 0.0,
    angle: float | None = None,
) -> Shape:
    """An ellipse of mean `radius` and axis ratio `stretch`, its outline moved by a few waves of size `rough`."""
    corner, y, x = _window(centre, radius * np.sqrt(stretch) * (1 + 1.6 * rough) + 1)
    angle = rng.uniform(0, np.pi) if angle is None else angle
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = (c * x + s * y) / np.float32(np.sqrt(stretch)), (c * y - s * x) * np.float32(np.sqrt(stretch))
    distance = np.hypot(u, v)
    outline: np.ndarray | np.float32 = np.float32(radius)
    if rough > 0:
        theta = np.arctan2(v, u)
        waves = sum(rng.normal(0, 1.0 / k) * np.cos(k * theta + np.float32(rng.uniform(0, 7))) for k in range(2, 6))
        outline = np.float32(radius) * np.clip(1 + np.float32(rough) * waves, 0.4, 1.6).astype(np.float32)
    return Shape(corner, (outline - distance).astype(np.float32))


def rod(
    rng: Rng, centre: Sequence[float], length: float, width: float, bend: float = 0.0, angle: float | None = None
) -> Shape:
    """A capsule of total `length` and `width`; its spine turns by about `bend` radians from end to end."""
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    spine = max(length - width, 0.1)
    n = max(2, int(np.ceil(spine / width)) + 1) if bend else 2
    heading = angle + np.cumsum(rng.normal(bend / n, abs(bend) / np.sqrt(n), n - 1)) if bend else np.array([angle])
    steps = np.stack([np.sin(heading), np.cos(heading)], axis=1) * (spine / (n - 1))
    points = np.vstack([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    corner, y, x = _window(centre, float(np.abs(points).max()) + width / 2 + 1)
    distance = np.full((y.size, x.size), np.inf, dtype=np.float32)
    for p, q in zip(points[:-1].astype(np.float32), points[1:].astype(np.float32), strict=True):
        dy, dx = q - p
        along = np.clip(((y - p[0]) * dy + (x - p[1]) * dx) / (dy * dy + dx * dx + 1e-6), 0, 1)
        np.minimum(distance, np.hypot(y - p[0] - along * dy, x - p[1] - along * dx), out=distance)
    return Shape(corner, np.float32(width / 2) - distance)


def draw(labels: np.ndarray, shape: Shape, value: int, below: bool = False, most_covered: float = 1.0) -> bool:
    """Write a shape into labels, over or below what is there; refuse if more than a share is covered."""
    where, depth = shape.within(labels.shape)
    inside = depth > 0
    total = int(inside.sum())
    if total == 0:
        return False
    window = labels[where]
    covered = inside & (window > 0)
    if covered.sum() > most_covered * total:
        return False
    window[inside & ~covered if below else inside] = value
    return True


def pack(
    rng: Rng, shape: Sequence[int], radii: np.ndarray, gap: float = 1.0, density: np.ndarray | None = None
) -> np.ndarray:
    """Throw discs into an image, keeping those at least ``gap * (r1 + r2)`` from all before.

    Parameters
    ----------
    radii : (N,) float
        One throw each, in this order.
    density : array of the image's shape, optional
        Throws land only where it is positive.

    Returns
    -------
    (M, len(shape) + 1) float
        Centre and radius of the discs kept; centres may lie up to a radius outside.
    """
    centres = rng.uniform(-0.5, 0.5, (len(radii), len(shape))) * (np.asarray(shape) + radii[:, None])
    centres += np.asarray(shape) / 2
    if density is not None:
        index = np.clip(centres, 0, np.asarray(shape) - 1).astype(np.int64)
        keep = density[tuple(index.T)] > 0
        centres, radii = centres[keep], radii[keep]
    kept = np.empty((len(radii), len(shape) + 1))
    count = 0
    for centre, radius in zip(centres, radii, strict=True):
        apart = ((kept[:count, :-1] - centre) ** 2).sum(axis=1)
        if count == 0 or np.all(apart > (gap * (kept[:count, -1] + radius)) ** 2):
            kept[count, :-1], kept[count, -1] = centre, radius
            count += 1
    return kept[:count]


def grow(labels: np.ndarray, reach: float = np.inf) -> np.ndarray:
    """Give every background pixel within `reach` the label nearest to it."""
    from scipy.ndimage import distance_transform_edt

    distance, nearest = distance_transform_edt(labels == 0, return_indices=True)
    grown = labels[tuple(nearest)]
    return np.where(distance <= reach, grown, 0) if np.isfinite(reach) else grown


def edges(labels: np.ndarray) -> np.ndarray:
    """True at pixels with another label just before or after along any axis."""
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        a = np.moveaxis(labels, axis, 0)
        e = np.moveaxis(edge, axis, 0)
        differs = a[1:] != a[:-1]
        e[1:] |= differs
        e[:-1] |= differs
    return edge


def depth_of(labels: np.ndarray) -> np.ndarray:
    """Distance in pixels to the nearest outline of any object: positive inside, negative in the background."""
    from scipy.ndimage import distance_transform_edt

    edge = edges(labels)
    if not edge.any():
        return np.where(labels > 0, 1e3, -1e3).astype(np.float32)
    distance = distance_transform_edt(~edge).astype(np.float32) + np.float32(0.5)
    return np.where(labels > 0, distance, -distance)


def mosaic(
    rng: Rng,
    shape: tuple[int, int],
    size: float,
    spread: float = 0.5,
    stretch: float = 1.0,
    waviness: float = 0.15,
    ragged: float = 1.0,
) -> np.ndarray:
    """Fill an image with cells of about `size` pixels across that touch along curved walls.

    Discs and streaks of very different sizes are packed, grown until they meet
    and warped. `spread` is the deviation of the log of the sizes,
    `ragged` how far short waves move the walls.
    """
    pad = int(np.ceil(3 * waviness * size)) + 2
    big = (shape[0] + 2 * pad, shape[1] + 2 * pad)
    throws = int(np.clip(4 * big[0] * big[1] / size**2, 8, 3000))
    radii = np.sort(size * np.exp(rng.normal(0, spread, throws)))[::-1] * 0.35
    labels = np.zeros(big, dtype=np.int32)
    discs = pack(rng, big, np.minimum(radii, 0.45 * max(shape)), gap=1.1)
    angle = rng.uniform(0, np.pi)
    for value, (y, x, r) in enumerate(discs, start=1):
        longer = 1 + (stretch - 1) * rng.random()
        if longer > 1.05 or r > 4:
            draw(labels, blob(rng, (y, x), 0.7 * r, longer, 0.15, angle + rng.normal(0, 0.5)), value, below=True)
        else:
            labels[int(np.clip(y, 0, big[0] - 1)), int(np.clip(x, 0, big[1] - 1))] = value
    labels = grow(labels)
    labels = warp(rng, labels, waviness * size * 0.7, size * 0.6)
    labels = warp(rng, labels, ragged * min(0.05 * size, 3.0), max(size * 0.15, 2.0))
    return labels[pad:-pad, pad:-pad]


def joined(rng: Rng, cells: np.ndarray, share: float) -> np.ndarray:
    """Join a share of all pairs of neighbours: what is left is bent, forked and lies about others."""
    touching = [
        np.stack([cells[1:], cells[:-1]]).reshape(2, -1),
        np.stack([cells[:, 1:], cells[:, :-1]]).reshape(2, -1),
    ]
    pairs = np.concatenate(touching, axis=1)
    pairs = np.unique(pairs[:, pairs[0] != pairs[1]], axis=1).T
    name = np.arange(cells.max() + 1, dtype=cells.dtype)
    for first, second in rng.permutation(pairs)[: int(share * name.size)]:
        name[second] = name[first]
    return name[cells]


def tidy(labels: np.ndarray, smallest: int = 9) -> np.ndarray:
    """Connected parts of at least `smallest` pixels, numbered from 1, int32; a label in two parts becomes two."""
    from skimage.measure import label

    parts = label(labels, connectivity=1, background=0)
    counts = np.bincount(parts.ravel())
    keep = counts >= smallest
    keep[0] = False
    number = np.zeros(len(counts), dtype=np.int32)
    number[keep] = np.arange(1, keep.sum() + 1)
    return number[parts]


def per_object(rng: Rng, labels: np.ndarray, low: float, high: float) -> np.ndarray:
    """An image in which every object (and the background) has one number drawn from [low, high), float32."""
    return rng.uniform(low, high, int(labels.max()) + 1).astype(np.float32)[labels]
