"""Hiera, the hierarchical image encoder of SAM 2 (Ryali et al. 2023), with the windows SAM 2 gives it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.long_attention import attention
from napari_segany.models.layers.mlp import FeedForward


class PooledAttention(nn.Module):
    """Self-attention inside a window, whose queries may be pooled 2x2.

    Parameters
    ----------
    c_in, c_out, heads : int
    pool : bool
    """

    def __init__(self, c_in: int, c_out: int, heads: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
        self.qkv, self.proj = Linear(c_in, 3 * c_out), Linear(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, c_in) to (B, H, W, c_out), half as high and wide when pooled."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pool:
            q = pool_2x2(q)
        shape = q.shape
        q, k, v = (part.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return self.proj(attention(q, k, v).transpose(1, 2).reshape(shape))


def pool_2x2(x: Tensor) -> Tensor:
    """Maximum of every 2x2 pixels, (B, H, W, C) to (B, H/2, W/2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class HieraBlock(nn.Module):
    """Pre-norm transformer block; the first block of a stage doubles the channels and pools.

    Parameters
    ----------
    c_in, c_out, heads : int
    window : int
        Side of the windows before pooling, tokens; 0 for the whole image.
    pool : bool
    """

    def __init__(self, c_in: int, c_out: int, heads: int, window: int, pool: bool, mlp_ratio: float) -> None:
        super().__init__()
        self.window, self.pool = window, pool
        self.norm1 = nn.LayerNorm(c_in, eps=1e-6)
        self.attn = PooledAttention(c_in, c_out, heads, pool)
        self.norm2 = nn.LayerNorm(c_out, eps=1e-6)
        self.mlp = FeedForward(c_out, int(c_out * mlp_ratio), "gelu")
        if c_in != c_out:
            self.proj = Linear(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, c_in) to (B, H, W, c_out), half as high and wide when pooled."""
        normed = self.norm1(x)
        if x.shape[-1] != self.norm2.normalized_shape[0]:
            x = self.proj(normed)
            x = pool_2x2(x) if self.pool else x
        x = x + self._attend(normed, x.shape[1], x.shape[2])
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor, height: int, width: int) -> Tensor:
        """Attend inside windows; `height` and `width` are those of the answer."""
        if not self.window:
            return self.attn(x)
        # Padding comes after the norm and takes part in the attention, as in training.
        x = F.pad(x, (0, 0, 0, -x.shape[2] % self.window, 0, -x.shape[1] % self.window))
        batch, rows, cols = len(x), x.shape[1] // self.window, x.shape[2] // self.window
        windows = x.view(batch, rows, self.window, cols, self.window, -1).transpose(2, 3).flatten(0, 2)
        seen = self.attn(windows)
        side = seen.shape[1]
        seen = seen.view(batch, rows, cols, side, side, -1).transpose(2, 3)
        return seen.reshape(batch, rows * side, cols * side, -1)[:, :height, :width]


class PatchEmbed(nn.Module):
    """Overlapping 7x7 patches at stride 4, (B, 3, S, S) to (B, S/4, S/4, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 7, stride=4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """Image to features at strides 4, 8, 16 and 32.

    Parameters
    ----------
    channels, heads : int
        Of the first stage; both double from stage to stage.
    stages : 4 ints
        Blocks in each stage.
    global_blocks : indices of the blocks that see the whole image
    windows : 4 ints
        Side of each stage's windows, tokens.
    background : (int, int)
        Size of the learned position map, stretched over the image.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        stages: Sequence[int],
        global_blocks: Sequence[int],
        windows: Sequence[int],
        background: tuple[int, int],
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, channels, *background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, channels, windows[0], windows[0]))
        self.blocks = nn.ModuleList()
        self.ends: list[int] = []
        c_in = channels
        for stage, depth in enumerate(stages):
            for i in range(depth):
                begins = stage > 0 and i == 0
                # The block that pools still sees through the windows of the stage before.
                window = 0 if len(self.blocks) in global_blocks else windows[stage - begins]
                c_out = channels * 2**stage
                self.blocks.append(HieraBlock(c_in, c_out, heads * 2**stage, window, begins, mlp_ratio))
                c_in = c_out
            self.ends.append(len(self.blocks) - 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) normalised to four (B, H, W, C), finest first."""
        x = self.patch_embed(x)
        x = x + self._positions(x.shape[1], x.shape[2])
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                features.append(x)
        return features

    def _positions(self, height: int, width: int) -> Tensor:
        window = self.pos_embed_window
        whole = F.interpolate(self.pos_embed.float(), size=(height, width), mode="bicubic").to(window.dtype)
        tiled = window.tile(1, 1, height // window.shape[2], width // window.shape[3])
        return (whole + tiled).permute(0, 2, 3, 1)
