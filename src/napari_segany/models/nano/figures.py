"""What tells how good the masks of a click are: the masks themselves, and how far all looks at the click agree.

The right outline is drawn again by other masks and at other zooms; wrong ones
are alone. So the expected IoU of a mask with all others tells much (as in
minimum Bayes risk decoding; Kumar & Byrne 2004).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import numpy as np
import torch
from torch import Tensor

from napari_segany.models.nano.mask_iou_head import shape_figures
from napari_segany.models.nano.views import Answer, View

#: Predicted IoUs as near to 0 or 1 as this are as good as those.
EPSILON = 1e-4


def describe(looks: Mapping[View, Answer]) -> tuple[Tensor, Tensor]:
    """What the judge looks at of the answers to one click, seen through L views.

    Returns
    -------
    shown : (L, MASKS, D) float32
        For `Judge`, each figure of the order of one.
    scores : (L, MASKS) float32
        The decoder's logits of the predicted IoU.
    """
    overlaps = mutual_overlaps(looks)
    predicted = torch.from_numpy(np.stack([scores for _, scores in looks.values()]))
    scores = predicted.logit(EPSILON)
    each = zip(looks.items(), scores, strict=True)
    alone = torch.stack([figures(torch.from_numpy(logits), own, view.level) for (view, (logits, _)), own in each])
    # Of the masks of the same look the largest overlap is that of a mask with itself: 1, or 0 where it is empty.
    same_look = overlaps.diagonal(dim1=0, dim2=2).permute(2, 0, 1).sort(dim=2, descending=True).values
    which = torch.eye(scores.shape[1]).expand_as(same_look)
    return torch.cat([alone, same_look, which, agreement(overlaps, predicted)], dim=-1), scores


def figures(logits: Tensor, scores: Tensor, level: int) -> Tensor:
    """Size, decidedness and the like of masks (K, h, w), as (K, 9) float32.

    Parameters
    ----------
    logits : (K, h, w)
    scores : (K,)
        The decoder's logits of the predicted IoU.
    level : int
        Zoom at which the masks were drawn, see `View`.
    """
    zoom = torch.full_like(scores, level / 2)
    return torch.cat([scores[:, None] / 4, shape_figures(logits), zoom[:, None]], dim=1)


def agreement(overlaps: Tensor, predicted: Tensor) -> Tensor:
    """How far the masks of each look agree with those of all looks, (L, MASKS, 6) float32.

    IoU with all masks, weighed by the squares and by the fourth powers of
    their scores; mean and highest IoU with the mask of each other look that is
    most alike; highest and mean score of all masks.

    Parameters
    ----------
    overlaps : (L, MASKS, L, MASKS)
        See `mutual_overlaps`.
    predicted : (L, MASKS)
        The decoder's predicted IoUs.
    """
    n_looks = len(predicted)
    weighed = [
        (overlaps * weights).sum(dim=(2, 3)) / weights.sum().clamp(min=EPSILON)
        for weights in (predicted**2, predicted**4)
    ]
    alike = overlaps.amax(dim=3) * (1 - torch.eye(n_looks))[:, None]
    of_others = [alike.sum(dim=2) / max(n_looks - 1, 1), alike.amax(dim=2)]
    of_all = [predicted.max().expand_as(predicted), predicted.mean().expand_as(predicted)]
    return torch.stack([*weighed, *of_others, *of_all], dim=-1)


def mutual_overlaps(looks: Mapping[View, Answer]) -> Tensor:
    """IoU of every mask of all looks with every other, (L, MASKS, L, MASKS) float32.

    Two looks are compared in the cells of the finer one. A mask that is cut by
    its window is not taken for larger than what is seen of it.
    """
    views = list(looks)
    finest = min(view.level for view in views)
    inside = [torch.from_numpy(logits > 0) for logits, _ in looks.values()]
    cells = [4.0 ** (view.level - finest) for view in views]
    areas = [masks.sum(dim=(1, 2)) * cell for masks, cell in zip(inside, cells, strict=True)]
    overlaps = torch.empty(len(views), len(inside[0]), len(views), len(inside[0]))
    for pair in combinations_with_replacement(range(len(views)), 2):
        one, other = sorted(pair, key=lambda number: views[number].level)
        seen = torch.from_numpy(views[one].resampled(views[other], looks[views[other]][0]) > 0)
        common = inside[one].flatten(1).float() @ seen.flatten(1).float().T * cells[one]
        iou = common / (areas[one][:, None] + areas[other] - common).clamp(min=1)
        overlaps[one, :, other], overlaps[other, :, one] = iou, iou.T
    return overlaps
