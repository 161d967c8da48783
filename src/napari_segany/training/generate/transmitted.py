"""Transmitted light: phase contrast with halos, brightfield and DIC; yeast, cells; colour histology."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, smooth_noise, texture, warp
from napari_segany.training.generate.fluorescence import Drawn, scatter_blobs
from napari_segany.training.generate.optics import blur, camera, phase_contrast, soft, specks, uneven
from napari_segany.training.generate.shapes import depth_of, per_object, tidy


def phase_cells(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Cells and yeast in phase contrast or brightfield: a rim, a halo, grainy insides."""
    radius = log_uniform(rng, 6, 42)
    stretch = rng.uniform(0, 0.25)
    labels = scatter_blobs(rng, shape, radius, rng.uniform(0.85, 1.4), stretch, rng.uniform(0.2, 1.0))
    if chance(rng, 0.35):
        labels = tidy(warp(rng, labels, rng.uniform(0.1, 0.4) * radius, rng.uniform(0.5, 1.5) * radius), 20)
    depth = depth_of(labels)
    rim = log_uniform(rng, 0.8, 4)
    grain = texture(rng, shape, max(2.0, radius / 4))
    if chance(rng, 0.4):
        inside = soft(depth, rim) * (1 + rng.uniform(0, 0.4) * grain) * per_object(rng, labels, 0.5, 1.0)
        image = rng.choice([1, 1, -1]) * phase_contrast(inside, rng.uniform(0.2, 1.2), log_uniform(rng, 2, radius))
    else:
        image = rng.normal(0, 0.4) * soft(depth, rim) * per_object(rng, labels, 0.5, 1.0)
        image = image + rng.choice([-1, 1]) * np.exp(-((depth / rim) ** 2))
        image = image + rng.uniform(-0.3, 1.0) * np.exp(-(((depth + 2 * rim) / (2 * rim)) ** 2)) * (depth < 0)
        image = image + rng.uniform(0.1, 0.6) * soft(depth, rim) * grain
    if chance(rng, 0.3):
        image = image + rng.uniform(-0.4, 0.4) * specks(rng, shape, 0.001, log_uniform(rng, 0.8, 3), rng.uniform(0, 1))
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
