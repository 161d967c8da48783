"""What queries say: how well they fit the concept, and which pixels they mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.mlp import Mlp

#: Scores are logits between plus and minus this.
LARGEST_SCORE = 12.0


class PromptMlp(nn.Module):
    """Residual feed-forward and a norm, (..., C) to the same."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = Mlp(channels, hidden, channels, 2).layers
        self.out_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.layers
        return self.out_norm(x + second(first(x, "relu")))


class ConceptScoring(nn.Module):
    """Compare queries with the mean of the prompt's tokens."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.prompt_mlp = PromptMlp(channels, hidden)
        self.prompt_proj, self.hs_proj = Linear(channels, channels), Linear(channels, channels)

    def forward(self, queries: Tensor, prompt: Tensor) -> Tensor:
        """(Q, C) and (1, T, C) to logits (Q,) float32."""
        concept = self.prompt_proj(self.prompt_mlp(prompt).mean(dim=1))[0]
        scores = (self.hs_proj(queries) @ concept).float() * queries.shape[1] ** -0.5
        return scores.clamp(-LARGEST_SCORE, LARGEST_SCORE)


class PixelDecoder(nn.Module):
    """Features from coarse to fine, each added to the coarser enlarged."""

    def __init__(self, channels: int, steps: int = 2) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(steps))
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(steps))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) from fine to coarse to the finest."""
        *finer, x = levels
        for level, conv, norm in zip(reversed(finer), self.conv_layers, self.norms, strict=True):
            x = F.relu(norm(conv(level + F.interpolate(x, size=level.shape[2:], mode="nearest"))))
        return x


class SegmentationHead(nn.Module):
    """Masks of queries as products with a map of pixels (Cheng et al. 2021)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.cross_attend_prompt = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.cross_attn_norm = nn.LayerNorm(channels)
        self.pixel_decoder = PixelDecoder(channels)
        self.instance_seg_head = nn.Conv2d(channels, channels, 1)
        self.mask_embed = Mlp(channels, channels, channels, 3)

    def pixels(self, levels: Sequence[Tensor], fused: Tensor, prompt: Tensor) -> Tensor:
        """Map of pixels for all queries.

        Parameters
        ----------
        levels : three (1, C, H, W), fine to coarse
            `fused` stands in for the last.
        fused : (1, N, C)
        prompt : (1, T, C)

        Returns
        -------
        (1, C, H, W) of the finest level
        """
        fused = fused + self.cross_attend_prompt(self.cross_attn_norm(fused), prompt, prompt, need_weights=False)[0]
        coarse = fused.transpose(1, 2).reshape(levels[-1].shape)
        return self.instance_seg_head(self.pixel_decoder([*levels[:-1], coarse]))

    def forward(self, pixels: Tensor, queries: Tensor) -> Tensor:
        """(1, C, H, W) and (Q, C) to mask logits (Q, H, W)."""
        return torch.einsum("qc,chw->qhw", self.mask_embed(queries), pixels[0])
