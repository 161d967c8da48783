"""An encoded image at several zoom levels, each encoded when it is first needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import RLock

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.models.nano.network import WINDOW, Encoder

#: Levels larger than this many pixels a side are encoded in tiles of it.
TILE = 1024
#: Windows encoded by themselves that are kept for the next click, or for objects that are remembered after a look.
RECENT_WINDOWS = 64
#: Pixels around a tile that are encoded with it and thrown away.
HALO = 128


@dataclass(frozen=True)
class Features:
    """What the encoder makes of one level; see `Encoder.forward`."""

    fine: Tensor
    coarse: Tensor
    dense: Tensor


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
    recent : dict of (level, origin) -> features of a window
        The last windows that were encoded by themselves.
    """

    image_shape: tuple[int, int]
    model_name: str
    image: Tensor
    levels: dict[int, Features] = field(default_factory=dict)
    recent: dict[tuple[int, tuple[int, int]], tuple[Tensor, Tensor]] = field(default_factory=dict)
    # A click and a propagation may ask for the same frame at once.
    _lock: RLock = field(default_factory=RLock, repr=False, compare=False)

    @property
    def coarsest(self) -> int:
        """Highest level at which the image still fills half a window."""
        return max(0, math.ceil(math.log2(max(self.image_shape) / (WINDOW / 2))))

    def level_shape(self, level: int) -> tuple[int, int]:
        """(height, width) of a level in its own pixels."""
        height, width = self.image_shape
        return math.ceil(height * 2.0**-level), math.ceil(width * 2.0**-level)

    def encode_level(self, encoder: Encoder, level: int) -> Features:
        """Features of a whole level, encoded now or before."""
        with self._lock:
            if level not in self.levels:
                scaled = _resize(self.image, self.level_shape(level))
                self.levels[level] = _encode_in_tiles(encoder, scaled)
            return self.levels[level]

    def windows(self, encoder: Encoder, level: int, origins: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Features under windows of a level.

        Parameters
        ----------
        origins : P x (y, x)
            First pixel of each window at this level, multiples of 8; may lie outside.

        Returns
        -------
        fine, coarse : (P, C, WINDOW/4, WINDOW/4) and (P, C, WINDOW/8, WINDOW/8)
        """
        height, width = self.level_shape(level)
        if level not in self.levels and height * width > 2 * len(origins) * WINDOW**2:
            with self._lock:
                return self._windows_alone(encoder, level, origins)
        features = self.encode_level(encoder, level)
        fine = [_cut(features.fine, y // 4, x // 4, WINDOW // 4) for y, x in origins]
        coarse = [_cut(features.coarse, y // 8, x // 8, WINDOW // 8) for y, x in origins]
        return torch.cat(fine), torch.cat(coarse)

    def _windows_alone(self, encoder: Encoder, level: int, origins: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Encode a few windows of a large level by themselves; the next click on an object finds them again."""
        new = [origin for origin in dict.fromkeys(origins) if (level, origin) not in self.recent]
        made = {}
        if new:
            fine, coarse, _ = encoder(torch.cat([_cut_image(self.image, level, origin) for origin in new]))
            made = {origin: (fine[i : i + 1], coarse[i : i + 1]) for i, origin in enumerate(new)}
        found = [made.get(origin) or self.recent[level, origin] for origin in origins]
        self.recent.update({(level, origin): features for origin, features in made.items()})
        while len(self.recent) > RECENT_WINDOWS:
            del self.recent[next(iter(self.recent))]
        return torch.cat([fine for fine, _ in found]), torch.cat([coarse for _, coarse in found])


def _resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(image.shape[2:]) == shape:
        return image
    # Half precision has no antialiased kernel on every device.
    scaled = F.interpolate(image.float(), size=shape, mode="bilinear", align_corners=False, antialias=True)
    return scaled.to(image.dtype)


def _encode_in_tiles(encoder: Encoder, image: Tensor) -> Features:
    height, width = image.shape[2:]
    padded = F.pad(image.float(), (0, -width % 32, 0, -height % 32), mode="replicate").to(image.dtype)
    height, width = padded.shape[2:]
    if height <= TILE + HALO and width <= TILE + HALO:
        return Features(*encoder(padded))
    rows = []
    for y in range(0, height, TILE):
        row = []
        for x in range(0, width, TILE):
            top, left = max(0, y - HALO), max(0, x - HALO)
            tile = encoder(padded[:, :, top : y + TILE + HALO, left : x + TILE + HALO])
            row.append([_inner(part, y - top, x - left, stride) for part, stride in zip(tile, (4, 8, 4), strict=True)])
        rows.append([torch.cat(parts, dim=3) for parts in zip(*row, strict=True)])
    return Features(*(torch.cat(parts, dim=2) for parts in zip(*rows, strict=True)))


def _inner(part: Tensor, y: int, x: int, stride: int) -> Tensor:
    y, x, side = y // stride, x // stride, TILE // stride
    return part[:, :, y : y + side, x : x + side]


def _cut(features: Tensor, y: int, x: int, side: int) -> Tensor:
    """Cut a square out of (1, C, h, w) features; what lies outside is zero."""
    inside = features[:, :, max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
    left, top = min(max(-x, 0), side), min(max(-y, 0), side)
    return F.pad(inside, (left, side - left - inside.shape[3], top, side - top - inside.shape[2]))


def _cut_image(image: Tensor, level: int, origin: tuple[int, int]) -> Tensor:
    """Cut one window of a level straight out of the image, (1, 3, WINDOW, WINDOW)."""
    height, width = image.shape[2:]
    scale = 2.0**level
    side = WINDOW * scale
    y, x = origin[0] * scale, origin[1] * scale
    margin = max(1, math.ceil(scale))
    y0, x0 = math.floor(y) - margin, math.floor(x) - margin
    size = math.ceil(side) + 2 * margin + 1
    rows = torch.arange(y0, y0 + size, device=image.device).clamp(0, height - 1)
    cols = torch.arange(x0, x0 + size, device=image.device).clamp(0, width - 1)
    patch = image[:, :, rows][:, :, :, cols].float()
    if level > 0:
        # Smooth before thinning out, as the resized level does.
        patch = F.interpolate(
            patch, size=(round(size / scale),) * 2, mode="bilinear", align_corners=False, antialias=True
        )
    unit = torch.linspace(0.5, WINDOW - 0.5, WINDOW, device=image.device) / WINDOW * side
    along_y, along_x = ((start - first + unit) / size * 2 - 1 for start, first in ((y, y0), (x, x0)))
    grid = torch.stack(torch.meshgrid(along_y, along_x, indexing="ij")[::-1], dim=-1)[None]
    return F.grid_sample(patch, grid, mode="bilinear", padding_mode="border", align_corners=False).to(image.dtype)
