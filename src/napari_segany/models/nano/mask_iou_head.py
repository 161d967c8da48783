"""How good masks are, from the masks themselves and what of the image lies under, along and around their outlines.

The decoder scores its masks by the mean of the features under them, which says
little of their outlines. As in Mask Scoring R-CNN (Huang et al. 2019) a small
convolutional head looks at mask and features together. It learns after
everything else, from answers that stay as they are
(`napari_segany.training.scores`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Size, in cells at stride 4, at which nano likes to see an object.
USUAL_SIZE = 18.0
#: Numbers of `shape_figures`.
FIGURES = 7


def shape_figures(logits: Tensor) -> Tensor:
    """What masks (..., h, w) look like by themselves, (..., FIGURES) float32, each of the order of one.

    Steadiness, decidedness, contrast, size against the usual one (a logarithm,
    and how far it is off), area, and whether the window cuts the mask.
    """
    logits = logits.float()
    inside = logits > 0
    area = inside.sum(dim=(-2, -1))
    soft = logits.sigmoid()
    steady = (logits > 1).sum(dim=(-2, -1)) / (logits > -1).sum(dim=(-2, -1)).clamp(min=1)
    decided = (2 * soft - 1).clamp(min=0).sum(dim=(-2, -1)) / (soft.sum(dim=(-2, -1)) + 1e-2)
    contrast = logits.abs().mean(dim=(-2, -1)) / 10
    rows, columns = inside.any(dim=-1), inside.any(dim=-2)
    extent = torch.maximum(rows.sum(dim=-1), columns.sum(dim=-1))
    unusual = (extent.clamp(min=1) / USUAL_SIZE).log2() / 2
    cut = (rows[..., 0] | rows[..., -1] | columns[..., 0] | columns[..., -1]).float()
    return torch.stack([steady, decided, contrast, unusual, unusual.abs(), (area + 1).log() / 7, cut], dim=-1)


class MaskIoUHead(nn.Module):
    """Masks, features and the decoder's scores to better scores; before it is taught, to the same scores.

    Parameters
    ----------
    masks : int
        Masks of an answer.
    coarse, tokens : int
        Channels of the features at stride 8, and of the window's mean.
    width : int
        Channels of the convolutions.
    """

    def __init__(self, masks: int, coarse: int, tokens: int, width: int = 32) -> None:
        super().__init__()
        self.masks = masks
        self.features = nn.Conv2d(coarse, width, 1)
        self.mask = nn.Conv2d(4, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.mlp = nn.Sequential(
            nn.Linear(3 * (width + coarse) + tokens + masks + FIGURES + 1, 128), nn.ReLU(), nn.Linear(128, 1)
        )
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, coarse: Tensor, around: Tensor, logits: Tensor, scores: Tensor) -> Tensor:
        """Score masks.

        Parameters
        ----------
        coarse : (P, coarse, h/2, w/2)
            Features that know the prompt.
        around : (P, tokens)
            Of the whole window.
        logits : (P, K, h, w)
            The first K masks.
        scores : (P, K)
            The decoder's logits of the predicted IoU.

        Returns
        -------
        (P, K) logits of the predicted IoU
        """
        prompts, masks = scores.shape
        inside = F.pixel_unshuffle(2 * logits.sigmoid().flatten(0, 1)[:, None] - 1, 2)
        x = F.relu(self.features(coarse)[:, None] + self.mask(inside).unflatten(0, (prompts, masks))).flatten(0, 1)
        x = F.relu(x + self.norm1(self.conv1(x)))
        x = F.relu(self.conv2(x)).unflatten(0, (prompts, masks))
        where = self._places(logits).to(x.dtype)
        seen = [
            torch.einsum("pmahw,pmchw->pmac", where, x).flatten(2),
            torch.einsum("pmahw,pchw->pmac", where, coarse).flatten(2),
            around[:, None].expand(-1, masks, -1),
            torch.eye(self.masks, dtype=x.dtype, device=x.device)[:masks].expand(prompts, -1, -1),
            shape_figures(logits).to(x.dtype),
            scores[..., None].to(x.dtype) / 4,
        ]
        return scores + self.mlp(torch.cat(seen, dim=-1))[..., 0]

    @staticmethod
    def _places(logits: Tensor) -> Tensor:
        """Cells at stride 8 inside masks, along and around their outlines, each adding up to 1; (P, K, 3, h/2, w/2)."""
        inside = F.avg_pool2d((logits > 0).float(), 2)
        grown, shrunk = F.max_pool2d(inside, 3, stride=1, padding=1), -F.max_pool2d(-inside, 3, stride=1, padding=1)
        around = F.max_pool2d(inside, 5, stride=1, padding=2) - inside
        where = torch.stack([inside, grown - shrunk, around], dim=2)
        return where / (where.sum(dim=(-2, -1), keepdim=True) + 1e-2)
