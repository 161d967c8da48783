"""Query decoder: two hundred guesses look at the prompt and at the image, and settle on boxes (Carion et al. 2020)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.mlp import Mlp
from napari_segany.models.sam2.positions import sine_place

#: Shares closer than this to 0 or 1 are taken for this far away before their logit is taken.
EPSILON = 1e-3


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of a share, kept finite."""
    return (x.clamp(min=EPSILON) / (1 - x).clamp(min=EPSILON)).log()


def corners(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) to (x0, y0, x1, y1), (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


class Guesses(NamedTuple):
    """What the queries came to.

    Attributes
    ----------
    queries : (Q, C)
    boxes : (Q, 4) float32
        (x0, y0, x1, y1) as shares of the image.
    presence : scalar float32
        Logit of "there is such a thing in this image".
    """

    queries: Tensor
    boxes: Tensor
    presence: Tensor


class QueryLayer(nn.Module):
    """Queries among themselves, to the prompt, to the image, feed-forward; post-norm."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn, self.ca_text, self.cross_attn = (
            nn.MultiheadAttention(channels, heads, batch_first=True) for _ in range(3)
        )
        self.norm1, self.norm2, self.norm3, self.catext_norm = (nn.LayerNorm(channels) for _ in range(4))
        self.linear1, self.linear2 = Linear(channels, hidden), Linear(hidden, channels)

    def forward(
        self, x: Tensor, position: Tensor, prompt: Tensor, image: Tensor, placed_image: Tensor, bias: Tensor
    ) -> Tensor:
        """Queries (1, Q, C), prompt (1, T, C), image (1, N, C) and bias (heads, Q, N) to (1, Q, C)."""
        placed = x + position
        x = self.norm2(x + self.self_attn(placed, placed, x, need_weights=False)[0])
        x = self.catext_norm(x + self.ca_text(x + position, prompt, prompt, need_weights=False)[0])
        seen = self.cross_attn(x + position, placed_image, image, attn_mask=bias, need_weights=False)[0]
        x = self.norm1(x + seen)
        return self.norm3(x + self.linear2(self.linear1(x, "relu")))


class QueryDecoder(nn.Module):
    """Decode queries.

    Parameters
    ----------
    channels, heads, hidden, depth, queries : int
    """

    def __init__(self, channels: int, heads: int, hidden: int, depth: int, queries: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(QueryLayer(channels, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)
        self.query_embed = nn.Embedding(queries, channels)
        self.reference_points = nn.Embedding(queries, 4)
        self.bbox_embed = Mlp(channels, channels, 4, 3)
        self.ref_point_head = Mlp(2 * channels, channels, channels, 2)
        self.boxRPB_embed_x, self.boxRPB_embed_y = (Mlp(2, channels, heads, 2) for _ in range(2))
        self.presence_token = nn.Embedding(1, channels)
        self.presence_token_head = Mlp(channels, channels, 1, 3)
        self.presence_token_out_norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor, position: Tensor, prompt: Tensor, side: int) -> Guesses:
        """Settle on boxes.

        Parameters
        ----------
        image, position : (1, side * side, C)
        prompt : (1, T, C)
        side : int
        """
        dtype, channels = image.dtype, image.shape[2]
        # The token of presence goes before the queries and has no place.
        x = torch.cat([self.presence_token.weight, self.query_embed.weight])[None]
        boxes = self.reference_points.weight.float().sigmoid()
        placed_image = image + position
        for layer in self.layers:
            code = torch.cat([sine_place(boxes[:, k], channels // 2) for k in (1, 0, 2, 3)], dim=1)
            place = F.pad(self.ref_point_head(code.to(dtype)), (0, 0, 1, 0))[None]
            bias = F.pad(self._bias(boxes, side, dtype), (0, 0, 1, 0))
            x = layer(x, place, prompt, image, placed_image, bias)
            queries = self.norm(x[0, 1:])
            boxes = (inverse_sigmoid(boxes) + self.bbox_embed(queries).float()).sigmoid()
        presence = self.presence_token_head(self.presence_token_out_norm(x[0, 0])).float()[0]
        return Guesses(queries, corners(boxes), presence)

    def _bias(self, boxes: Tensor, side: int, dtype: torch.dtype) -> Tensor:
        """How much each query's box draws it to each cell, (heads, Q, side * side)."""
        grid = torch.arange(side, device=boxes.device) / side
        x0, y0, x1, y1 = corners(boxes).unbind(dim=1)
        biases = []
        for edges, embed in (((y0, y1), self.boxRPB_embed_y), ((x0, x1), self.boxRPB_embed_x)):
            distance = 8 * (grid[None, :, None] - torch.stack(edges, dim=1)[:, None])  # (Q, side, 2)
            scaled = distance.sign() * (distance.abs() + 1).log2() / math.log2(8)
            biases.append(embed(scaled.to(dtype)).permute(2, 0, 1))
        rows, cols = biases
        return (rows[..., None] + cols[..., None, :]).flatten(2)
