"""SAM's image encoder: a plain ViT with windows and decomposed relative positions (Li et al. 2022, ViTDet)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.mlp import FeedForward
from napari_segany.models.layers.norm import LayerNorm2d

#: Attention scores held at once; a buffer of this size is used again and again.
SCORES_AT_ONCE = 8_388_608


#: Windows attended to together: their queries, keys and values stay in cache.
WINDOWS_AT_ONCE = 5


class RelativeAttention(nn.Module):
    """Self-attention on a square of tokens with learned relative positions per axis.

    Parameters
    ----------
    channels, heads : int
    side : int
        Tokens along each side of the square.
    """

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        width = channels // heads
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, side * side, C) to the same."""
        batch, tokens, channels = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, v = (part.reshape(batch * self.heads, tokens, -1) for part in (q, v))
        # Laid out as the products need it, which would otherwise be done again for each of them.
        k = k.transpose(2, 3).reshape(batch * self.heads, -1, tokens)
        along_y, along_x = self._relative(q)
        out = torch.empty_like(v)
        _attend(q * q.shape[-1] ** -0.5, k, v, along_y, along_x, out)
        return self.proj(out.view(batch, self.heads, tokens, -1).transpose(1, 2).reshape(batch, tokens, channels))

    def _relative(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Score of each query with each row and with each column, two (G, side * side, side)."""
        place = torch.arange(self.side, device=q.device)
        distance = place[:, None] - place[None] + self.side - 1
        grid = q.unflatten(1, (self.side, self.side))
        along_y = torch.einsum("gyxc,ykc->gyxk", grid, self.rel_pos_h[distance])
        along_x = torch.einsum("gyxc,xkc->gyxk", grid, self.rel_pos_w[distance])
        return along_y.flatten(1, 2), along_x.flatten(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, along_y: Tensor, along_x: Tensor, out: Tensor) -> None:
    """Softmax attention with a bias that is a sum over rows and columns, written into `out`.

    Queries and values are (G, N, C), keys (G, C, N).

    The fused kernel would need the bias as a (G, N, N) tensor; here scores are
    made for a part of the queries at a time in one buffer that stays in cache.
    """
    groups, tokens, _ = q.shape
    side = along_y.shape[-1]
    rows = max(1, min(tokens, SCORES_AT_ONCE // tokens))
    together = max(1, SCORES_AT_ONCE // (tokens * rows)) if rows == tokens else 1
    buffer = q.new_empty(together, rows, tokens)
    for g in range(0, groups, together):
        part = slice(g, min(g + together, groups))
        for r in range(0, tokens, rows):
            some = slice(r, min(r + rows, tokens))
            scores = buffer[: part.stop - part.start, : some.stop - some.start]
            bias = scores.unflatten(2, (side, side))
            torch.add(along_y[part, some, :, None], along_x[part, some, None, :], out=bias)
            torch.baddbmm(scores, q[part, some], k[part], out=scores)
            torch.softmax(scores, dim=-1, out=scores)
            torch.bmm(scores, v[part], out=out[part, some])


class Block(nn.Module):
    """Pre-norm transformer block, inside windows or over the whole image.

    Parameters
    ----------
    window : int
        Side of the windows, tokens; 0 for the whole image.
    """

    def __init__(self, channels: int, heads: int, hidden: int, grid: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = RelativeAttention(channels, heads, window or grid)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = FeedForward(channels, hidden, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        batch, height, width, channels = x.shape
        tokens = self.norm1(x)
        if self.window:
            # Padding comes after the norm and takes part in the attention, as in training.
            tokens = F.pad(tokens, (0, 0, 0, -width % self.window, 0, -height % self.window))
            rows, cols = tokens.shape[1] // self.window, tokens.shape[2] // self.window
            tokens = tokens.view(batch, rows, self.window, cols, self.window, channels).transpose(2, 3)
            windows = tokens.reshape(-1, self.window**2, channels)
            seen = torch.cat([self.attn(part) for part in windows.split(WINDOWS_AT_ONCE)])
            seen = seen.view(batch, rows, cols, self.window, self.window, channels).transpose(2, 3)
            seen = seen.reshape(batch, rows * self.window, cols * self.window, channels)[:, :height, :width]
        else:
            seen = self.attn(tokens.flatten(1, 2)).view_as(x)
        x = x + seen
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Patches to tokens, (B, 3, S, S) to (B, S/16, S/16, C)."""

    def __init__(self, patch: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


def neck(c_in: int, c_out: int) -> nn.Sequential:
    """1x1 and 3x3 convolutions with layer norms that end every encoder of the family."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 1, bias=False),
        LayerNorm2d(c_out),
        nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
        LayerNorm2d(c_out),
    )


class ImageEncoderViT(nn.Module):
    """ViT-B, L or H.

    Parameters
    ----------
    channels, depth, heads : int
    global_blocks : indices of the blocks that see the whole image
    input_size, patch, window : int
    c_out : int
    mlp_ratio : float
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        heads: int,
        global_blocks: Sequence[int],
        input_size: int = 1024,
        patch: int = 16,
        window: int = 14,
        c_out: int = 256,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        grid = input_size // patch
        self.patch_embed = PatchEmbed(patch, channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, channels))
        self.blocks = nn.ModuleList(
            Block(channels, heads, int(channels * mlp_ratio), grid, 0 if i in global_blocks else window)
            for i in range(depth)
        )
        self.neck = neck(channels, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) normalised to (B, c_out, S/16, S/16)."""
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
