"""What tells how good the masks of a click are: the masks themselves, and how far all looks at the click agree.

The right outline is drawn again by other masks and at other zooms; wrong ones
are alone. So of the masks of a click the one counts for the best whose
expected IoU with all others is the highest (the choice of least expected
loss, as in minimum Bayes risk decoding; Kumar & Byrne 2004).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from napari_segany.core.masks import linear_interpolation
from napari_segany.models.nano.network import WINDOW
from napari_segany.models.nano.views import Answer, View

#: Predicted IoUs as near to 0 or 1 as this are as good as those.
EPSILON = 1e-4
#: Size, in cells at stride 4, at which nano likes to see an object.
USUAL_SIZE = 18.0


def describe(looks: Mapping[View, Answer], view: View) -> tuple[Tensor, Tensor, Tensor]:
    """What the judge looks at of the answer seen through one view, among all looks at a click.

    Returns
    -------
    shown : (MASKS, D) float32
        For `Judge`, each figure of the order of one.
    scores : (MASKS,) float32
        The decoder's logits of the predicted IoU.
    expected : (MASKS,) float32
        IoU of each mask with the masks of all looks, weighed by the squares of their scores.
    """
    logits, predicted = (torch.from_numpy(part) for part in looks[view])
    scores = predicted.logit(EPSILON)
    agreeing = agreement(looks, view)
    return torch.cat([figures(logits, scores, view.level), agreeing], dim=1), scores, agreeing[:, 0]


def figures(logits: Tensor, scores: Tensor, level: int) -> Tensor:
    """Size, decidedness and the like of masks (K, h, w), as (K, 9 + 2K) float32.

    Parameters
    ----------
    logits : (K, h, w)
    scores : (K,)
        The decoder's logits of the predicted IoU.
    level : int
        Zoom at which the masks were drawn, see `View`.
    """
    inside = logits > 0
    area = inside.sum(dim=(1, 2))
    soft = logits.sigmoid()
    steady = (logits > 1).sum(dim=(1, 2)) / (logits > -1).sum(dim=(1, 2)).clamp(min=1)
    decided = (2 * soft - 1).clamp(min=0).sum(dim=(1, 2)) / (soft.sum(dim=(1, 2)) + 1e-2)
    contrast = logits.abs().mean(dim=(1, 2)) / 10
    extent = torch.maximum(inside.any(dim=2).sum(dim=1), inside.any(dim=1).sum(dim=1))
    unusual = (extent.clamp(min=1) / USUAL_SIZE).log2() / 2
    outer = torch.zeros_like(inside[0])
    outer[[0, -1]] = outer[:, [0, -1]] = True
    cut = (inside & outer).any(dim=2).any(dim=1).float()
    # The largest is that of a mask with itself: 1, or 0 where it is empty.
    overlaps = _overlaps(inside, inside).sort(dim=1, descending=True).values
    zoom = torch.full_like(cut, level / 2)
    alone = [scores / 4, steady, decided, contrast, unusual, unusual.abs(), (area + 1).log() / 7, cut, zoom]
    return torch.cat([torch.stack(alone, dim=-1), overlaps, torch.eye(len(logits))], dim=-1)


def agreement(looks: Mapping[View, Answer], view: View) -> Tensor:
    """How far the masks seen through one view agree with those of all looks, (MASKS, 6) float32.

    IoU with all masks, weighed by the squares and by the fourth powers of
    their scores; mean and highest IoU with the mask of each other look that is
    most alike; highest and mean score of all masks.
    """
    own = torch.from_numpy(looks[view][0] > 0)
    overlaps = torch.stack([_overlaps(own, _seen_through(view, other, looks[other][0])) for other in looks])
    scores = torch.from_numpy(np.stack([looks[other][1] for other in looks]))
    expected = [
        (overlaps * weight[:, None]).sum(dim=(0, 2)) / weight.sum().clamp(min=EPSILON)
        for weight in (scores**2, scores**4)
    ]
    others = [number for number, other in enumerate(looks) if other != view]
    alike = overlaps[others].amax(dim=2) if others else torch.zeros(1, len(own))
    of_all = [scores.max().expand(len(own)), scores.mean().expand(len(own))]
    return torch.stack([*expected, alike.mean(dim=0), alike.amax(dim=0), *of_all], dim=1)


def _seen_through(view: View, other: View, logits: np.ndarray) -> Tensor:
    """Masks (K, h, w) of another look, in the cells of a view; nothing is inside where that look did not reach."""
    if view == other:
        return torch.from_numpy(logits > 0)
    cells, zoom = WINDOW // 4, 2.0 ** (view.level - other.level)
    along = []
    for ours, theirs in zip(view.origin, other.origin, strict=True):
        start, stop = ((edge * zoom - theirs) / 4 for edge in (ours, ours + WINDOW))
        centres = start + (np.arange(cells) + 0.5) * ((stop - start) / cells)
        reached = (centres >= 0) & (centres <= cells)
        along.append((linear_interpolation(cells, cells, start, stop), reached))
    (rows, reached_rows), (cols, reached_cols) = along
    return torch.from_numpy((rows @ logits @ cols.T > 0) & reached_rows[:, None] & reached_cols)


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every mask of one with every mask of the other, (K, h, w) and (L, h, w) bool to (K, L)."""
    a, b = first.flatten(1).float(), second.flatten(1).float()
    common = a @ b.T
    return common / (a.sum(dim=1)[:, None] + b.sum(dim=1)[None] - common).clamp(min=1)
