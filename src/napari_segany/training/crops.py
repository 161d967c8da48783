"""Training crops: an object at a chosen size somewhere in a window, seen through random optics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.intensity import DEFAULT_PERCENTILES, IntensityRange, estimate_range, to_rgb

#: Longest side of the chosen object in the crop, pixels.
SIZES = (18.0, 140.0)
#: Share of the crops with earlier frames whose objects are all outlined somewhat wider or narrower than they are, as
#: some people draw: a tracker is to keep to what it was given.
REDRAWN = 0.3
#: Side of the square around a pixel in which two objects are near each other, pixels of half the crop's resolution.
NEAR = 7

#: Image (3, side, side) and labels (side, side) of a window.
Frame = tuple[Tensor, np.ndarray]


@dataclass(frozen=True)
class Example:
    """One annotated image, as a pyramid of halved copies.

    Attributes
    ----------
    images : (3, H, W) uint8 arrays, each half the size of the one before
    labels : (H, W) int32 arrays to match
    complete : bool
        Whether every object of the image is labelled, so that the rest is background.
    neighbours : sequences of Examples
        Frames before this one in z or t and frames after it, nearest first, in which objects have the same ids.
    concept : str
        What the objects are, one of nano's words; empty when unknown.
    """

    images: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]
    complete: bool = True
    neighbours: Sequence[Sequence[Example]] = ()
    concept: str = ""


def make_stack(
    stack: np.ndarray, labels: np.ndarray, reach: int = 6, every: int = 2, concept: str = ""
) -> list[Example]:
    """Prepare every so many planes of an (N, H, W) stack, each with those up to `reach` away as neighbours."""
    intensity = estimate_range(stack, DEFAULT_PERCENTILES)
    planes = [make_example(*pair, intensity=intensity, concept=concept) for pair in zip(stack, labels, strict=True)]
    return [
        replace(plane, neighbours=(planes[max(0, i - reach) : i][::-1], planes[i + 1 : i + 1 + reach]))
        for i, plane in enumerate(planes)
        if i % every == 0 and labels[i].any()
    ]


def make_example(
    image: np.ndarray,
    labels: np.ndarray,
    complete: bool = True,
    intensity: IntensityRange | None = None,
    concept: str = "",
) -> Example:
    """Prepare an (H, W[, C]) image of any dtype and its (H, W) labels for cropping."""
    rgb = to_rgb(image, intensity or estimate_range(image, DEFAULT_PERCENTILES))
    levels = [torch.from_numpy(rgb).permute(2, 0, 1)]
    label_levels = [labels.astype(np.int32)]
    while min(levels[-1].shape[1:]) >= 256 and len(levels) < 3:
        levels.append(F.avg_pool2d(levels[-1], 2))
        height, width = levels[-1].shape[1:]
        label_levels.append(label_levels[-1][::2, ::2][:height, :width])
    return Example([level.round().byte().numpy() for level in levels], label_levels, complete, concept=concept)


@dataclass(frozen=True)
class Window:
    """A rotated, flipped and scaled window of an image.

    Attributes
    ----------
    level : int
        Of the pyramid it is cut from.
    grid : (1, side, side, 2) float32
        Where each of its pixels lies, as `grid_sample` takes it.
    fill : float
        Intensity of what lies outside the image.
    size : float
        Longest side of the chosen object in the window, pixels.
    """

    level: int
    grid: Tensor
    fill: float
    size: float

    def cut(self, example: Example, moved: Tensor | float = 0.0) -> tuple[Tensor, np.ndarray]:
        """Image (3, side, side) float32 0-255 and labels (side, side) int32; `moved` displaces the grid."""
        source = torch.from_numpy(example.images[self.level])[None].float() - self.fill
        labels = torch.from_numpy(example.labels[self.level])[None, None].float()
        grid = self.grid + moved
        image = F.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0] + self.fill
        cut = F.grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return image, cut[0, 0].numpy().astype(np.int32)


def draw_window(example: Example, rng: np.random.Generator, side: int, sizes: tuple[float, float] = SIZES) -> Window:
    """Place a window around a random object, at a zoom at which it has one of these sizes."""
    ids = np.unique(example.labels[0])
    ids = ids[ids > 0]
    if len(ids):
        rows, cols = np.nonzero(example.labels[0] == rng.choice(ids))
        centre = np.array([np.median(rows), np.median(cols)])
        extent = float(max(np.ptp(rows), np.ptp(cols)) + 1)
    else:
        centre, extent = np.array(example.labels[0].shape) * rng.random(2), 40.0
    size = np.exp(rng.uniform(*np.log(sizes)))
    # Not so far away that the crop is mostly outside the image.
    zoom = float(np.clip(size / extent, 0.6 * side / max(example.labels[0].shape), 8.0))
    level = int(np.clip(np.floor(-np.log2(zoom) + 0.5), 0, len(example.images) - 1))
    source = torch.from_numpy(example.images[level])[None].float()
    height, width = source.shape[2:]
    zoom, centre = zoom * 2**level, centre / 2**level
    reach = max(0.0, side / 2 - size / 2)
    shift = np.clip(rng.normal(0, 0.35, 2), -0.9, 0.9) * reach
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.7 else rng.integers(4) * np.pi / 2
    stretch = np.exp(rng.normal(0, 0.08, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag(stretch * [1, rng.choice([-1, 1])]) / zoom  # output (x, y) offset -> source offset
    offset = centre[::-1] - turn @ shift[::-1]
    # affine_grid speaks of -1..1 across each image.
    to_unit = np.diag([2.0 / width, 2.0 / height])
    theta = np.concatenate([to_unit @ turn * (side / 2), (to_unit @ (offset + 0.5) - 1)[:, None]], axis=1)
    grid = F.affine_grid(torch.from_numpy(theta)[None].float(), [1, 1, side, side], align_corners=False)
    # What lies outside the image: black, or as bright as its ground.
    fill = 0.0 if rng.random() < 0.5 else float(source[..., ::4, ::4].median())
    return Window(level, grid, fill, size)


def draw_earlier(example: Example, window: Window, rng: np.random.Generator) -> list[tuple[Tensor, np.ndarray]]:
    """Show the objects of a window on two earlier frames as a tracker remembers them: the last, and one before it.

    Both are of one side where there are neighbours; else the same frame, its
    content displaced and bent.
    """
    sides = [side for side in example.neighbours if side]
    if sides and rng.random() < 0.9:
        side = sides[rng.integers(len(sides))]
        last = min(int(rng.geometric(0.6)), len(side)) - 1
        further = last + int((len(side) - last) * rng.random() ** 1.7)
        return [window.cut(side[last]), window.cut(side[further])]
    return [_bent(example, window, rng) for _ in range(2)]


def _bent(example: Example, window: Window, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    side = window.grid.shape[1]
    coarse = torch.from_numpy(rng.normal(0, 0.08, (1, 2, 7, 7)).astype(np.float32))
    bend = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    shift = torch.from_numpy(rng.normal(0, 0.2, 2).astype(np.float32))
    # The unit of the grid is half an image, ours is the chosen object.
    unit = (window.grid[0, 1, 1] - window.grid[0, 0, 0]).abs().mean() * window.size
    return window.cut(example, (bend + shift) * unit)


def change_look(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Random gamma, contrast, inversion, colour, blur and noise; (3, H, W) 0-255 to the same."""
    x = image / 255.0
    gray = bool((x[0] == x[1]).all() and (x[1] == x[2]).all())
    if rng.random() < (0.2 if gray else 0.05):
        x = 1.0 - x
    if not gray:
        if rng.random() < 0.15:
            x = x.mean(dim=0, keepdim=True).expand(3, -1, -1)
        else:
            scale = torch.tensor(rng.normal(1.0, 0.08, (3, 1, 1)), dtype=torch.float32)
            x = x * scale + torch.tensor(rng.normal(0.0, 0.05, (3, 1, 1)), dtype=torch.float32)
            if rng.random() < 0.2:
                x = x[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.7:
        x = x.clamp(0, 1) ** float(np.exp(rng.normal(0, 0.4)))
    if rng.random() < 0.5:
        x = (x - 0.5) * float(np.exp(rng.normal(0, 0.3))) + 0.5 + rng.normal(0, 0.1)
    if rng.random() < 0.2:
        x = x * _uneven(rng, x.shape[1:])
    if rng.random() < 0.3:
        x = _blur(x, rng.uniform(0.4, 2.2))
    if rng.random() < 0.35:
        strength = np.exp(rng.uniform(np.log(0.01), np.log(0.4)))
        noise = torch.from_numpy(rng.standard_normal((1 if gray else 3, *x.shape[1:]), dtype=np.float32))
        if rng.random() < 0.5:
            noise = noise * x.clamp(min=0.02).sqrt()
        if rng.random() < 0.4:
            noise = _blur(noise, rng.uniform(0.5, 1.2)) * 2
        x = x + float(strength) * noise
    return x.clamp(0, 1) * 255.0


def _uneven(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    coarse = torch.from_numpy(rng.uniform(0.4, 1.2, (1, 1, 3, 3)).astype(np.float32))
    return F.interpolate(coarse, size=tuple(shape), mode="bicubic", align_corners=True)[0]


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = max(1, int(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).to(x.dtype)
    x = F.conv2d(F.pad(x[:, None], (radius, radius, 0, 0), mode="replicate"), taps.view(1, 1, 1, -1))
    return F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), taps.view(1, 1, -1, 1))[:, 0]


def depth_map(labels: np.ndarray) -> np.ndarray:
    """Depth of each pixel inside its object, 0 at the edge and 1 at the deepest point; (H, W) float32."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(_inner(labels))
    deepest = ndimage.maximum(depth, labels, np.arange(labels.max() + 1))
    return (depth / np.maximum(np.atleast_1d(deepest), 1.0)[labels]).astype(np.float32)


def between_objects(labels: np.ndarray) -> np.ndarray:
    """Pixels near two objects at once, on either or on the ground between; (H, W) bool."""
    from scipy import ndimage

    none = labels.max() + 1
    highest = ndimage.maximum_filter(labels, NEAR)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, none), NEAR)
    return (highest > lowest) & (lowest < none)


def _inner(labels: np.ndarray) -> np.ndarray:
    """Pixels of objects, but for those at the edge to another or to the ground; (H, W) bool."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return (labels > 0) & ~edge


@dataclass(frozen=True)
class Sample:
    """A crop with the objects to ask for.

    Attributes
    ----------
    image : (3, S, S) float32, 0-255
    masks : (P, S, S) bool
    dense : (2, S/4, S/4) float32
        Share of each cell inside an object, and depth inside it.
    between : (S/4, S/4) float32
        Share of each cell near two objects.
    complete : bool
    earlier : pairs of (image, masks)
        Other frames with the same objects.
    concept : str
        What the objects are; empty when unknown.
    """

    image: Tensor
    masks: np.ndarray
    dense: Tensor
    between: Tensor
    complete: bool
    earlier: Sequence[tuple[Tensor, np.ndarray]] = ()
    concept: str = ""


def samples(
    groups: Sequence[tuple[float, Sequence[Example]]],
    seed: int,
    side: int,
    prompts: int,
    looks: float = 1.0,
    streams: float = 0.0,
    sizes: tuple[float, float] = SIZES,
) -> Iterator[Sample]:
    """Endless stream of samples.

    Parameters
    ----------
    groups : pairs of (weight, examples)
        A group is drawn by weight, an example in it evenly.
    seed : int
    side : int
        Side of the crops, pixels.
    prompts : int
        Objects asked for in each crop.
    looks : float
        Share of the crops whose look is changed.
    streams : float
        Share of the crops that come with two earlier frames.
    sizes : pair of float
        Shortest and longest side that the chosen object has in its crop, pixels.
    """
    rng = np.random.default_rng(seed)
    shares = np.array([weight for weight, _ in groups]) / sum(weight for weight, _ in groups)
    while True:
        group = groups[rng.choice(len(groups), p=shares)][1]
        example = group[int(rng.integers(len(group)))]
        window = draw_window(example, rng, side, sizes)
        image, labels = window.cut(example)
        frames = [(image, labels)]
        if example.neighbours or rng.random() < streams:
            frames += draw_earlier(example, window, rng)
        # Objects are chosen where they are known: an object of an earlier frame may have left.
        usable = _usable(frames[-1][1])
        for _, seen in frames[1:-1]:
            usable = np.intersect1d(usable, _usable(seen))
        if len(usable) == 0:
            continue
        weights = _changed(labels, frames[1][1], usable) if len(frames) > 1 else np.ones(len(usable))
        chosen = rng.choice(usable, prompts, len(usable) < prompts, weights / weights.sum())
        if rng.random() < looks:
            look = int(rng.integers(2**31))
            # One look for all frames, noise of their own.
            frames = [(change_look(i, np.random.default_rng(look)), seen) for i, seen in frames]
            if len(frames) > 1:
                frames = [(_grain(i, rng), seen) for i, seen in frames]
        ids = np.unique(labels)
        small = np.searchsorted(ids, labels)[::2, ::2] + (ids[0] != 0)
        maps = np.stack([small > 0, depth_map(small), between_objects(small)]).astype(np.float32)
        cells = F.avg_pool2d(torch.from_numpy(maps), 2)
        if len(frames) > 1 and rng.random() < REDRAWN:
            frames = _redrawn(frames, round(rng.uniform(-0.06, 0.08) * window.size), chosen)
        (image, drawn), *earlier = frames
        yield Sample(
            image,
            np.stack([drawn == label for label in chosen]),
            cells[:2],
            cells[2],
            example.complete,
            [(i, np.stack([seen == label for label in chosen])) for i, seen in earlier],
            example.concept,
        )


def _usable(labels: np.ndarray) -> np.ndarray:
    """Ids of the objects that are large enough to be asked for."""
    ids, areas = np.unique(labels, return_counts=True)
    return ids[(ids > 0) & (areas >= 24)]


def _changed(now: np.ndarray, before: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How often each object should be asked for, by how little its mask is the one of the frame before.

    Most masks are, within a few pixels, and teach to copy; ends of objects are what has to be seen.
    """
    count = max(now.max(), before.max()) + 1
    common = np.bincount(now[now == before], minlength=count)[ids]
    areas = (np.bincount(frame.ravel(), minlength=count)[ids] for frame in (now, before))
    return 1.2 - common / np.maximum(sum(areas) - common, 1)


def _redrawn(frames: list[Frame], wider: int, ids: np.ndarray) -> list[Frame]:
    """The same frames, their objects outlined so many pixels wider or, below 0, narrower; unchanged if one is lost."""
    from skimage.segmentation import expand_labels

    if wider == 0:
        return frames
    redrawn = [
        (image, expand_labels(labels, wider) if wider > 0 else _narrower(labels, -wider)) for image, labels in frames
    ]
    kept = all(np.isin(ids, _usable(labels)).all() for _, labels in redrawn[1:])
    return redrawn if kept else frames


def _narrower(labels: np.ndarray, by: int) -> np.ndarray:
    from scipy import ndimage

    return np.where(ndimage.distance_transform_edt(_inner(labels)) > by, labels, 0)


def _grain(image: Tensor, rng: np.random.Generator) -> Tensor:
    strength = 255 * float(np.exp(rng.uniform(np.log(0.003), np.log(0.08))))
    return (image + strength * torch.from_numpy(rng.standard_normal((1, *image.shape[1:]), dtype=np.float32))).clamp(
        0, 255
    )
