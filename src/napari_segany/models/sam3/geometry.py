"""Exemplars: boxes on the image as tokens of a prompt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import Linear
from napari_segany.models.sam2.positions import sine_grid, sine_place
from napari_segany.models.sam3.fusion import FusionLayer

#: Samples along each side of what is cut out under a box.
ROI = 7


def _line(start: Tensor, length: Tensor, extent: int) -> Tensor:
    """Weights (ROI, extent) with which cells of a line are averaged into bins of an interval, linear in between."""
    length = length.clamp(min=1.0)
    samples = max(1, math.ceil(float(length) / ROI))
    offsets = (torch.arange(ROI * samples, device=start.device) + 0.5) / samples
    place = start + offsets * (length / ROI)
    known = ((place >= -1) & (place <= extent)).float()
    place = place.clamp(0, extent - 1)
    distance = (place[:, None] - torch.arange(extent, device=start.device)).abs()
    weights = (1 - distance).clamp(min=0) * known[:, None]
    return weights.unflatten(0, (ROI, samples)).mean(dim=1)


def roi_align(features: Tensor, boxes: Tensor) -> Tensor:
    """Average features in 7 x 7 bins of each box (He et al. 2017).

    Sampling is separable: one weighted sum over rows and one over columns.

    Parameters
    ----------
    features : (C, H, W)
    boxes : (N, 4)
        (x0, y0, x1, y1) in cells of the features; their corners are the centres of cells,
        as in the published model.

    Returns
    -------
    (N, C, 7, 7)
    """
    height, width = features.shape[1:]
    pooled = []
    for x0, y0, x1, y1 in boxes:
        rows, cols = _line(y0, y1 - y0, height), _line(x0, x1 - x0, width)
        pooled.append(torch.einsum("ih,chw,jw->cij", rows, features.float(), cols))
    return torch.stack(pooled).to(features.dtype)


class GeometryEncoder(nn.Module):
    """Encode exemplars.

    Parameters
    ----------
    channels, heads, hidden, depth : int
    """

    def __init__(self, channels: int, heads: int, hidden: int, depth: int) -> None:
        super().__init__()
        # Not like this one, like this one.
        self.label_embed = nn.Embedding(2, channels)
        self.cls_embed = nn.Embedding(1, channels)
        self.boxes_direct_project = Linear(4, channels)
        self.boxes_pool_project = nn.Conv2d(channels, channels, ROI)
        self.boxes_pos_enc_project = Linear(channels + 2, channels)
        self.img_pre_norm = nn.LayerNorm(channels)
        self.final_proj = Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.encode = nn.ModuleList(FusionLayer(channels, heads, hidden) for _ in range(depth))
        self.encode_norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Encode boxes, and a last token that stands for all of them.

        Parameters
        ----------
        image : (1, C, H, W)
        boxes : (N, 4) float32
            (centre x, centre y, width, height) as shares of the image.
        labels : (N,) int64
            1 for an example, 0 for a counter-example.

        Returns
        -------
        (1, N + 1, C)
        """
        cells = image.flatten(2).transpose(1, 2)
        tokens = self.cls_embed.weight
        if len(boxes):
            tokens = torch.cat([self._boxes(image, boxes, labels), tokens])
        x = self.norm(self.final_proj(tokens))[None]
        position = sine_grid(image.shape[2], image.shape[1], image.device).to(image.dtype)
        for layer in self.encode:
            x = layer(x, None, cells, position)
        return self.encode_norm(x)

    def _boxes(self, image: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        normed = self.img_pre_norm(image[0].permute(1, 2, 0)).permute(2, 0, 1)
        centre, size = boxes[:, :2], boxes[:, 2:]
        extent = boxes.new_tensor([image.shape[3], image.shape[2]])
        corners = torch.cat([(centre - size / 2) * extent, (centre + size / 2) * extent], dim=1)
        pooled = self.boxes_pool_project(roi_align(normed, corners)).flatten(1)
        place = [sine_place(centre[:, axis], image.shape[1] // 2) for axis in (1, 0)]
        code = torch.cat([*place, size[:, 1:], size[:, :1]], dim=1).to(image.dtype)
        return (
            self.label_embed(labels)
            + self.boxes_direct_project(boxes.to(image.dtype))
            + pooled
            + self.boxes_pos_enc_project(code)
        )
