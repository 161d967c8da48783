"""Prompts as images: clicks as blobs, boxes as filled rectangles, masks as probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_segany.models.nano.network import WINDOW

#: Standard deviations of a click's blobs, pixels: where it is, and what is near it.
CLICK_SIGMAS = (5.0, 26.0)


@dataclass(frozen=True)
class WindowPrompts:
    """A batch of prompts in pixels of their own windows, x first.

    Attributes
    ----------
    points : (P, N, 2)
        (x, y); a pixel's centre lies at +0.5.
    labels : (P, N)
        1 inside, 0 outside, -1 padding.
    boxes : (P, 4)
        (x0, y0, x1, y1); NaN where there is none.
    masks : (P, 1, WINDOW/4, WINDOW/4)
        Probabilities of the previous mask.
    has_mask : (P,) float, 1 or 0
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor
    has_mask: Tensor


def render(prompts: WindowPrompts) -> Tensor:
    """Draw prompts at stride 4.

    Returns
    -------
    (P, 8, WINDOW/4, WINDOW/4)
        Positive clicks (narrow, wide), negative clicks (narrow, wide), box, has a
        box, mask, has a mask.
    """
    stride = 4
    cells = WINDOW // stride
    centres = (torch.arange(cells, device=prompts.points.device) + 0.5) * stride
    planes = []
    square_x = (centres[None, None] - prompts.points[..., 0:1]) ** 2  # (P, N, cells)
    square_y = (centres[None, None] - prompts.points[..., 1:2]) ** 2
    for label in (1, 0):
        used = (prompts.labels == label).float()[..., None]
        for sigma in CLICK_SIGMAS:
            along_x = torch.exp(-square_x / (2 * sigma**2))
            along_y = torch.exp(-square_y / (2 * sigma**2)) * used
            blobs = along_y[..., :, None] * along_x[..., None, :]  # (P, N, cells, cells)
            planes.append(blobs.amax(dim=1) if blobs.shape[1] else blobs.new_zeros(len(blobs), cells, cells))
    has_box = ~prompts.boxes.isnan().any(dim=1)
    boxes = prompts.boxes.nan_to_num()
    cover_x = _overlap(centres, stride, boxes[:, 0], boxes[:, 2])
    cover_y = _overlap(centres, stride, boxes[:, 1], boxes[:, 3])
    planes.append(cover_y[:, :, None] * cover_x[:, None, :] * has_box[:, None, None])
    planes.append(has_box.float()[:, None, None].expand(-1, cells, cells))
    flag = prompts.has_mask[:, None, None]
    planes.append(prompts.masks[:, 0] * flag)
    planes.append(flag.expand(-1, cells, cells))
    return torch.stack(planes, dim=1)


def _overlap(centres: Tensor, stride: int, low: Tensor, high: Tensor) -> Tensor:
    """Share of each cell between `low` and `high`, (P, cells)."""
    left = torch.maximum(centres[None] - stride / 2, low[:, None])
    right = torch.minimum(centres[None] + stride / 2, high[:, None])
    return (right - left).clamp(min=0) / stride
