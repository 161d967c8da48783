"""Cells that fill the image: tissue with stained walls, and electron micrographs with organelles."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, texture
from napari_segany.training.generate.fluorescence import Drawn
from napari_segany.training.generate.optics import blur, camera, specks, uneven
from napari_segany.training.generate.shapes import blob, depth_of, draw, joined, mosaic, per_object, rod, tidy


def tissue(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Cells with bright or dark walls of varying thickness, some of them faint."""
    size = log_uniform(rng, 12, 90)
    cells = mosaic(rng, shape, size, rng.uniform(0.1, 0.6), rng.uniform(1, 2.5), rng.uniform(0.05, 0.3))
    wall = log_uniform(rng, 0.7, 0.2 * size + 0.8)
    distance = depth_of(cells)
    walls = np.exp(-((distance / wall) ** 2)) * (1 + 0.4 * texture(rng, shape, log_uniform(rng, 5, 40))).clip(0.1)
    image = walls + rng.uniform(0, 0.25) * per_object(rng, cells, 0, 1)
    image = image + rng.uniform(0, 0.25) * texture(rng, shape, log_uniform(rng, 2, 15))
    image = blur(image, log_uniform(rng, 0.4, 0.06 * size + 1)) * rng.choice([1, 1, 1, -1])
    labels = tidy(np.where(distance > 0.6 * wall, cells, 0), 20) if chance(rng, 0.4) else tidy(cells, 20)
    peak = log_uniform(rng, 2, 300) if chance(rng, 0.5) else None
    return camera(rng, uneven(rng, image, rng.uniform(0, 0.4)), log_uniform(rng, 0.01, 0.5), peak), labels


def _neuropil(rng: Rng, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, insides of cells and mitochondria of an electron micrograph; dark is negative."""
    size = log_uniform(rng, 16, 120)
    cells = mosaic(rng, shape, size, rng.uniform(0.4, 1.0), log_uniform(rng, 1, 5), rng.uniform(0.05, 0.25), 0.3)
    cells = joined(rng, cells, rng.uniform(0, 0.4))
    distance = depth_of(cells)
    # Membranes that are cut at a slant are wide and pale; a few cells have sheaths.
    wall = log_uniform(rng, 0.8, 0.03 * size + 2)
    slant = rng.uniform(0, 1.2) * texture(rng, shape, 0.4 * size).clip(0)
    sheath = 1 + rng.uniform(2, 6) * (per_object(rng, cells, 0, 1) > (0.95 if chance(rng, 0.3) else 1))
    walls = np.exp(-((distance / (wall * (1 + slant) * sheath)) ** rng.choice([2, 2, 4]))) / (1 + 0.6 * slant)
    ground = rng.uniform(0, 0.25) * per_object(rng, cells, -1, 1)
    if chance(rng, 0.3):
        ground = ground - rng.uniform(0.1, 0.6) * (per_object(rng, cells, 0, 1) > 0.85)
    image = ground - rng.uniform(0.5, 1.2) * walls
    image = image + rng.uniform(0.02, 0.25) * texture(rng, shape, log_uniform(rng, 2, 10))
    for _ in range(rng.integers(3)):
        vesicle = log_uniform(rng, 0.8, 0.02 * size + 1.5)
        spots = specks(rng, shape, rng.uniform(0.1, 1) / (4 * vesicle) ** 2, vesicle, rng.uniform(0, 1.3))
        image = image - rng.uniform(0.2, 0.8) * spots * (distance > 1.5 * vesicle)
    mitochondria = _mitochondria(rng, shape, distance, wall, size)
    depth = depth_of(mitochondria)
    image = np.where(depth > -1.5, ground + _cristae(rng, mitochondria, depth, wall, size), image)
    image = blur(image, log_uniform(rng, 0.3, 1.6))
    image = camera(rng, uneven(rng, image + 2, rng.uniform(0, 0.15)) - 2, log_uniform(rng, 0.03, 0.4))
    return image, tidy(np.where(walls < 0.6, cells, 0), 20), mitochondria


def _cristae(rng: Rng, labels: np.ndarray, depth: np.ndarray, wall: float, size: float) -> np.ndarray:
    """What mitochondria look like: an outer membrane, a darker inside, and ridges of a direction of their own."""
    body = -rng.uniform(0.1, 0.8) * np.clip(depth / 2 + 0.5, 0, 1) * per_object(rng, labels, 0.7, 1.0)
    y, x = np.indices(labels.shape, dtype=np.float32)
    angle = per_object(rng, labels, 0, np.pi)
    bend = rng.uniform(1, 6) * texture(rng, labels.shape, max(5.0, size / rng.uniform(3, 8)))
    ridges = np.sin((y * np.sin(angle) + x * np.cos(angle) + bend) * 2 * np.pi / log_uniform(rng, 3, 0.1 * size + 4))
    body = body + rng.uniform(0, 0.4) * ridges * (depth > 1)
    body = body + rng.uniform(0, 0.2) * texture(rng, labels.shape, log_uniform(rng, 1.5, 6))
    return body - rng.uniform(0.1, 0.8) * np.exp(-((depth / max(1.0, 0.7 * wall)) ** 2))


def _mitochondria(rng: Rng, shape: tuple[int, int], distance: np.ndarray, wall: float, size: float) -> np.ndarray:
    labels = (distance < wall + 1).astype(np.int32)
    for value in range(2, 2 + int(log_uniform(rng, 10, 120))):
        y, x = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
        radius = min(rng.uniform(0.3, 0.85) * distance[y, x], 0.35 * size)
        if radius < max(3.0, 0.06 * size):
            continue
        if chance(rng, 0.5):
            outline = blob(rng, (y, x), radius, 1 + rng.gamma(1.5, 0.4), rng.uniform(0, 0.2))
        else:
            outline = rod(rng, (y, x), radius * log_uniform(rng, 2.2, 8), 2 * radius * rng.uniform(0.5, 1), 0.5)
        draw(labels, outline, value, below=True, most_covered=0.04)
    return tidy(np.where(labels > 1, labels, 0), 20)


def em_neurites(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Electron micrograph whose cells are labelled."""
    image, cells, _ = _neuropil(rng, shape)
    return image, cells


def em_mitochondria(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Electron micrograph whose mitochondria are labelled."""
    while True:
        image, _, mitochondria = _neuropil(rng, shape)
        if mitochondria.any():
            return image, mitochondria
