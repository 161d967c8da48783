"""Teach nano to draw whole objects in space, from their masks on a few planes.

``python -m napari_segany.training.volumes --data FOLDER --weights nano.safetensors --minutes 60``
goes on from what the weight file holds, and writes it now and then.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.intensity import DEFAULT_PERCENTILES, estimate_range, to_gray
from napari_segany.core.masks import bounding_box
from napari_segany.core.volume_windows import size_of
from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.volume_network import VOLUME_WINDOW, VolumeNetwork
from napari_segany.models.nano.weights import load_nano, save_weights
from napari_segany.training.folder import read_stacks
from napari_segany.training.generate.fields import Rng, chance
from napari_segany.training.generate.volumes import deep
from napari_segany.training.heads import read_command
from napari_segany.training.optimiser import Optimiser, average_in, rate_at

#: Share of the windows from real stacks.
REAL = 0.35
#: Generated volumes held at once, and windows after which one is replaced.
HELD, RENEWED_EVERY = 120, 40
#: Pixels that an object has at least on a plane that counts, and planes it has.
LEAST_AREA, LEAST_PLANES = 12, 3
#: Share of the objects cut off by the image's edge that are left out: volumes to learn from are small.
CUT_OBJECTS_LEFT_OUT = 0.3
#: Cells that an object has at least in a window.
LEAST_CELLS = 30
#: From plane to plane of a window, planes of the stack: microscopes step very differently, and nobody says how far.
STEPS = (0.7, 3.2)
#: Deviation of what an object moves sideways from its first plane to its last, in units of its size.
LEANING = 0.35
#: Greatest blur across planes, in units of an object's planes: along their axis some microscopes hardly resolve it.
BLUR_ACROSS = 0.5
AT_ONCE = 12
LEARNING_RATE, WEIGHT_DECAY, WARMUP, EMA = 2.5e-3, 0.02, 100, 0.998
#: Seconds after which the weights are written.
SAVED_EVERY = 300.0


@dataclass(frozen=True, eq=False)
class Volume:
    """A stack to learn from.

    Attributes
    ----------
    pixels : (N, H, W) uint8
    labels : (N, H, W) int
    spans : object id -> (planes it can be given on, its area on each)
    """

    pixels: np.ndarray
    labels: np.ndarray
    spans: dict[int, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, pixels: np.ndarray, labels: np.ndarray) -> Volume:
        """Look where objects are."""
        areas = np.stack([np.bincount(plane.ravel(), minlength=int(labels.max()) + 1) for plane in labels])
        spans = {}
        for i in range(1, areas.shape[1]):
            planes = np.flatnonzero(areas[:, i] >= LEAST_AREA)
            if len(planes) >= LEAST_PLANES:
                spans[i] = planes, areas[planes, i]
        return cls(pixels, labels, spans)


@dataclass(frozen=True, eq=False)
class Window:
    """An object in a window, and what is told of it.

    Attributes
    ----------
    pixels, given, seen : (D, h, w) float32
        See `VolumeNetwork.forward`.
    own : (D, h, w) float32
        1 where the object is.
    told : (D,) float32
        1 on planes where the true mask is given.
    """

    pixels: Tensor
    given: Tensor
    seen: Tensor
    own: Tensor
    told: Tensor


def windows(data: Path | None, seed: int) -> Iterator[Window]:
    """Endless windows of real stacks and generated ones.

    Parameters
    ----------
    data : folder with an ``index.json``, or None for generated volumes alone
    seed : int
    """
    rng = np.random.default_rng(seed)
    real = [] if data is None else _real(data)
    held: list[Volume] = []
    count = 0
    while True:
        if real and chance(rng, REAL):
            volume = real[rng.integers(len(real))]
        else:
            if len(held) < HELD or count % RENEWED_EVERY == 0:
                held = [*held[-HELD + 1 :], Volume.of(*deep(rng))]
            volume = held[rng.integers(len(held))]
            count += 1
        window = draw(volume, rng) if volume.spans else None
        if window is not None:
            yield window


def _real(data: Path) -> list[Volume]:
    found = []
    for pairs in read_stacks(data, ("ZYX",)).values():
        for pixels, labels in pairs:
            intensity = estimate_range(pixels, DEFAULT_PERCENTILES)
            shown = np.stack([to_gray(plane, intensity) for plane in pixels]).astype(np.uint8)
            found.append(Volume.of(shown, labels.astype(np.int32)))
    return [volume for volume in found if volume.spans]


def draw(volume: Volume, rng: Rng) -> Window | None:
    """A window around an object on one of its planes, turned, stretched and tilted; None if it shows too little."""
    shape = VOLUME_WINDOW
    object_id = rng.choice(list(volume.spans)).item()
    planes, areas = volume.spans[object_id]
    frame = int(rng.choice(planes, p=areas / areas.sum()))
    y0, x0, y1, x1 = bounding_box(volume.labels[frame] == object_id)
    height, width = volume.labels.shape[1:]
    if (min(y0, x0) == 0 or y1 == height or x1 == width) and chance(rng, CUT_OBJECTS_LEFT_OUT):
        return None
    size = size_of(volume.labels[frame][y0:y1, x0:x1] == object_id)
    centre = np.array([frame, (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2])
    centre[1:] += rng.normal(0, 0.04 * size, 2)
    matrix = _tilted(rng, size / shape.object_size, LEANING * size / len(planes))
    pixels, own, seen = _cut(volume, object_id, centre, matrix)
    inside = own > 0.5
    if chance(rng, 0.25):
        inside = _redrawn(inside, 1.0 if chance(rng, 0.5) else -1.0)
    middle = shape.reach
    inside &= seen
    if inside[middle].sum() < LEAST_CELLS or inside.sum() < 2 * LEAST_CELLS:
        return None
    pixels = _changed(pixels, BLUR_ACROSS * np.count_nonzero(inside.any(axis=(1, 2))), rng)
    given = np.zeros(inside.shape, dtype=np.float32)
    found = chance(rng, 0.25)
    first = _spoiled(inside[middle], rng) if found else inside[middle]
    # See `FOUND_COUNTS`: a mask that was found, not given, may be wrong.
    given[middle] = (0.5 if found else 1.0) * (2.0 * first - 1.0)
    if chance(rng, 0.3):
        further = np.flatnonzero(inside.any(axis=(1, 2)))
        for plane in rng.permutation(further)[: rng.integers(1, 3)]:
            given[plane] = 2.0 * inside[plane] - 1.0
    told = np.abs(given).max(axis=(1, 2)) == 1.0
    if chance(rng, 0.1):
        # A plane that cannot be read.
        lost = rng.integers(shape.depth)
        seen[lost] &= bool(given[lost].any())
    parts = (pixels * seen, given * seen, seen, inside, told)
    return Window(*(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in parts))


def _tilted(rng: Rng, scale: float, leaning: float) -> np.ndarray:
    """(3, 3) matrix from cells to voxels: turned and stretched in the plane, at times stretched and tilted across.

    `leaning` is the deviation of a tilt, pixels to a plane.
    """
    scale *= math.exp(rng.normal(0, 0.15))
    angle, stretch = rng.uniform(0, 2 * math.pi), math.exp(rng.normal(0, 0.12))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.zeros((3, 3))
    matrix[1:, 1:] = scale * turn @ np.diag([stretch, rng.choice([-1, 1]) / stretch])
    matrix[0, 0] = rng.choice([-1, 1]) * (math.exp(rng.uniform(*np.log(STEPS))) if chance(rng, 0.6) else 1.0)
    if chance(rng, 0.5):
        matrix[1:, 0] = abs(matrix[0, 0]) * rng.normal(0, leaning, 2)
    return matrix


def _cut(
    volume: Volume, object_id: int, centre: np.ndarray, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels from 0 to 1, the object, and what lies in the stack, in a window; (D, h, w) each."""
    shape = VOLUME_WINDOW
    across = np.arange(shape.side) - (shape.side - 1) / 2
    cells = np.stack(np.meshgrid(np.arange(-shape.reach, shape.reach + 1), across, across, indexing="ij"), axis=-1)
    at = cells @ matrix.T + centre
    extent = np.array(volume.pixels.shape)
    seen = ((at >= -0.5) & (at <= extent - 0.5)).all(axis=-1)
    low = np.clip(np.floor(at.min(axis=(0, 1, 2))).astype(int) - 1, 0, extent - 1)
    high = np.clip(np.ceil(at.max(axis=(0, 1, 2))).astype(int) + 2, low + 1, extent)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    both = np.stack([volume.pixels[part] / np.float32(255), volume.labels[part] == object_id]).astype(np.float32)
    grid = torch.from_numpy((2 * (at - low) + 1) / (high - low) - 1).float().flip(-1)
    sampled = F.grid_sample(
        torch.from_numpy(both)[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0].numpy()
    return sampled[0], sampled[1], seen


def _changed(pixels: np.ndarray, across: float, rng: Rng) -> np.ndarray:
    """Another gamma, contrast turned round, blur, noise, planes of other brightness; each at times.

    `across` is the greatest blur across planes.
    """
    if chance(rng, 0.5):
        pixels = pixels ** math.exp(rng.normal(0, 0.35))
    if chance(rng, 0.06):
        pixels = 1 - pixels
    if chance(rng, 0.3):
        blur = rng.uniform(0.4, 1.2)
        pixels = ndimage.gaussian_filter(pixels, (blur * rng.uniform(0, 1), blur, blur))
    if chance(rng, 0.4):
        pixels = ndimage.gaussian_filter1d(pixels, rng.uniform(0, across), axis=0, mode="nearest")
    if chance(rng, 0.4):
        pixels = pixels + rng.uniform(0, 0.15) * rng.standard_normal(pixels.shape, dtype=np.float32)
    if chance(rng, 0.3):
        pixels = pixels * np.exp(rng.normal(0, 0.1, (len(pixels), 1, 1)))
    return pixels


def _redrawn(inside: np.ndarray, by: float) -> np.ndarray:
    """A mask (D, h, w) drawn wider or narrower by a cell on every plane, as some people do it."""
    distance = ndimage.distance_transform_edt
    return np.stack([distance(~plane) <= by if by > 0 else distance(plane) > -by for plane in inside])


def _spoiled(mask: np.ndarray, rng: Rng) -> np.ndarray:
    """A mask (h, w) as a model might have drawn it: displaced, or of another outline."""
    if chance(rng, 0.4):
        moved = ndimage.shift(mask.astype(np.float32), rng.normal(0, 1.2, 2), order=1) > 0.5
        return moved if moved.any() else mask
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    waves = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 4)
    other = depth + rng.normal(0, 1) + waves / waves.std() * rng.uniform(0, 1.5) > 0
    return other if other.any() else mask


