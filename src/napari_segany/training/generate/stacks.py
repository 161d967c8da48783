"""Stacks in z and t whose objects keep their ids."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, smooth_noise
from napari_segany.training.generate.fluorescence import Drawn
from napari_segany.training.generate.optics import blur
from napari_segany.training.generate.shapes import blob, draw, pack

Shape3D = tuple[int, int, int]


def record(rng: Rng, image: np.ndarray, noise: float) -> np.ndarray:
    """Add photon and read-out noise to a float stack and digitise it as a whole."""
    peak = 0.15 / max(noise, 1e-3) ** 2
    noisy = rng.poisson(np.clip(image, 0, None) * peak) / peak
    noisy = noisy + noise * rng.standard_normal(image.shape, dtype=np.float32)
    low, high = np.percentile(noisy, (0.1, 99.9))
    return (np.clip((noisy - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def number(labels: np.ndarray) -> np.ndarray:
    """Renumber labels from 1 without gaps, int32."""
    ids, inverse = np.unique(labels, return_inverse=True)
    numbers = np.arange(len(ids)) + (0 if ids[0] == 0 else 1)
    return numbers[inverse].reshape(labels.shape).astype(np.int32)


def brightness(rng: Rng, labels: np.ndarray, low: float, high: float) -> np.ndarray:
    """One brightness for each object, 0 outside of them, (N, H, W) float32."""
    brightness = rng.uniform(low, high, labels.max() + 1).astype(np.float32)
    brightness[0] = 0.0
    return brightness[labels]


def see(image: np.ndarray, psf: float, along: float) -> np.ndarray:
    """Blur a float stack by `psf` pixels in the planes and `along` planes across them."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, (along, psf, psf), truncate=3.0)


def nuclei_3d(
    rng: Rng,
    shape: Shape3D = (24, 160, 160),
    anisotropy: float = 3.0,
    radius: tuple[float, float] = (9, 15),
    gap: float = 1.02,
    dimmest: float = 0.5,
    psf: float = 0.9,
    along: float = 0.6,
    noise: float = 0.05,
) -> Drawn:
    """Ellipsoidal nuclei in z, dimmer with depth, blurred more along the axis.

    Parameters
    ----------
    shape : (N, H, W)
    anisotropy : float
        Distance of planes over the size of a pixel.
    radius : (smallest, largest) in pixels
    gap : float
        Distance of neighbours in units of their radii; below 1 they press against each other.
    dimmest : float
        Brightness of the dimmest nucleus; the brightest has 1.
    psf, along : float
        Blur in the planes, pixels, and across them, planes.
    noise : float
        Deviation of the read-out noise.
    """
    depth, height, width = shape
    centres = pack(rng, (int(depth * anisotropy), height, width), rng.uniform(*radius, 400), gap=gap)
    labels = np.zeros(shape, dtype=np.int32)
    nearest = np.full(shape, 1.0, dtype=np.float32)
    z, y, x = np.ogrid[:depth, :height, :width]
    for value, (cz, cy, cx, size) in enumerate(centres, start=1):
        stretch = np.exp(rng.normal(0, 0.12, 3))
        reach = int(1.6 * size) + 1
        planes, rows, columns = (
            slice(max(0, int(c) - r), max(0, int(c) + r + 1))
            for c, r in ((cz / anisotropy, int(reach / anisotropy) + 1), (cy, reach), (cx, reach))
        )
        r = ((z[planes] * anisotropy - cz) / stretch[0]) ** 2 + ((y[:, rows] - cy) / stretch[1]) ** 2
        r = (r + ((x[:, :, columns] - cx) / stretch[2]) ** 2) / size**2
        window = planes, rows, columns
        # Where nuclei press against each other, each pixel belongs to the deeper one.
        wins = r < nearest[window]
        labels[window][wins] = value
        nearest[window][wins] = r[wins]
    labels = number(labels)
    image = brightness(rng, labels, dimmest, 1.0) * (1 + 0.25 * smooth_noise(rng, shape, (1.5, 3, 3)))
    image = see(image, psf, along) * np.exp(-np.arange(depth) / (1.5 * depth))[:, None, None] + 0.06
    return record(rng, image.astype(np.float32), noise), labels


