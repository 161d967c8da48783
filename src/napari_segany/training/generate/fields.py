"""Random fields: smooth noise, fractal texture, warps, and small ways to draw numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Rng = np.random.Generator


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """One number between `low` and `high`, every factor equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def chance(rng: Rng, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def _cubic_basis(n: int, scale: float, phase: float) -> np.ndarray:
    """(n, k) float32 matrix of uniform cubic B-splines with a knot every `scale` samples."""
    position = np.arange(n) / scale + phase
    first = np.floor(position).astype(np.int64)
    t = position - first
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    matrix = np.zeros((n, int(first[-1]) + 4), dtype=np.float32)
    for k in range(4):
        matrix[np.arange(n), first + k] = weights[k] / 6
    return matrix


def smooth_noise(rng: Rng, shape: Sequence[int], scale: float | Sequence[float]) -> np.ndarray:
    """Noise of mean 0 and deviation 1 that changes over about `scale` pixels, float32 of any dimension.

    White noise on a coarse lattice, interpolated by cubic B-splines: one small
    matrix product per axis whatever the scale.
    """
    scales = [float(scale)] * len(shape) if np.isscalar(scale) else [float(s) for s in scale]  # type: ignore[union-attr, arg-type]
    bases = [_cubic_basis(n, max(s, 1.0), rng.random()) for n, s in zip(shape, scales, strict=True)]
    noise = rng.standard_normal([b.shape[1] for b in bases], dtype=np.float32)
    for axis, basis in enumerate(bases):
        noise = np.moveaxis(np.tensordot(basis, noise, axes=(1, axis)), 0, axis)
    # A field smoother than the image has hardly any deviation of its own: dividing by it would blow it up.
    return (noise - noise.mean()) / max(float(noise.std()), 0.1)


def texture(rng: Rng, shape: Sequence[int], scale: float, octaves: int = 3, roughness: float = 0.6) -> np.ndarray:
    """Fractal noise of deviation about 1: octaves of `smooth_noise`, each half as large, from `scale` down."""
    total = np.zeros(shape, dtype=np.float32)
    norm = 0.0
    for k in range(octaves):
        if k and scale / 2**k < 1.0:
            break
        total += roughness**k * smooth_noise(rng, shape, scale / 2**k)
        norm += roughness ** (2 * k)
    return total / np.float32(np.sqrt(norm))


def between(field: np.ndarray, low: float, high: float) -> np.ndarray:
    """Squash a field of deviation 1 smoothly into the range (low, high)."""
    return low + (high - low) * (0.5 + 0.5 * np.tanh(field))


def warp(rng: Rng, image: np.ndarray, amplitude: float, scale: float) -> np.ndarray:
    """Move the pixels of labels by smooth noise of deviation `amplitude` pixels (nearest neighbour)."""
    grid = np.indices(image.shape, dtype=np.float32)
    index = []
    for axis, n in enumerate(image.shape):
        moved = grid[axis] + amplitude * smooth_noise(rng, image.shape, scale)
        index.append(np.clip(np.rint(moved), 0, n - 1).astype(np.int64))
    return image[tuple(index)]
