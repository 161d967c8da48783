"""What light and the camera do: blur, uneven illumination, photon and read-out noise, stripes, saturation."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng, chance, log_uniform, smooth_noise


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a float image; none below a fifth of a pixel."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, sigma, truncate=3.0) if sigma > 0.2 else image


def soft(depth: np.ndarray, edge: float) -> np.ndarray:
    """0 outside, 1 inside, rising over `edge` pixels about the outline."""
    return np.clip(depth / max(edge, 0.1) + 0.5, 0, 1)


def uneven(rng: Rng, image: np.ndarray, strength: float) -> np.ndarray:
    """Multiply by a smooth illumination and add a smooth glow, both of the given strength."""
    shape = image.shape[:2]
    field = smooth_noise(rng, shape, rng.uniform(0.4, 1.5) * max(shape))
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    vignette = (y - rng.normal(0, 0.4)) ** 2 + (x - rng.normal(0, 0.4)) ** 2
    slope = y * rng.normal() + x * rng.normal()
    gain = np.exp(strength * (0.5 * field + 0.4 * slope - 0.3 * vignette)).astype(np.float32)
    glow = strength * 0.15 * rng.random() * smooth_noise(rng, shape, rng.uniform(0.15, 0.6) * max(shape))
    return image * gain + glow


def photons(rng: Rng, image: np.ndarray, peak: float) -> np.ndarray:
    """Shot noise of an image in which 1 stands for `peak` photons."""
    return (rng.poisson(np.clip(image, 0, None) * peak) / peak).astype(np.float32)


def phase_contrast(thickness: np.ndarray, halo: float, reach: float) -> np.ndarray:
    """Dark where thick, but blind to what changes slowly: bright halos, and pale insides of large and packed things."""
    return halo * blur(thickness, reach) - thickness


def specks(rng: Rng, shape: tuple[int, int], share: float, sigma: float, ring: float = 0.0) -> np.ndarray:
    """Spots of height up to about 1 on a share of the pixels, in clusters; `ring` deepens their middles."""
    where = (rng.random(shape) < share) & (smooth_noise(rng, shape, rng.uniform(5, 20) * sigma) > rng.uniform(-2, 0.7))
    points = where * rng.uniform(0.3, 1, shape).astype(np.float32) * np.float32(2 * np.pi * sigma**2)
    spots = blur(points, sigma)
    return spots - ring * 0.36 * blur(points, 0.6 * sigma) if ring else spots


def stripes(rng: Rng, shape: tuple[int, int], strength: float) -> np.ndarray:
    """Scan lines: a shift of every row, white or slowly changing; sometimes of columns instead."""
    axis = 0 if chance(rng, 0.7) else 1
    line = rng.standard_normal(shape[axis]).astype(np.float32)
    if chance(rng, 0.4):
        line = line + 2 * smooth_noise(rng, (shape[axis],), log_uniform(rng, 2, 30))
    return strength * (line[:, None] if axis == 0 else line[None, :])


def camera(rng: Rng, image: np.ndarray, noise: float, peak: float | None = None) -> np.ndarray:
    """Record a float image whose contrast is about 1.

    Parameters
    ----------
    noise : float
        Deviation of the read-out noise, in units of the contrast; part of it is
        correlated over neighbours, as scaling and compression leave it.
    peak : float, optional
        Photons of a value of 1; without it there is no shot noise.
    """
    shape = image.shape
    if peak is not None:
        image = photons(rng, image, peak)
    read = rng.standard_normal(shape, dtype=np.float32)
    if chance(rng, 0.4):
        sigma = rng.uniform(0.4, 1.2)
        read = blur(read, sigma)
        read /= max(float(read.std()), 1e-3)
    image = image + noise * read
    if chance(rng, 0.12):
        image = image + stripes(rng, shape[:2], noise * rng.uniform(0.1, 0.6))
    return image if chance(rng, 0.7) else blur(image, rng.uniform(0.4, 0.9))


def digitise(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Map a float image to uint8, or now and then to part of the range of uint16; some saturate, some are dim."""
    flat = image[::2, ::2]
    low, high = np.percentile(flat, [rng.choice([0.0, 0.1, 1.0]), rng.choice([97.0, 99.5, 99.9, 100.0])])
    unit = (image - low) / max(float(high - low), 1e-6)
    if chance(rng, 0.15):
        offset, span = rng.uniform(0, 2000), log_uniform(rng, 500, 60000)
        return np.clip(offset + unit * span, 0, 65535).astype(np.uint16)
    black, white = (0.0, 255.0) if chance(rng, 0.6) else (rng.uniform(0, 60), rng.uniform(120, 255))
    return np.clip(np.rint(black + unit * (white - black)), 0, 255).astype(np.uint8)
