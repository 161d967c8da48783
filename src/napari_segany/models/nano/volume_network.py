"""Network that draws an object on all planes of a window from its mask on a few of them.

A 3D U-Net that learns dense volumes from sparse annotation (Çiçek et al.
2016), of one object at a time: what is known of it goes in beside the pixels.
Its first steps are in the planes alone, since microscopes resolve them better
than the axis across.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.core.volume_windows import WindowShape

#: What it is taught on.
VOLUME_WINDOW = WindowShape(reach=12, side=48, object_size=20.0)
#: Channels that go in: pixels, what is known, and where there is anything to be seen.
CHANNELS = 3
#: Channels at full resolution.
STEM = 16
#: Added to the deviation of a window's brightness, which is its unit.
LEAST_CONTRAST = 0.02


class Residual3d(nn.Module):
    """Residual block of two 3x3x3 convolutions behind norms, (P, C, D, h, w) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


def _in_plane(c_in: int, c_out: int) -> nn.Conv3d:
    return nn.Conv3d(c_in, c_out, (1, 3, 3), padding=(0, 1, 1))


def _halved(c_in: int, c_out: int) -> nn.Conv3d:
    """To half as many planes, rows and columns."""
    return nn.Conv3d(c_in, c_out, (3, 2, 2), stride=2, padding=(1, 0, 0))


def _to_size_of(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


class VolumeNetwork(nn.Module):
    """See the module.

    Parameters
    ----------
    widths : 3 ints
        Channels at half, a quarter and an eighth of the rows and columns.
    """

    def __init__(self, widths: tuple[int, int, int] = (32, 64, 96)) -> None:
        super().__init__()
        w2, w4, w8 = widths
        self.stem = _in_plane(CHANNELS, STEM)
        self.down2 = nn.Conv3d(STEM, w2, (3, 4, 4), stride=(1, 2, 2), padding=1)
        self.down4, self.down8 = _halved(w2, w4), _halved(w4, w8)
        self.enter2, self.enter4 = Residual3d(w2), Residual3d(w4)
        self.middle = nn.Sequential(Residual3d(w8), Residual3d(w8))
        self.lateral4, self.lateral2 = nn.Conv3d(w8, w4, 1), nn.Conv3d(w4, w2, 1)
        self.leave4, self.leave2 = Residual3d(w4), Residual3d(w2)
        self.lateral1, self.refine = nn.Conv3d(w2, STEM, 1), _in_plane(STEM, STEM)
        self.to_logits = _in_plane(STEM, 1)

    def forward(self, pixels: Tensor, given: Tensor, seen: Tensor) -> Tensor:
        """Draw objects.

        Parameters
        ----------
        pixels : (P, D, h, w)
            Brightness from 0 to 1; h and w multiples of 8.
        given : (P, D, h, w)
            On planes where the object is known, 1 inside and -1 outside, less for a mask that may be wrong; else 0.
        seen : (P, D, h, w)
            1 where there are pixels, 0 beyond the image and where they cannot be read.

        Returns
        -------
        (P, D, h, w)
            Logits.
        """
        x1 = F.silu(self.stem(torch.stack([standardised(pixels, seen), given, seen], dim=1)))
        x2 = self.enter2(self.down2(x1))
        x4 = self.enter4(self.down4(x2))
        x8 = self.middle(self.down8(x4))
        x4 = self.leave4(x4 + _to_size_of(self.lateral4(x8), x4))
        x2 = self.leave2(x2 + _to_size_of(self.lateral2(x4), x2))
        x1 = x1 + _to_size_of(self.lateral1(x2), x1)
        return self.to_logits(F.silu(x1 + self.refine(F.silu(x1))))[:, 0]

    def from_all_sides(self, pixels: Tensor, given: Tensor, seen: Tensor) -> Tensor:
        """The mean of what `forward` draws of windows turned in four ways, (P, D, h, w).

        An object is the same whichever way it lies, which the network knows only roughly: together the ways err less.
        """
        drawn = [
            _turned(self(*(_turned(values, -quarters) for values in (pixels, given, seen))), quarters)
            for quarters in range(4)
        ]
        return torch.stack(drawn).mean(dim=0)


def _turned(values: Tensor, quarters: int) -> Tensor:
    """Windows (P, D, h, w) after so many quarter turns in the plane, each of which also mirrors the planes."""
    turned = torch.rot90(values, quarters, (2, 3))
    return turned.flip(1) if quarters % 2 else turned


def standardised(pixels: Tensor, seen: Tensor) -> Tensor:
    """Pixels (P, D, h, w) of which those that are seen have the mean 0 and about the deviation 1; 0 elsewhere."""
    axes = (1, 2, 3)
    count = seen.sum(dim=axes, keepdim=True).clamp(min=1)
    off = pixels - (pixels * seen).sum(dim=axes, keepdim=True) / count
    deviation = ((off * seen).square().sum(dim=axes, keepdim=True) / count).sqrt()
    return off / (deviation + LEAST_CONTRAST) * seen
