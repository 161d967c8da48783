"""Memory encoder: a mask and the frame it lies on to a narrow map to remember (Ravi et al. 2024)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.mlp import by_rows
from napari_segany.models.layers.norm import LayerNorm2d


class MaskDownSampler(nn.Module):
    """Masks at the input's size to stride 16, four strided convolutions and a 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [1, 4, 16, 64, 256]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), LayerNorm2d(c_out), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7 convolution and a feed-forward per pixel (Liu et al. 2022), (B, C, H, W) to the same."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm2d(channels)
        self.pwconv1, self.pwconv2 = Linear(channels, hidden), Linear(hidden, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm.last(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * by_rows(lambda rows: self.pwconv2(self.pwconv1(rows, "gelu")), y)
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """Two ConvNeXt blocks."""

    def __init__(self, channels: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNextBlock(channels, hidden) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Encode memories.

    Parameters
    ----------
    channels, memory_channels, hidden, depth : int
    """

    #: Masks enter as ``SCALE * probability + BIAS``.
    SCALE, BIAS = 20.0, -10.0

    def __init__(self, channels: int = 256, memory_channels: int = 64, hidden: int = 1024, depth: int = 2) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownSampler(channels)
        self.pix_feat_proj = nn.Conv2d(channels, channels, 1)
        self.fuser = Fuser(channels, hidden, depth)
        self.out_proj = nn.Conv2d(channels, memory_channels, 1)

    def forward(self, image: Tensor, probability: Tensor) -> Tensor:
        """Encode.

        Parameters
        ----------
        image : (1, N, C)
            Features of the frame before any memory was added.
        probability : (B, 1, S, S)
            Of "inside the object", at the size of the network's input.

        Returns
        -------
        (B, N, memory_channels)
        """
        masks = self.mask_downsampler(probability * self.SCALE + self.BIAS)
        features = self.pix_feat_proj(image.transpose(1, 2).unflatten(2, masks.shape[2:]))
        return self.out_proj(self.fuser(features + masks)).flatten(2).transpose(1, 2)
