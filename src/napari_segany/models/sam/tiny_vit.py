"""TinyViT-5M, the image encoder of MobileSAM (Wu et al. 2022; Zhang et al. 2023)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import Linear
from napari_segany.models.sam.image_encoder import neck


class ConvNorm(nn.Sequential):
    """Convolution ``c`` without bias and batch norm ``bn``."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(c=conv, bn=nn.BatchNorm2d(c_out)))


class MBConv(nn.Module):
    """Inverted bottleneck: widen, depthwise, narrow, add."""

    def __init__(self, channels: int, expand: int = 4) -> None:
        super().__init__()
        hidden = channels * expand
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Merging(nn.Module):
    """Widen and, with stride 2, halve the grid."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(c_in, c_out)
        self.conv2 = ConvNorm(c_out, c_out, 3, stride, groups=c_out)
        self.conv3 = ConvNorm(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Attention in a window with a learned bias for each distance (|dy|, |dx|)."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        place = torch.arange(window * window)
        y, x = place // window, place % window
        distance = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, window * window, C) to the same."""
        # Each head's queries, keys and values lie together in the projection.
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        bias = self.attention_biases[:, self.distance]  # type: ignore[index]
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(seen.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Norm and two linear layers."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1, self.fc2 = Linear(channels, hidden), Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.norm(x), "gelu"))


class TinyBlock(nn.Module):
    """Window attention, depthwise convolution, feed-forward; (B, C, H, W) to the same."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = FeedForward(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        side = self.window
        # Padding comes before the norm and takes part in the attention, as in training.
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % side, 0, -height % side))
        rows, cols = padded.shape[1] // side, padded.shape[2] // side
        tokens = padded.view(batch, rows, side, cols, side, channels).transpose(2, 3).reshape(-1, side**2, channels)
        seen = self.attn(tokens).view(batch, rows, cols, side, side, channels).transpose(2, 3)
        seen = seen.reshape(batch, rows * side, cols * side, channels)[:, :height, :width]
        x = self.local_conv(x + seen.permute(0, 3, 1, 2))
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks, then a merging layer where one follows."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """Two strided convolutions, (B, 3, S, S) to (B, C, S/4, S/4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, channels // 2, 3, 2), nn.GELU(), ConvNorm(channels // 2, channels, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class TinyViT(nn.Module):
    """Encoder of MobileSAM; grids of S/4, S/8, S/16 and, the last merging having stride 1, S/16.

    Parameters
    ----------
    widths, depths, heads, windows : 4 ints each
        The first stage is convolutional and takes no heads or windows.
    c_out : int
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        c_out: int = 256,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(widths[0])
        stages = []
        for i, width in enumerate(widths):
            blocks: list[nn.Module] = [
                TinyBlock(width, heads[i], windows[i]) if i else MBConv(width) for _ in range(depths[i])
            ]
            down = Merging(width, widths[i + 1], 1 if i == 2 else 2) if i < 3 else None
            stages.append(Stage(blocks, down))
        self.layers = nn.ModuleList(stages)
        # The classifier it was distilled from: in every checkpoint, used by nobody.
        self.norm_head, self.head = nn.LayerNorm(widths[-1]), Linear(widths[-1], 1000)
        self.neck = neck(widths[-1], c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) normalised to (B, c_out, S/16, S/16)."""
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)
