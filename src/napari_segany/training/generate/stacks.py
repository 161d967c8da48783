"""Stacks in z and t whose objects keep their ids."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, smooth_noise
from napari_segany.training.generate.fluorescence import Drawn
from napari_segany.training.generate.optics import blur
from napari_segany.training.generate.shapes import blob, draw, pack


def _record(rng: Rng, image: np.ndarray, noise: float) -> np.ndarray:
    """Add photon and read-out noise to a float stack and digitise it as a whole."""
    photons = rng.poisson(np.clip(image, 0, None) * 60) / 60
    noisy = photons + noise * rng.standard_normal(image.shape, dtype=np.float32)
    low, high = np.percentile(noisy, (0.1, 99.9))
    return (np.clip((noisy - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _number(labels: np.ndarray) -> np.ndarray:
    """Renumber labels from 1 without gaps, int32."""
    ids, inverse = np.unique(labels, return_inverse=True)
    numbers = np.arange(len(ids)) + (0 if ids[0] == 0 else 1)
    return numbers[inverse].reshape(labels.shape).astype(np.int32)


def nuclei_3d(rng: Rng, shape: tuple[int, int, int] = (24, 160, 160), anisotropy: float = 3.0) -> Drawn:
    """Ellipsoidal nuclei in z, dimmer with depth, blurred more along the axis.

    Parameters
    ----------
    shape : (N, H, W)
    anisotropy : float
        Distance of planes over the size of a pixel.
    """
    depth, height, width = shape
    radii = rng.uniform(9, 15, 400)
    centres = pack(rng, (int(depth * anisotropy), height, width), radii, gap=1.02)
    labels = np.zeros(shape, dtype=np.int32)
    z, y, x = np.ogrid[:depth, :height, :width]
    for value, (cz, cy, cx, radius) in enumerate(centres, start=1):
        stretch = np.exp(rng.normal(0, 0.12, 3))
        r = ((z * anisotropy - cz) / stretch[0]) ** 2 + ((y - cy) / stretch[1]) ** 2 + ((x - cx) / stretch[2]) ** 2
        labels[(r < radius**2) & (labels == 0)] = value
    labels = _number(labels)
    brightness = rng.uniform(0.5, 1.0, labels.max() + 1).astype(np.float32)
    brightness[0] = 0.0
    grain = 1 + 0.25 * smooth_noise(rng, shape, (1.5, 3, 3))
    image = brightness[labels] * grain
    image = np.stack([blur(plane, 0.9) for plane in image])
    image = np.apply_along_axis(np.convolve, 0, image, np.array([0.2, 0.6, 0.2]), "same")
    image = image * np.exp(-np.arange(depth) / (1.5 * depth))[:, None, None] + 0.06
    return _record(rng, image.astype(np.float32), 0.05), labels


def cells_timelapse(rng: Rng, shape: tuple[int, int, int] = (30, 192, 192)) -> Drawn:
    """Cells that wander, change shape and bleach; some enter, some leave."""
    count, height, width = shape
    centres = pack(rng, (height, width), rng.uniform(8, 13, 120), gap=1.3)
    speed = rng.normal(0, 0.9, (len(centres), 2))
    labels = np.zeros(shape, dtype=np.int32)
    seeds = rng.integers(2**31, size=len(centres))
    angle, turn = rng.uniform(0, np.pi, len(centres)), rng.normal(0, 0.05, len(centres))
    for frame in range(count):
        for i, (y, x, radius) in enumerate(centres):
            pulse = 1 + 0.08 * np.sin(frame / 4 + i)
            # The same seed every time: a cell keeps the waves of its outline.
            outline = blob(
                np.random.default_rng(seeds[i]), (y, x), radius * pulse, 1.3, 0.08, angle[i] + frame * turn[i]
            )
            draw(labels[frame], outline, i + 1, below=True)
        speed = 0.9 * speed + rng.normal(0, 0.4, speed.shape)
        centres[:, :2] += speed
    labels = _number(labels)
    brightness = rng.uniform(0.5, 1.0, labels.max() + 1).astype(np.float32)
    brightness[0] = 0.0
    image = np.stack([blur(brightness[plane], 1.2) for plane in labels])
    image = image * np.exp(-np.arange(count) / (2.5 * count))[:, None, None] + 0.08
    return _record(rng, image.astype(np.float32), 0.05), labels


def membranes_3d(rng: Rng, shape: tuple[int, int, int] = (24, 160, 160), anisotropy: float = 2.0) -> Drawn:
    """Tissue of cells that touch along stained walls, in z."""
    from scipy.ndimage import distance_transform_edt

    depth, height, width = shape
    spacing = (anisotropy, 1.0, 1.0)
    centres = pack(rng, (int(depth * anisotropy), height, width), rng.uniform(11, 17, 600), gap=0.95)
    seeds = np.zeros(shape, dtype=np.int32)
    for value, (z, y, x, _) in enumerate(centres, start=1):
        place = np.clip(np.rint([z / anisotropy, y, x]).astype(int), 0, np.array(shape) - 1)
        seeds[tuple(place)] = value
    nearest = distance_transform_edt(seeds == 0, sampling=spacing, return_distances=False, return_indices=True)
    labels = _number(seeds[tuple(nearest)])
    wall = np.zeros(shape, dtype=bool)
    for axis in range(3):
        a, w = np.moveaxis(labels, axis, 0), np.moveaxis(wall, axis, 0)
        w[1:] |= a[1:] != a[:-1]
    distance = distance_transform_edt(~wall, sampling=spacing)
    image = np.exp(-((distance / 1.6) ** 2)) * (1 + 0.3 * smooth_noise(rng, shape, (4, 15, 15))).clip(0.2) + 0.08
    return _record(rng, image.astype(np.float32), 0.06), labels
