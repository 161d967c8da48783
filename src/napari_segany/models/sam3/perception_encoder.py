"""Perception encoder: a plain vision transformer with rotary positions, mostly in windows (Bolya et al. 2025)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.long_attention import attention
from napari_segany.models.layers.mlp import FeedForward
from napari_segany.models.sam2.positions import rotate, rotations


class RotarySelfAttention(nn.Module):
    """Self-attention whose queries and keys are rotated by their place, (B, N, C) to the same."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = Linear(channels, 3 * channels), Linear(channels, channels)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """Attend; `turn` as `rotations` makes it, (N, C / heads / 2)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, turn), rotate(k, turn)
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention within windows, or over the whole grid when `window` is its side; pre-norm."""

    def __init__(self, channels: int, heads: int, hidden: int, window: int, spacing: float) -> None:
        super().__init__()
        self.window, self.spacing = window, spacing
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = RotarySelfAttention(channels, heads)
        self.mlp = FeedForward(channels, hidden, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same; H and W are multiples of the window."""
        batch, height, width, channels = x.shape
        side = self.window
        turn = rotations(side, channels // self.attn.heads, x.device, self.spacing)
        windows = self.norm1(x).view(batch, height // side, side, width // side, side, channels)
        windows = windows.transpose(2, 3).reshape(-1, side * side, channels)
        seen = self.attn(windows, turn).view(batch, height // side, width // side, side, side, channels)
        x = x + seen.transpose(2, 3).reshape(x.shape)
        return x + self.mlp(self.norm2(x))


class PerceptionEncoder(nn.Module):
    """Image to features.

    Parameters
    ----------
    channels, depth, heads, hidden : int
    patch : int
        Side of a patch, pixels.
    grid : int
        Patches along each side of the input.
    window : int
        Patches along each side of a window; divides the grid.
    global_blocks : ints
        Blocks that see the whole grid, with positions squeezed into a window's range.
    learned : int
        Side of the grid of learned positions, which are repeated over the image.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        heads: int,
        hidden: int,
        patch: int,
        grid: int,
        window: int,
        global_blocks: Collection[int],
        learned: int,
    ) -> None:
        super().__init__()
        self.grid, self.learned = grid, learned
        self.patch_embed = nn.Conv2d(3, channels, patch, stride=patch, bias=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, learned**2, channels))
        self.ln_pre = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(
            Block(channels, heads, hidden, grid, window / grid)
            if i in global_blocks
            else Block(channels, heads, hidden, window, 1.0)
            for i in range(depth)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) to (B, C, S / patch, S / patch)."""
        x = self.patch_embed(pixels).permute(0, 2, 3, 1)
        times = -(-self.grid // self.learned)
        place = self.pos_embed.unflatten(1, (self.learned, self.learned)).repeat(1, times, times, 1)
        x = self.ln_pre(x + place[:, : self.grid, : self.grid])
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)
