"""Fixed codes of places and of distances in time."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

TEMPERATURE = 10000.0
#: Numbers rotated at once, so that what they are on the way stays in a CPU's cache.
TURNED_AT_ONCE = 2**20


@lru_cache(maxsize=8)
def sine_grid(side: int, channels: int, device: torch.device) -> Tensor:
    """Sine codes of a square grid (Carion et al. 2020), (1, side * side, channels), y before x."""
    place = torch.arange(1, side + 1, device=device, dtype=torch.float32) / (side + 1e-6)
    codes = sine_place(place, channels // 2)  # (side, channels / 2)
    ys = codes[:, None].expand(-1, side, -1)
    xs = codes[None].expand(side, -1, -1)
    return torch.cat([ys, xs], dim=-1).flatten(0, 1)[None]


def sine_place(place: Tensor, channels: int) -> Tensor:
    """Sine codes of shares of an extent, (N,) to (N, channels): sines and cosines by turns."""
    index = torch.arange(channels, device=place.device)
    angles = place[:, None] * (2 * math.pi) / TEMPERATURE ** (2 * (index // 2) / channels)
    return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)


def sine_distance(distance: Tensor, channels: int) -> Tensor:
    """Sine codes of distances, (...) to (..., channels): all sines, then all cosines."""
    index = torch.arange(channels // 2, device=distance.device)
    angles = distance[..., None] / TEMPERATURE ** (2 * (index // 2) / (channels // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@lru_cache(maxsize=8)
def rotations(side: int, channels: int, device: torch.device, spacing: float = 1.0) -> Tensor:
    """Rotations of a square grid for `rotate`, (side * side, channels / 2) complex: x first, then y."""
    frequency = 1.0 / TEMPERATURE ** (torch.arange(0, channels, 4, device=device)[: channels // 4] / channels)
    place = torch.arange(side * side, device=device)
    along_x = torch.outer((place % side) * spacing, frequency)
    along_y = torch.outer((place // side) * spacing, frequency)
    angles = torch.cat([along_x, along_y], dim=1)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """Rotate adjacent pairs of channels (RoPE, Su et al. 2021).

    Parameters
    ----------
    x : (..., K * N, C)
    by : (N, C / 2) complex
        Used again for each of the K frames that follow one another in `x`.
    """
    frames = x.reshape(-1, len(by), x.shape[-1])
    turned = torch.empty_like(frames)
    together = max(1, TURNED_AT_ONCE // frames[0].numel())
    for some, into in zip(frames.split(together), turned.split(together), strict=True):
        pairs = torch.view_as_complex(some.float().unflatten(-1, (-1, 2)))
        into.copy_(torch.view_as_real(pairs * by).flatten(-2))
    return turned.view(x.shape)
