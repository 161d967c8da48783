"""Bacteria: rods alone, and colonies in which they lie side by side, in phase contrast or fluorescence."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.colony import grow_colony
from napari_segany.training.generate.fields import Rng, chance, log_uniform, smooth_noise, texture, warp
from napari_segany.training.generate.fluorescence import Drawn
from napari_segany.training.generate.optics import blur, camera, phase_contrast, soft, specks, uneven
from napari_segany.training.generate.shapes import depth_of, draw, per_object, rod, tidy


def bacteria(rng: Rng, shape: tuple[int, int]) -> Drawn:
    """Rods in colonies that grew or lie in rows, and alone; dark with bright halos or bright on dark."""
    width = log_uniform(rng, 4, 22)
    length = width * log_uniform(rng, 1.3, 7)
    labels = np.zeros(shape, dtype=np.int32)
    kind = rng.random()
    if kind < 0.6:
        labels = _grown(rng, labels, width, max(length, 1.8 * width))
    elif kind < 0.8:
        _rows(rng, labels, width, length)
        labels = tidy(labels)
    if kind > 0.6 or chance(rng, 0.5):
        _loose(rng, labels, width, length)
    labels = tidy(labels, int(0.6 * width**2))
    depth = depth_of(labels)
    inside = soft(depth, width * rng.uniform(0.15, 0.5)) * per_object(rng, labels, rng.uniform(0.5, 0.9), 1.0)
    if chance(rng, 0.4):
        inside = inside * (1 - rng.uniform(0.1, 0.6) * soft(depth - 0.25 * width, width / 3))  # brighter middle
    inside = inside * (1 + rng.uniform(0, 0.25) * texture(rng, shape, max(2.0, width / 2)))
    image = phase_contrast(inside, rng.uniform(0.2, 1.4), width * log_uniform(rng, 0.5, 3))
    image = image + log_uniform(rng, 0.01, 0.15) * texture(rng, shape, log_uniform(rng, 3, 30))
    if chance(rng, 0.4):
        image = image + specks(rng, shape, 0.0005, log_uniform(rng, 0.8, 0.3 * width + 1))
    image = blur(image * rng.choice([1, 1, 1, 1, -1]), log_uniform(rng, 0.3, width / 8 + 0.4))
    return camera(rng, uneven(rng, image + 2, rng.uniform(0, 0.2)) - 2, log_uniform(rng, 0.01, 0.3)), labels


def _loose(rng: Rng, labels: np.ndarray, width: float, length: float) -> None:
    """Draw rods that lie anywhere and hardly overlap what is there."""
    count = int(np.clip(rng.uniform(0.05, 0.8) * labels.size / (width * length), 3, 150))
    bend = rng.uniform(0, 0.7)
    for value in range(labels.max() + 1, labels.max() + 1 + count):
        centre = rng.uniform(0, labels.shape[0]), rng.uniform(0, labels.shape[1])
        size = max(length * np.exp(rng.normal(0, 0.3)), 1.1 * width), width * rng.uniform(0.85, 1.1)
        draw(labels, rod(rng, centre, *size, rng.normal(0, bend)), value, below=True, most_covered=0.05)


def _grown(rng: Rng, labels: np.ndarray, width: float, length: float) -> np.ndarray:
    """Draw one to three colonies that grew from one rod each, somewhat bent."""
    thick, bend = rng.uniform(0.85, 1.05), rng.uniform(0, 0.25)
    for _ in range(rng.integers(1, 4)):
        rods = grow_colony(rng, int(log_uniform(rng, 4, 250)), 1.35 * length / width, log_uniform(rng, 0.01, 0.3))
        middle = rng.uniform(0.1, 0.9, 2) * labels.shape
        for value, (y, x, angle, long) in enumerate(rods, start=labels.max() + 1):
            centre = float(middle[0] + width * y), float(middle[1] + width * x)
            shape = rod(rng, centre, long * width, thick * width, rng.normal(0, bend), angle)
            draw(labels, shape, value, below=True, most_covered=0.4)
    return tidy(warp(rng, labels, rng.uniform(0, 0.2) * width, 5 * width))


def _rows(rng: Rng, labels: np.ndarray, width: float, length: float) -> None:
    """Draw colonies of a few domains, in each of which rods fill curved rows of a direction of its own."""
    shape = labels.shape
    colony = smooth_noise(rng, shape, log_uniform(rng, 3, 20) * width) + rng.uniform(-0.8, 1.2) > 0
    y, x = np.indices(shape, dtype=np.float32)
    seeds = rng.uniform(0, 1, (int(log_uniform(rng, 1, 9)), 2)) * shape
    domain = np.argmin([(y - np.float32(a)) ** 2 + (x - np.float32(b)) ** 2 for a, b in seeds], axis=0)
    angle = rng.uniform(0, np.pi, len(seeds)).astype(np.float32)
    sine, cosine = np.sin(angle)[domain], np.cos(angle)[domain]
    scale = log_uniform(rng, 5, 25) * width
    bend = np.float32(rng.uniform(0, 0.22) * scale)
    along = y * sine + x * cosine + bend * smooth_noise(rng, shape, scale)
    across = (y * cosine - x * sine + bend * smooth_noise(rng, shape, scale)) / np.float32(width)
    row = np.floor(across).astype(np.int32)
    aside = (across - row - 0.5) * np.float32(width)
    row -= row.min()
    n_rows = int(row.max()) + 1
    row += n_rows * domain.astype(np.int32)
    pitches = (length * np.exp(rng.normal(0, 0.2, n_rows * len(seeds)))).astype(np.float32)
    pitch = pitches[row]
    place = along / pitch + rng.random(n_rows * len(seeds), dtype=np.float32)[row]
    place -= np.floor(place.min()) - 1
    number = np.floor(place).astype(np.int32)
    # Rods of a row end anywhere within a third of their length; `cuts` is where, flat for speed.
    columns = int(number.max()) + 3
    cuts = (np.arange(columns) + rng.uniform(-0.3, 0.3, (len(pitches), columns))).astype(np.float32).ravel()
    rods = row * columns + number
    rods += (place >= cuts[rods + 1]).astype(np.int32) - (place < cuts[rods])
    start, end = cuts[rods], cuts[rods + 1]
    beyond = np.abs(place - 0.5 * (start + end)) * pitch - np.maximum(0.5 * ((end - start) * pitch - width), 0)
    thick = rng.uniform(0.8, 1.0) * width
    inside = np.hypot(np.maximum(beyond, 0), aside) < 0.5 * thick
    # Those that a neighbouring domain or the end of the colony cuts off are left out.
    total = np.bincount(rods[inside], minlength=len(cuts))
    kept = np.bincount(rods[inside & colony], minlength=len(cuts))
    whole = thick * (np.diff(cuts, append=0) * np.repeat(pitches, columns) - width + 0.8 * thick)
    chosen = (kept > 0.5 * total) & (total > 0.8 * whole) & (rng.random(len(cuts)) > rng.uniform(0, 0.2))
    where = inside & chosen[rods]
    labels[where] = rods[where] + 1
