"""Volumes from which it is learned to draw whole objects: deeper, more uneven and more bent than other stacks."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, smooth_noise
from napari_segany.training.generate.fluorescence import Drawn
from napari_segany.training.generate.shapes import edges, grow, pack
from napari_segany.training.generate.stacks import (
    Shape3D,
    axial_blur,
    brightness,
    nuclei_3d,
    number,
    record,
    see,
)


def tissue_3d(rng: Rng, shape: Shape3D, anisotropy: float, radius: tuple[float, float]) -> Drawn:
    """Cells of very different sizes that touch along curved walls, in light from out of focus.

    A pixel belongs to the cell whose surface, a ball of its own radius, is
    nearest (a Voronoi diagram with additive weights). See `nuclei_3d` for
    the parameters.
    """
    from scipy.ndimage import distance_transform_edt

    depth, height, width = shape
    small, large = radius
    stretch, roundness = log_uniform(rng, 1, 2.2), rng.uniform(0, 1)
    spacing = np.array([anisotropy, stretch, 1.0])
    room = (int(depth * anisotropy), int(height * stretch), width)
    labels, nearest = np.zeros(shape, dtype=np.int32), np.full(shape, np.inf, dtype=np.float32)
    axes = [np.arange(n, dtype=np.float32) * step for n, step in zip(shape, spacing, strict=True)]
    for value, (*centre, size) in enumerate(pack(rng, room, rng.uniform(small, large, 600), gap=0.95), start=1):
        window = tuple(
            slice(max(0, int((c - 3 * large) / step)), max(0, int((c + 3 * large) / step) + 1))
            for c, step in zip(centre, spacing, strict=True)
        )
        z, y, x = np.ix_(*(axis[part] - c for axis, part, c in zip(axes, window, centre, strict=True)))
        away = np.sqrt(z**2 + y**2 + x**2) - np.float32(roundness * size)
        wins = away < nearest[window]
        labels[window][wins], nearest[window][wins] = value, away[wins]
    labels = number(grow(labels))
    away = distance_transform_edt(~edges(labels), sampling=tuple(spacing))
    stain = np.exp(rng.uniform(0, 0.8) * smooth_noise(rng, shape, (4, 15, 15)))
    inside = brightness(rng, labels, 0.0, rng.uniform(0, 0.7) if chance(rng, 0.6) else 0.0)
    inside = inside * (1 + rng.uniform(0, 0.4) * smooth_noise(rng, shape, (1.5, 3, 3))).clip(0)
    image = np.maximum(np.exp(-((away / log_uniform(rng, 0.8, 0.45 * small)) ** 2)) * stain, inside)
    psf = log_uniform(rng, 0.3, 0.25 * small)
    along = axial_blur(rng, psf, anisotropy)
    seen = see(image, psf, along)
    if chance(rng, 0.5):
        seen = seen + rng.uniform(0, 0.5) * see(image, 3 * psf + 2, 3 * along + 1)
    return record(rng, (seen + 0.06).astype(np.float32), log_uniform(rng, 0.006, 0.2)), labels


def bent(rng: Rng, drawn: Drawn, amount: float, scale: tuple[float, float, float]) -> Drawn:
    """Move what is drawn in its planes by smooth noise of deviation `amount` pixels that changes over `scale`."""
    from scipy.ndimage import map_coordinates

    image, labels = drawn
    grid = np.indices(image.shape, dtype=np.float32)
    grid[1:] += amount * np.stack([smooth_noise(rng, image.shape, scale) for _ in (1, 2)])
    return map_coordinates(image, grid, order=1, mode="nearest"), map_coordinates(labels, grid, order=0, mode="nearest")


def deep(rng: Rng) -> Drawn:
    """A volume of nuclei or tissue."""
    small = log_uniform(rng, 5, 12)
    radius = small, small * rng.uniform(1.2, 1.9)
    anisotropy = log_uniform(rng, 1, 5)
    side = int(np.clip(9 * radius[1], 96, 144))
    shape = int(np.clip(5.5 * radius[1] / anisotropy, 14, 48)), side, side
    if chance(rng, 0.48):
        psf = log_uniform(rng, 0.4, 0.18 * small + 0.3)
        drawn = nuclei_3d(
            rng, shape, anisotropy, radius, rng.uniform(0.75, 1.3), rng.uniform(0.15, 0.8),
            psf, axial_blur(rng, psf, anisotropy), log_uniform(rng, 0.02, 0.5),
        )  # fmt: skip
    else:
        drawn = tissue_3d(rng, shape, anisotropy, (1.2 * radius[0], 1.2 * radius[1] * rng.uniform(1, 1.8)))
    scale = rng.uniform(1, 3) * small
    return bent(rng, drawn, rng.uniform(0, 0.25) * small, (max(1.0, scale / anisotropy), scale, scale))
