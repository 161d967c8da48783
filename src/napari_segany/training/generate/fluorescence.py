"""Fluorescence: nuclei of all kinds, whole cells, small spots; very noisy ones too."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, smooth_noise, texture
from napari_segany.training.generate.optics import blur, camera, soft, uneven
from napari_segany.training.generate.shapes import blob, depth_of, draw, grow, pack, per_object, tidy

Drawn = tuple[np.ndarray, np.ndarray]


def scatter_blobs(rng: Rng, shape: tuple[int, int], radius: float, gap: float, rough: float, fill: float) -> np.ndarray:
    """Labels of blobs packed with discs of about `radius`; `gap` below 1 lets them overlap."""
    throws = int(np.clip(fill * 3 * shape[0] * shape[1] / radius**2, 3, 1500))
    radii = radius * np.exp(rng.normal(0, rng.uniform(0.05, 0.35), throws))
    density = smooth_noise(rng, shape, log_uniform(rng, 30, 150)) + rng.uniform(-0.5, 1.5)
    labels = np.zeros(shape, dtype=np.int32)
    for value, (y, x, r) in enumerate(pack(rng, shape, radii, gap, density), start=1):
        draw(labels, blob(rng, (y, x), r, 1 + rng.gamma(1.5, 0.25), rough), value, below=True, most_covered=0.35)
    return tidy(labels)


def nuclei(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Nuclei, touching and overlapping, with texture, haze and uneven light."""
    radius = log_uniform(rng, 4, 36)
    labels = scatter_blobs(rng, shape, radius, rng.uniform(0.65, 1.2), rng.uniform(0, 0.2), rng.uniform(0.2, 1.2))
    inside = soft(depth_of(labels), log_uniform(rng, 0.5, 3))
    grain = 1 + rng.uniform(0, 0.5) * texture(rng, shape, max(2.0, radius / rng.uniform(1, 4)))
    image = inside * grain * per_object(rng, labels, rng.uniform(0.15, 0.8), 1.0)
    if chance(rng, 0.4):
        image = image + rng.uniform(0.1, 0.6) * blur(image, radius)
    image = blur(image, log_uniform(rng, 0.3, 2.5)) + rng.uniform(0, 0.4)
    return camera(
        rng, uneven(rng, image, rng.uniform(0, 0.6)), log_uniform(rng, 0.005, 0.2), _peak(rng, 20, 2000)
    ), labels


def noisy_nuclei(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Confocal nuclei of few photons, the signal often below the noise."""
    radius = log_uniform(rng, 6, 40)
    labels = scatter_blobs(rng, shape, radius, rng.uniform(0.8, 1.3), rng.uniform(0, 0.15), rng.uniform(0.3, 1.5))
    if chance(rng, 0.3):
        labels = tidy(grow(labels, radius * rng.uniform(0.2, 0.6)))
    inside = soft(depth_of(labels), log_uniform(rng, 1, 5)) * per_object(rng, labels, rng.uniform(0.25, 0.8), 1.0)
    if chance(rng, 0.5):
        inside = inside * (1 + 0.5 * texture(rng, shape, max(2.0, radius / 2)))
    image = blur(inside, log_uniform(rng, 0.5, 3)) + log_uniform(rng, 0.005, 1.0)
    if chance(rng, 0.5):
        # Nuclei of the planes above and below, out of focus.
        image = image + rng.uniform(0.1, 0.7) * blur(inside[::-1, ::-1], radius * rng.uniform(0.4, 1.0))
    if chance(rng, 0.3):
        image = image + rng.uniform(0, 0.4) * texture(rng, shape, log_uniform(rng, 4, 40)).clip(0)
    return camera(rng, image, log_uniform(rng, 0.1, 1.5), log_uniform(rng, 0.3, 20)), labels


def cells(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Whole cells with a bright or dark nucleus, stained all through or at the membrane."""
    radius = log_uniform(rng, 8, 40)
    seeds = scatter_blobs(rng, shape, 0.5 * radius, rng.uniform(1.6, 2.6), 0.1, rng.uniform(0.1, 0.5))
    labels = tidy(grow(seeds, radius * rng.uniform(0.4, 1.0)))
    depth = depth_of(labels)
    body = soft(depth, log_uniform(rng, 1, 6)) * (0.6 + 0.3 * texture(rng, shape, log_uniform(rng, 3, 15)))
    image = body * per_object(rng, labels, 0.3, 1.0)
    if chance(rng, 0.5):
        image = image + rng.uniform(0.3, 1.5) * np.exp(-((depth / log_uniform(rng, 0.8, 2.5)) ** 2)) * (depth > -4)
    image = image + rng.choice([-0.4, 0.5, 1.0]) * soft(depth_of(seeds), 2) * 0.6
    image = blur(image, log_uniform(rng, 0.3, 2)) + rng.uniform(0, 0.3)
    return camera(rng, uneven(rng, image, rng.uniform(0, 0.5)), log_uniform(rng, 0.01, 0.3), _peak(rng, 5, 500)), labels


def _peak(rng: Rng, low: float, high: float) -> float | None:
    return log_uniform(rng, low, high) if chance(rng, 0.6) else None
