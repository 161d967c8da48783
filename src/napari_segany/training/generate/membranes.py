"""Cells that fill the image: tissue with stained walls, and electron micrographs with organelles."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, texture
from napari_segany.training.generate.fluorescence import Drawn
from napari_segany.training.generate.optics import blur, camera, uneven
from napari_segany.training.generate.shapes import blob, depth_of, draw, mosaic, per_object, tidy


def tissue(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Cells with bright or dark walls of varying thickness, some of them faint."""
    size = log_uniform(rng, 12, 90)
    cells = mosaic(rng, shape, size, rng.uniform(0.1, 0.6), rng.uniform(1, 2.5), rng.uniform(0.05, 0.3))
    wall = log_uniform(rng, 0.7, 0.12 * size + 0.8)
    distance = depth_of(cells)
    walls = np.exp(-((distance / wall) ** 2)) * (1 + 0.4 * texture(rng, shape, log_uniform(rng, 5, 40))).clip(0.1)
    image = walls + rng.uniform(0, 0.25) * per_object(rng, cells, 0, 1)
    image = image + rng.uniform(0, 0.25) * texture(rng, shape, log_uniform(rng, 2, 15))
    image = blur(image, log_uniform(rng, 0.4, 2)) * rng.choice([1, 1, 1, -1])
    labels = tidy(np.where(distance > 0.6 * wall, cells, 0), 20) if chance(rng, 0.5) else tidy(cells, 20)
    peak = log_uniform(rng, 2, 300) if chance(rng, 0.5) else None
    return camera(rng, uneven(rng, image, rng.uniform(0, 0.4)), log_uniform(rng, 0.01, 0.5), peak), labels


def _neuropil(rng: Rng, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Image, cells, mitochondria and cell size of an electron micrograph; dark is negative."""
    size = log_uniform(rng, 18, 110)
    cells = mosaic(rng, shape, size, rng.uniform(0.4, 0.9), rng.uniform(1, 3), rng.uniform(0.1, 0.3))
    distance = depth_of(cells)
    wall = log_uniform(rng, 0.7, 0.04 * size + 1.5)
    image = -rng.uniform(0.5, 1.2) * np.exp(-((distance / wall) ** 2)) * (1 + 0.3 * texture(rng, shape, 20)).clip(0.15)
    image = image + rng.uniform(0, 0.3) * per_object(rng, cells, -1, 1)
    image = image + rng.uniform(0.05, 0.35) * texture(rng, shape, log_uniform(rng, 2, 10))
    mitochondria = _mitochondria(rng, shape, cells, size)
    depth = depth_of(mitochondria)
    body = -rng.uniform(0.15, 0.7) * np.clip(depth / 2 + 0.5, 0, 1)
    phase = rng.uniform(0, np.pi)
    y, x = np.indices(shape)
    bend = texture(rng, shape, max(6.0, size / 3))
    ridges = np.sin(
        (y * np.sin(phase) + x * np.cos(phase) + 3 * bend) * 2 * np.pi / log_uniform(rng, 3, 0.1 * size + 4)
    )
    body = body + rng.uniform(0, 0.4) * ridges * (depth > 1)
    body = body - rng.uniform(0.2, 0.8) * np.exp(-((depth / max(1.0, 0.7 * wall)) ** 2))
    image = np.where(depth > -1.5, body, image)
    for _ in range(int(rng.integers(0, 60))):
        y0, x0 = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        where, ring = blob(rng, (y0, x0), log_uniform(rng, 1.5, 0.06 * size + 2)).within(shape)
        image[where] -= rng.uniform(0.2, 0.7) * np.exp(-(ring**2)) * (depth[where] < -2)
    image = blur(image, log_uniform(rng, 0.3, 1.6))
    noise = log_uniform(rng, 0.03, 0.5)
    return camera(rng, uneven(rng, image + 2, rng.uniform(0, 0.3)) - 2, noise), cells, mitochondria, wall


def _mitochondria(rng: Rng, shape: tuple[int, int], cells: np.ndarray, size: float) -> np.ndarray:
    depth = depth_of(cells)
    labels = np.zeros(shape, dtype=np.int32)
    value = 0
    for _ in range(int(rng.integers(12, 120))):
        y, x = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
        radius = rng.uniform(0.35, 0.85) * depth[y, x]
        if radius < max(3.0, 0.06 * size):
            continue
        value += 1
        draw(labels, blob(rng, (y, x), radius, 1 + rng.gamma(1.5, 0.4), rng.uniform(0, 0.2)), value, True, 0.0)
    # Those that reach beyond their cell end at its wall.
    labels[depth < 1.5] = 0
    return tidy(labels, 20)


def em_neurites(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Electron micrograph whose cells are labelled."""
    image, cells, _, wall = _neuropil(rng, shape)
    return image, tidy(np.where(depth_of(cells) > 0.5 * wall, cells, 0), 20)


def em_mitochondria(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Electron micrograph whose mitochondria are labelled."""
    while True:
        image, _, mitochondria, _ = _neuropil(rng, shape)
        if mitochondria.any():
            return image, mitochondria
