"""An encoded image at several zoom levels, each encoded when it is first needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.boxes import Box
from napari_segany.core.masks import bounding_box
from napari_segany.models.nano.corrections import Drawn
from napari_segany.models.nano.network import STRIDES, WINDOW, Encoder
from napari_segany.models.nano.survey import Survey
from napari_segany.models.nano.views import View

#: Levels larger than this many pixels a side are encoded in parts of it.
TILE = 2048
#: Pixels around a part that are encoded with it and thrown away.
HALO = 128
#: Side of the squares of a level that are encoded or left out, pixels; one each way from a place makes a window.
SQUARE = WINDOW // 2
#: Logit of the dense maps where nothing was encoded.
NOTHING = -20.0
#: Windows encoded by themselves that are kept for the next click, or for objects that are remembered after a look.
RECENT_WINDOWS = 64


@dataclass(frozen=True)
class Features:
    """What the encoder makes of one level; see `Encoder.forward`.

    Attributes
    ----------
    fine, coarse, dense : (1, C, h, w) tensors
    known : (rows, columns) bool, optional
        Squares of `SQUARE` pixels of the level that were encoded, all by default. Elsewhere features are 0 and the
        maps show nothing.
    """

    fine: Tensor
    coarse: Tensor
    dense: Tensor
    known: np.ndarray | None = None

    def cover(self, origin: tuple[int, int]) -> bool:
        """Whether all that a window shows of the level was encoded."""
        if self.known is None:
            return True
        rows, columns = (slice(max(0, first // SQUARE), max(0, -(-(first + WINDOW) // SQUARE))) for first in origin)
        return bool(self.known[rows, columns].all())


@dataclass
class NanoEmbedding:
    """Encoded image of nano.

    Attributes
    ----------
    image_shape : (H, W)
    model_name : str
    image : (1, 3, H, W) tensor
        Intensities mapped to -1..1, kept for the levels not encoded yet.
    levels : dict of level -> Features
        Level k sees the image at ``2 ** -k`` of its size; negative levels enlarge it.
    recent : dict of View -> fine and coarse features
        The last windows that were encoded by themselves.
    drawn : dict of bytes -> Drawn
        See `as_corrections`.
    survey : Survey, optional
        Once it was searched.
    """

    image_shape: tuple[int, int]
    model_name: str
    image: Tensor
    levels: dict[int, Features] = field(default_factory=dict)
    recent: dict[View, tuple[Tensor, Tensor]] = field(default_factory=dict)
    drawn: dict[bytes, Drawn] = field(default_factory=dict)
    survey: Survey | None = None
    # A click and a propagation may ask for the same frame at once.
    _lock: RLock = field(default_factory=RLock, repr=False, compare=False)

    @cached_property
    def ground(self) -> Tensor:
        """What windows show beyond the image's edge: its median, one for each channel, (1, 3, 1, 1)."""
        return self.image.float().flatten(2).median(dim=2).values[..., None, None].to(self.image.dtype)

    @property
    def coarsest(self) -> int:
        """Highest level at which the image still fills half a window."""
        return max(0, math.ceil(math.log2(max(self.image_shape) / (WINDOW / 2))))

    def level_shape(self, level: int) -> tuple[int, int]:
        """(height, width) of a level in its own pixels."""
        height, width = self.image_shape
        return math.ceil(height * 2.0**-level), math.ceil(width * 2.0**-level)

    def encode_level(self, encoder: Encoder, level: int, where: np.ndarray | None = None) -> Features:
        """Features of a level, encoded now or before.

        Parameters
        ----------
        where : (h, w) bool, optional
            In cells of the dense maps of level 0: what to encode with its surroundings, all by default.
        """
        with self._lock:
            if level not in self.levels:
                shape = [-(-extent // 32) * 32 for extent in self.level_shape(level)]
                known = np.ones([-(-extent // SQUARE) for extent in shape], dtype=bool)
                if where is not None:
                    side = round(SQUARE * 2.0**level) // 4
                    rows, columns = (np.arange(0, extent, side) for extent in where.shape)
                    touched = np.logical_or.reduceat(np.logical_or.reduceat(where, rows, 0), columns, 1)
                    known &= binary_dilation(touched, np.ones((3, 3)))
                image = self.image if level <= 0 else _resize(self.image, self.level_shape(level))
                self.levels[level] = _encode(encoder, image, 2 ** max(-level, 0), known)
            return self.levels[level]

    def windows(self, encoder: Encoder, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Features under windows of any levels, P of them.

        A few windows of a level that is large, or was encoded elsewhere, are encoded by themselves, all at once; the
        next click on an object finds them again.

        Returns
        -------
        fine, coarse : (P, C, WINDOW/4, WINDOW/4) and (P, C, WINDOW/8, WINDOW/8)
        """
        with self._lock:
            for level, count in Counter(view.level for view in views).items():
                height, width = self.level_shape(level)
                if level not in self.levels and height * width <= 2 * count * WINDOW**2:
                    self.encode_level(encoder, level)
            found = {view: self._known(view) for view in views}
            new = [view for view, features in found.items() if features is None]
            if new:
                fine, coarse, _ = encoder(torch.cat([_cut_image(self.image, view, self.ground) for view in new]))
                made = {view: (fine[i : i + 1], coarse[i : i + 1]) for i, view in enumerate(new)}
                found |= made
                self.recent |= made
                while len(self.recent) > RECENT_WINDOWS:
                    del self.recent[next(iter(self.recent))]
        fine, coarse = zip(*(found[view] for view in views), strict=True)
        return torch.cat(fine), torch.cat(coarse)

    def _known(self, view: View) -> tuple[Tensor, Tensor] | None:
        """Features of a window that were encoded before."""
        features = self.levels.get(view.level)
        if features is None or not features.cover(view.origin):
            return self.recent.get(view)
        y, x = view.origin
        return _cut(features.fine, y // 4, x // 4, WINDOW // 4), _cut(features.coarse, y // 8, x // 8, WINDOW // 8)


def _resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(image.shape[2:]) == shape:
        return image
    # Half precision has no antialiased kernel on every device.
    scaled = F.interpolate(image.float(), size=shape, mode="bilinear", align_corners=False, antialias=True)
    return scaled.to(image.dtype)


def _encode(encoder: Encoder, image: Tensor, zoom: int, known: np.ndarray) -> Features:
    """Encode squares of an image that is magnified so many times, part by part."""
    height, width = (-(-extent * zoom // 32) * 32 for extent in image.shape[2:])
    whole: list[Tensor] = []
    for part in _parts(known):
        y0, x0, y1, x1 = (SQUARE * edge for edge in part)
        y1, x1 = min(y1, height), min(x1, width)
        top, left = max(0, y0 - HALO), max(0, x0 - HALO)
        encoded = encoder(_magnified(image, zoom, (top, left, min(y1 + HALO, height), min(x1 + HALO, width))))
        if (y0, x0, y1, x1) == (0, 0, height, width):
            whole = list(encoded)
            break
        whole = whole or [
            features.new_full((1, features.shape[1], height // stride, width // stride), filled)
            for features, stride, filled in zip(encoded, STRIDES, (0.0, 0.0, NOTHING), strict=True)
        ]
        for into, features, stride in zip(whole, encoded, STRIDES, strict=True):
            inner = features[:, :, (y0 - top) // stride : (y1 - top) // stride]
            into[:, :, y0 // stride : y1 // stride, x0 // stride : x1 // stride] = inner[
                ..., (x0 - left) // stride : (x1 - left) // stride
            ]
    fine, coarse, dense = whole
    return Features(fine, coarse, dense, known)


def _magnified(image: Tensor, zoom: int, box: Box) -> Tensor:
    """Part (y0, x0, y1, x1) of a magnified image; beyond its edge the outermost pixels go on."""
    # One pixel more on each side than the part shows, for the interpolation.
    rows, columns = (
        torch.arange(box[axis] // zoom - 1, box[axis + 2] // zoom + 1, device=image.device).clamp(0, extent - 1)
        for axis, extent in enumerate(image.shape[2:])
    )
    part = image[:, :, rows][..., columns]
    if zoom > 1:
        part = F.interpolate(part, scale_factor=zoom, mode="bilinear", align_corners=False)
    return part[:, :, zoom:-zoom, zoom:-zoom]


def _parts(known: np.ndarray) -> Iterator[Box]:
    """Rectangles (y0, x0, y1, x1) that cover squares, none larger than `TILE`; few, and with little else in them."""
    height, width = (-(-count // -(-count * SQUARE // TILE)) for count in known.shape)
    for y in range(0, known.shape[0], height):
        for x in range(0, known.shape[1], width):
            for y0, x0, y1, x1 in _rectangles(known[y : y + height, x : x + width]):
                yield y + y0, x + x0, y + y1, x + x1


def _rectangles(known: np.ndarray) -> list[Box]:
    """The same without a limit: a rectangle is cut in two where two cost less, each with its halo."""
    top, left, bottom, right = bounding_box(known)
    if top == bottom:
        return []
    best = [(top, left, bottom, right)]
    for axis, first, last in ((0, top, bottom), (1, left, right)):
        for cut in range(first + 1, last):
            low, high = known.copy(), known.copy()
            (low if axis == 0 else low.T)[cut:] = False
            (high if axis == 0 else high.T)[:cut] = False
            best = min(best, [bounding_box(low), bounding_box(high)], key=_cost)
    if len(best) == 1:
        return best
    return [
        (y + y0, x + x0, y + y1, x + x1)
        for y, x, bottom, right in best
        for y0, x0, y1, x1 in _rectangles(known[y:bottom, x:right])
    ]


def _cost(boxes: Sequence[Box]) -> int:
    """Squares to encode."""
    around = 2 * HALO // SQUARE
    return sum((y1 - y0 + around) * (x1 - x0 + around) for y0, x0, y1, x1 in boxes)


def _cut(features: Tensor, y: int, x: int, side: int) -> Tensor:
    """Cut a square out of (1, C, h, w) features; what lies outside is zero."""
    inside = features[:, :, max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
    left, top = min(max(-x, 0), side), min(max(-y, 0), side)
    return F.pad(inside, (left, side - left - inside.shape[3], top, side - top - inside.shape[2]))


def _cut_image(image: Tensor, view: View, ground: Tensor) -> Tensor:
    """Cut one window straight out of the image, (1, 3, WINDOW, WINDOW).

    Beyond the image's edge it is as bright as the ground, as in training:
    pixels of the edge that go on look like objects.
    """
    scale = 2.0**view.level
    side = WINDOW * scale
    margin = max(1, math.ceil(scale))
    size = math.ceil(side) + 2 * margin + 1
    firsts = [math.floor(o * scale) - margin for o in view.origin]
    rows, cols = (
        torch.arange(first, first + size, device=image.device).clamp(0, extent - 1)
        for first, extent in zip(firsts, image.shape[2:], strict=True)
    )
    patch = image[:, :, rows][:, :, :, cols].float()
    if view.level > 0:
        # Smooth before thinning out, as the resized level does.
        patch = F.interpolate(
            patch, size=(round(size / scale),) * 2, mode="bilinear", align_corners=False, antialias=True
        )
    centres = torch.linspace(0.5, WINDOW - 0.5, WINDOW, device=image.device) * scale
    places = [centres + o * scale for o in view.origin]
    along_y, along_x = ((at - first) / size * 2 - 1 for at, first in zip(places, firsts, strict=True))
    grid = torch.stack(torch.meshgrid(along_y, along_x, indexing="ij")[::-1], dim=-1)[None]
    shown = F.grid_sample(patch, grid, mode="bilinear", padding_mode="border", align_corners=False).to(image.dtype)
    inside_y, inside_x = ((at > 0) & (at < extent) for at, extent in zip(places, image.shape[2:], strict=True))
    return torch.where(inside_y[:, None] & inside_x, shown, ground)