def cells_timelapse(
    rng: Rng,
    shape: Shape3D = (30, 192, 192),
    radius: tuple[float, float] = (8, 13),
    gap: float = 1.3,
    speed: float = 0.9,
    noise: float = 0.05,
) -> Drawn:
    """Cells that wander, change shape and bleach; some enter, some leave; see `nuclei_3d` for the parameters.

    Parameters
    ----------
    speed : float
        Pixels a frame.
    """
    count, height, width = shape
    centres = pack(rng, (height, width), rng.uniform(*radius, 120), gap=gap)
    velocity = rng.normal(0, speed, (len(centres), 2))
    labels = np.zeros(shape, dtype=np.int32)
    seeds = rng.integers(2**31, size=len(centres))
    angle, turn = rng.uniform(0, np.pi, len(centres)), rng.normal(0, 0.05, len(centres))
    for frame in range(count):
        for i, (y, x, size) in enumerate(centres):
            pulse = 1 + 0.08 * np.sin(frame / 4 + i)
            # The same seed every time: a cell keeps the waves of its outline.
            outline = blob(np.random.default_rng(seeds[i]), (y, x), size * pulse, 1.3, 0.08, angle[i] + frame * turn[i])
            draw(labels[frame], outline, i + 1, below=True)
        velocity = 0.9 * velocity + rng.normal(0, 0.45 * speed, velocity.shape)
        centres[:, :2] += velocity
    labels = number(labels)
    image = np.stack([blur(plane, 1.2) for plane in brightness(rng, labels, 0.5, 1.0)])
    image = image * np.exp(-np.arange(count) / (2.5 * count))[:, None, None] + 0.08
    return record(rng, image.astype(np.float32), noise), labels


def membranes_3d(
    rng: Rng,
    shape: Shape3D = (24, 160, 160),
    anisotropy: float = 2.0,
    radius: tuple[float, float] = (11, 17),
    wall: float = 1.6,
    psf: float = 0.0,
    along: float = 0.0,
    inside: float = 0.0,
    stretch: float = 1.0,
    noise: float = 0.06,
) -> Drawn:
    """Tissue of cells that touch along stained walls, in z; see `nuclei_3d` for the other parameters.

    Parameters
    ----------
    wall : float
        Thickness of the walls, pixels.
    inside : float
        Brightness of the brightest cell's inside; walls have 1.
    stretch : float
        How much longer than wide cells are, along x.
    """
    from scipy.ndimage import distance_transform_edt

    depth, height, width = shape
    spacing = (anisotropy, stretch, 1.0)
    room = (int(depth * anisotropy), int(height * stretch), width)
    centres = pack(rng, room, rng.uniform(*radius, 600), gap=0.95)
    seeds = np.zeros(shape, dtype=np.int32)
    for value, (z, y, x, _) in enumerate(centres, start=1):
        place = np.clip(np.rint([z / anisotropy, y / stretch, x]).astype(int), 0, np.array(shape) - 1)
        seeds[tuple(place)] = value
    nearest = distance_transform_edt(seeds == 0, sampling=spacing, return_distances=False, return_indices=True)
    labels = number(seeds[tuple(nearest)])
    edge = np.zeros(shape, dtype=bool)
    for axis in range(3):
        a, w = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        w[1:] |= a[1:] != a[:-1]
    distance = distance_transform_edt(~edge, sampling=spacing)
    stain = (1 + 0.3 * smooth_noise(rng, shape, (4, 15, 15))).clip(0.2)
    image = np.maximum(np.exp(-((distance / wall) ** 2)) * stain, brightness(rng, labels, 0.0, inside))
    return record(rng, (see(image, psf, along) + 0.08).astype(np.float32), noise), labels


def varied(rng: Rng) -> Drawn:
    """A stack of any kind, its objects, optics and noise as different as they come; for training."""
    noise = log_uniform(rng, 0.01, 0.25)
    small = log_uniform(rng, 5, 16)
    radius = small, small * rng.uniform(1.2, 2)
    anisotropy = log_uniform(rng, 1, 5)
    kind = rng.choice(["nuclei", "cells", "membranes"], p=[0.3, 0.15, 0.55])
    if kind == "nuclei":
        # Confocal nuclei are often seen with a few photons each.
        noise, psf = log_uniform(rng, 0.02, 0.6), log_uniform(rng, 0.4, 0.18 * small + 0.3)
        return nuclei_3d(
            rng, (20, 144, 144), anisotropy, radius, rng.uniform(0.8, 1.3), rng.uniform(0.15, 0.8),
            psf, axial_blur(rng, psf, anisotropy), noise,
        )  # fmt: skip
    if kind == "cells":
        return cells_timelapse(rng, (16, 160, 160), radius, rng.uniform(0.9, 1.5), log_uniform(rng, 0.3, 3), noise)
    inside = rng.uniform(0, 0.7) if chance(rng, 0.6) else 0.0
    psf = log_uniform(rng, 0.3, 0.3 * small)
    return membranes_3d(
        rng, (20, 128, 128), anisotropy, (1.2 * radius[0], 1.2 * radius[1]), log_uniform(rng, 0.8, 0.4 * small),
        psf, axial_blur(rng, psf, anisotropy), inside, log_uniform(rng, 1, 2), noise * rng.uniform(0.2, 1),
    )  # fmt: skip


def axial_blur(rng: Rng, psf: float, anisotropy: float) -> float:
    """Blur across planes: a microscope sees one and a half to three and a half times less along its axis.

    So an object is still seen, dim, where it has ended already.
    """
    return float(rng.uniform(1.5, 3.5) * psf / anisotropy)
