"""Transmitted light: phase contrast with halos, brightfield and DIC; bacteria, yeast, cells; colour histology."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, smooth_noise, texture
from napari_segany.training.generate.fluorescence import Drawn, scatter_blobs
from napari_segany.training.generate.optics import blur, camera, soft, uneven
from napari_segany.training.generate.shapes import depth_of, draw, per_object, rod, tidy


def bacteria(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Rods alone, in rows and in packed colonies, dark with bright halos or the inverse."""
    width = log_uniform(rng, 4, 22)
    labels = np.zeros(shape, dtype=np.int32)
    dense = chance(rng, 0.6)
    common = rng.uniform(0, np.pi)
    field = smooth_noise(rng, shape, log_uniform(rng, 3, 12) * width)
    count = int(np.clip((1.6 if dense else rng.uniform(0.1, 0.5)) * shape[0] * shape[1] / (3.5 * width**2), 3, 400))
    longest = log_uniform(rng, 2.0, 8.0)
    for value in range(1, count + 1):
        centre = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        if dense and field[int(centre[0]), int(centre[1])] < -0.3:
            continue
        # Neighbours in a colony lie side by side.
        angle = common + (1.2 * field[int(centre[0]), int(centre[1])] if dense else rng.uniform(0, np.pi))
        length = width * rng.uniform(1.4, longest)
        shape_of_one = rod(rng, centre, length, width * rng.uniform(0.8, 1.15), rng.normal(0, 0.3), angle)
        draw(labels, shape_of_one, value, below=True, most_covered=0.12 if dense else 0.05)
    labels = tidy(labels, int(width**2))
    depth = depth_of(labels)
    inside = soft(depth, width * rng.uniform(0.15, 0.5))
    image = -inside * per_object(rng, labels, 0.6, 1.0) * (1 + 0.15 * texture(rng, shape, max(2.0, width / 2)))
    halo = np.exp(-(((depth + 0.25 * width) / (width * rng.uniform(0.2, 0.6))) ** 2)) * (depth < 0)
    image = image + rng.uniform(0.0, 1.2) * halo
    if chance(rng, 0.4):
        image = image + rng.uniform(0.1, 0.5) * soft(depth - 0.3 * width, width / 3)  # brighter middle
    image = image + 0.15 * rng.random() * texture(rng, shape, log_uniform(rng, 3, 30))
    image = blur(image * rng.choice([1, 1, 1, -1]), log_uniform(rng, 0.3, width / 6 + 0.3))
    return camera(rng, uneven(rng, image + 2, rng.uniform(0, 0.2)) - 2, log_uniform(rng, 0.01, 0.3)), labels


def phase_cells(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Cells and yeast in phase contrast or brightfield: a rim, a halo, grainy insides."""
    radius = log_uniform(rng, 6, 42)
    stretch = rng.uniform(0, 0.25)
    labels = scatter_blobs(rng, shape, radius, rng.uniform(0.85, 1.4), stretch, rng.uniform(0.2, 1.0))
    depth = depth_of(labels)
    rim = log_uniform(rng, 0.8, 4)
    image = rng.normal(0, 0.4) * soft(depth, rim) * per_object(rng, labels, 0.5, 1.0)
    image = image + rng.choice([-1, 1]) * np.exp(-((depth / rim) ** 2))
    image = image + rng.uniform(-0.3, 1.0) * np.exp(-(((depth + 2 * rim) / (2 * rim)) ** 2)) * (depth < 0)
    image = image + rng.uniform(0.1, 0.6) * soft(depth, rim) * texture(rng, shape, max(2.0, radius / 4))
    image = image + rng.uniform(0, 0.25) * texture(rng, shape, log_uniform(rng, 2, 20))
    image = blur(image, log_uniform(rng, 0.4, 2))
    return camera(rng, uneven(rng, image + 2, rng.uniform(0, 0.3)) - 2, log_uniform(rng, 0.01, 0.3)), labels


def dic_cells(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Differential interference contrast: the slope of the thickness in one direction."""
    radius = log_uniform(rng, 8, 42)
    labels = scatter_blobs(rng, shape, radius, rng.uniform(0.9, 1.3), rng.uniform(0, 0.2), rng.uniform(0.2, 1.0))
    thick = np.sqrt(np.clip(depth_of(labels), 0, radius) / radius)
    thick = blur(thick + 0.08 * texture(rng, shape, max(2.0, radius / 4)), log_uniform(rng, 0.8, 2.5))
    along_y, along_x = np.gradient(thick)
    angle = rng.uniform(0, 2 * np.pi)
    image = (np.cos(angle) * along_x + np.sin(angle) * along_y) * radius / 3
    return camera(rng, uneven(rng, image + 2, rng.uniform(0, 0.2)) - 2, log_uniform(rng, 0.01, 0.2)), labels


def histology(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Haematoxylin and eosin: purple nuclei on pink fibrous ground, mixed by absorption (Ruifrok 2001)."""
    radius = log_uniform(rng, 4, 24)
    labels = scatter_blobs(rng, shape, radius, rng.uniform(0.7, 1.2), rng.uniform(0.05, 0.25), rng.uniform(0.2, 1.2))
    inside = soft(depth_of(labels), log_uniform(rng, 1, 4))
    blue = inside * per_object(rng, labels, 0.35, 1.1) * (1 + 0.3 * texture(rng, shape, max(2.0, radius / 3)))
    blue = blue + rng.uniform(0, 0.25) * texture(rng, shape, log_uniform(rng, 5, 40)).clip(0)
    ground = 0.35 + 0.25 * texture(rng, shape, log_uniform(rng, 6, 60), 4)
    holes = smooth_noise(rng, shape, log_uniform(rng, 20, 80)) > rng.uniform(0.8, 2.5)
    pink = np.where(holes & (labels == 0), 0.03, ground.clip(0.03)) * rng.uniform(0.5, 1.3)
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]) + rng.normal(0, 0.06, (2, 3))
    density = blur(blue, 0.7)[..., None] * stains[0] * rng.uniform(0.8, 1.8) + pink[..., None] * stains[1] * 0.6
    light = np.exp(-density.clip(0)) * rng.uniform(0.85, 1.0, 3)
    light = light + log_uniform(rng, 0.003, 0.06) * rng.standard_normal(light.shape)
    light = np.stack([blur(light[..., c], 0.5) for c in range(3)], axis=-1)
    return (255 * light.clip(0, 1)).astype(np.uint8), labels