def stacked(windows: Sequence[Window], *names: str) -> list[Tensor]:
    """Attributes of windows as one tensor each, (P, ...)."""
    return [torch.stack([getattr(window, name) for window in windows]) for name in names]


def volume_loss(logits: Tensor, windows: Sequence[Window]) -> Tensor:
    """Cross-entropy over cells, in units of the object's size, and Dice loss on each plane and of the whole.

    The mean over planes that have the object is what counts when it is
    followed, but says nothing of planes beyond its ends. A plane on which the
    true mask was given counts a tenth.
    """
    own, seen, told = stacked(windows, "own", "seen", "told")
    wrong = F.binary_cross_entropy_with_logits(logits, own, reduction="none") * seen
    entropy = wrong.sum(dim=(1, 2, 3)) / (6 * own.sum(dim=(1, 2, 3)) + 200)
    inside = logits.sigmoid() * seen
    common, total = (inside * own).sum(dim=(2, 3)), (inside + own).sum(dim=(2, 3))
    lacking = 1 - (2 * common + 1) / (total + 1)
    unsaid = 1 - 0.9 * told
    counts = own.amax(dim=(2, 3)) * unsaid
    on_planes = (lacking * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
    whole = 1 - (2 * (common * unsaid).sum(dim=1) + 1) / ((total * unsaid).sum(dim=1) + 1)
    return (2 * entropy + on_planes + whole).mean()


def train_volumes(
    data: Path | None,
    network: VolumeNetwork,
    minutes: float,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    save: Callable[[], object] | None = None,
) -> None:
    """Train in place for some time, over which the learning rate falls to zero.

    Parameters
    ----------
    data : folder with an ``index.json``, or None for generated volumes alone
    network : VolumeNetwork
    minutes : float
    seed : int
    progress : callable, optional
        Told now and then how far it has come.
    save : callable, optional
        Called now and then, when the network holds averaged weights.
    """
    torch.manual_seed(seed)
    learner = copy.deepcopy(network).float().requires_grad_(True).train()
    optimiser = Optimiser(learner, LEARNING_RATE, WEIGHT_DECAY)
    drawn = windows(data, seed)
    began = saved = time.monotonic()
    step = 0
    losses: list[float] = []
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        batch = [next(drawn) for _ in range(AT_ONCE)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = learner(*stacked(batch, "pixels", "given", "seen"))
        loss = volume_loss(logits.float(), batch)
        learner.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step(LEARNING_RATE * rate_at(share, step, WARMUP))
        average_in(network, learner, step, EMA)
        step += 1
        losses.append(loss.item())
        if progress is not None and step % 100 == 0:
            far = f"{minutes * share:.0f} of {minutes:.0f} minutes"
            progress(f"volumes: step {step}, {far}, loss {sum(losses) / len(losses):.3f}")
            losses.clear()
        if save is not None and time.monotonic() - saved > SAVED_EVERY:
            save()
            saved = time.monotonic()


def main() -> None:
    """Read the command line and train."""
    args = read_command(__doc__, "minutes", 60.0)
    network: Nano = load_nano(torch.device("cpu"), torch.float32, args.weights).network

    def save() -> None:
        save_weights(network, args.weights)

    train_volumes(args.data, network.volume, args.count, args.seed, print, save)
    save()


if __name__ == "__main__":
    main()
