"""Points, boxes and masks as tokens and as a map (Kirillov et al. 2023, A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_segany.models.layers.norm import LayerNorm2d


class FourierPositions(nn.Module):
    """Random Fourier features of positions in 0-1; the matrix belongs to the checkpoint."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, positions: Tensor) -> Tensor:
        """(..., 2) positions (x, y) to (..., 2 * features)."""
        # Half precision is too coarse for a pixel's place in the image.
        matrix = self.positional_encoding_gaussian_matrix.float()
        angles = 2 * math.pi * ((2 * positions.float() - 1) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, side: int) -> Tensor:
        """Codes of the cell centres of a square grid, (1, side * side, C)."""
        centres = (torch.arange(side, device=self.positional_encoding_gaussian_matrix.device) + 0.5) / side
        ys, xs = torch.meshgrid(centres, centres, indexing="ij")
        return self(torch.stack([xs, ys], dim=-1)).flatten(0, 1)[None]


class PromptEncoder(nn.Module):
    """Encode prompts for the mask decoder.

    Parameters
    ----------
    channels : int
    grid : int
        Side of the image embedding.
    input_size : int
        Side of the network's input, pixels.
    mask_channels : int
        Channels of the mask branch before its last convolution.
    """

    def __init__(self, channels: int = 256, grid: int = 64, input_size: int = 1024, mask_channels: int = 16) -> None:
        super().__init__()
        self.grid, self.input_size = grid, input_size
        self.pe_layer = FourierPositions(channels // 2)
        # Outside, inside, first and second corner of a box.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def tokens(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Encode points and box corners.

        Parameters
        ----------
        coords : (P, N, 2)
            (x, y) in pixels of the network's input; a pixel's centre is a whole number.
        labels : (P, N)
            -1 padding, 0 outside, 1 inside, 2 and 3 the corners of a box.

        Returns
        -------
        (P, N, C)
        """
        codes = self.pe_layer((coords + 0.5) / self.input_size).to(self.no_mask_embed.weight.dtype)
        kinds = torch.cat([self.not_a_point_embed.weight, *self.point_embeddings.parameters()])
        return torch.where((labels == -1)[..., None], 0.0, codes) + kinds[labels + 1]

    def dense(self, masks: Tensor | None) -> Tensor:
        """Encode mask logits (P, 1, 4 * grid, 4 * grid) as (P, grid * grid, C); (1, 1, C) without masks."""
        if masks is None:
            return self.no_mask_embed.weight[None]
        return self.mask_downscaling(masks.to(self.no_mask_embed.weight.dtype)).flatten(2).transpose(1, 2)
