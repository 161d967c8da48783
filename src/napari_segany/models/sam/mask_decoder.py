"""Prompt tokens and image embedding to masks and their predicted IoU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import linear
from napari_segany.models.layers.mlp import Mlp
from napari_segany.models.layers.norm import LayerNorm2d
from napari_segany.models.layers.two_way import TwoWayTransformer


class MaskDecoder(nn.Module):
    """Decode masks.

    Parameters
    ----------
    channels : int
    heads, hidden, depth : int
        Of the two-way transformer.
    score_hidden : int
        Width of the IoU head.
    """

    #: Output 0 answers unambiguous prompts, 1 to 3 are whole, part and sub-part.
    outputs = 4

    def __init__(
        self, channels: int = 256, heads: int = 8, hidden: int = 2048, depth: int = 2, score_hidden: int = 256
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth, channels, heads, hidden)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(self.outputs, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp(channels, channels, channels // 8, 3) for _ in range(self.outputs)
        )
        self.iou_prediction_head = Mlp(channels, score_hidden, self.outputs, 3)

    def forward(self, image: Tensor, image_position: Tensor, prompts: Tensor, outputs: slice) -> tuple[Tensor, Tensor]:
        """Decode a batch of prompts.

        Parameters
        ----------
        image : (P or 1, N, C)
            Image embedding plus the mask prompt's map; one row serves all prompts.
        image_position : (1, N, C)
        prompts : (P, T, C)
        outputs : slice
            Which of the four masks are wanted.

        Returns
        -------
        logits : (P, K, 4 * side, 4 * side) with side = sqrt(N)
        scores : (P, K)
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(len(prompts), -1, -1)
        tokens, image = self.transformer(torch.cat([own, prompts], dim=1), image, image_position)
        wanted = range(self.outputs)[outputs]
        weights = torch.stack([self.output_hypernetworks_mlps[k](tokens[:, 1 + k]) for k in wanted], dim=1)
        return self.masks(image, weights), self.iou_prediction_head(tokens[:, 0])[:, outputs]

    def masks(
        self, image: Tensor, weights: Tensor, finest: Tensor | None = None, finer: Tensor | None = None
    ) -> Tensor:
        """Upscale (P, N, C) four times and multiply with (P, K, C/8) to (P, K, h, w).

        Features of the image of twice and four times the resolution may be added on the way,
        (1, N, 4, C/4) and (1, N, 4, 4, C/8).

        A 2x2 transposed convolution of stride 2 is one matrix product for each
        pixel. Channels stay last throughout; only the few finished masks are
        brought into the order of pixels.
        """
        first, norm, _, second, _ = self.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d) and isinstance(second, nn.ConvTranspose2d)
        assert isinstance(norm, LayerNorm2d)
        side, prompts = int(image.shape[1] ** 0.5), len(image)
        x = split_pixels(image, first)  # (P, N, 4, C/4)
        x = F.gelu(norm.last(x if finer is None else x + finer))
        x = split_pixels(x, second)  # (P, N, 4, 4, C/8)
        x = F.gelu(x if finest is None else x + finest).flatten(1, 3)
        masks = weights @ x.transpose(1, 2)
        # (y, x) of the cell, then (dy, dx) of each of the two splits.
        masks = masks.view(prompts, -1, side, side, 2, 2, 2, 2)
        return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(prompts, -1, 4 * side, 4 * side)


def split_pixels(x: Tensor, up: nn.ConvTranspose2d) -> Tensor:
    """Apply a 2x2 stride-2 transposed convolution to (..., C) pixels: (..., 4, C_out), (dy, dx) row by row."""
    assert up.bias is not None
    weight = up.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * C_out, C)
    return linear(x, weight, up.bias.repeat(4)).unflatten(-1, (4, -1))
