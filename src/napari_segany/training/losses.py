"""Losses of promptable segmentation: focal and dice on masks, cross-entropy on predicted IoU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_WEIGHT, DICE_WEIGHT, SCORE_WEIGHT = 20.0, 1.0, 1.0
#: By how much more the dense maps count between two objects.
BETWEEN_WEIGHT = 8.0


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean focal loss (Lin et al. 2017) over the last two axes; `target` may be a share in 0-1.

    Object and background weigh the same. With the usual weight of 0.25 for the
    object, pixels that are as likely inside as outside are left out: every mask
    comes out a little too small, which costs small objects some points of IoU.
    """
    p = logits.sigmoid()
    error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return 0.5 * ((p - target).abs() ** gamma * error).mean(dim=(-2, -1))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice coefficient over the last two axes (Milletari et al. 2016)."""
    p = logits.sigmoid()
    overlap = 2 * (p * target).sum(dim=(-2, -1))
    return 1 - (overlap + 1) / (p.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) + 1)


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU over the last two axes of ``logits > 0`` with ``target > 0.5``."""
    a, b = logits > 0, target > 0.5
    return (a & b).sum(dim=(-2, -1)) / (a | b).sum(dim=(-2, -1)).clamp(min=1)


def prompt_loss(logits: Tensor, scores: Tensor, truth: Tensor, single: Tensor) -> Tensor:
    """Loss of a batch of answers, as SAM trains them.

    The single mask 0 always learns; of masks 1-3 only the nearest to the truth
    learns, and only from a single click (Kirillov et al. 2023, A.1).

    Parameters
    ----------
    logits : (P, 4, h, w)
    scores : (P, 4)
        Logits of the predicted IoU.
    truth : (P, h, w)
    single : (P,) bool

    Returns
    -------
    scalar
    """
    target = truth[:, None].expand_as(logits)
    per_mask = FOCAL_WEIGHT * focal_loss(logits, target) + DICE_WEIGHT * dice_loss(logits, target)
    # The two losers learn a little too, or a branch that starts badly never returns.
    nearest = per_mask[:, 1:].min(dim=1).values + 0.05 * per_mask[:, 1:].mean(dim=1)
    masks = torch.where(single, per_mask[:, 0] * 0.5 + nearest, per_mask[:, 0])
    iou = mask_iou(logits, target)
    # Cross-entropy has its minimum where squared error has, and a slope where the sigmoid is flat.
    error = F.binary_cross_entropy_with_logits(scores, iou, reduction="none")
    score = torch.where(single, error.mean(dim=1), error[:, 0])
    return masks.mean() + SCORE_WEIGHT * score.mean()


def dense_loss(logits: Tensor, target: Tensor, complete: Tensor, between: Tensor) -> Tensor:
    """Cross-entropy of the dense maps on completely labelled crops.

    Where two objects are near each other it counts more, as in the U-Net
    (Ronneberger et al. 2015): these few cells decide whether they are found as one.

    Parameters
    ----------
    logits, target : (B, 2, h, w)
    complete : (B,) bool
    between : (B, h, w)
        Share of each cell that is near two objects.

    Returns
    -------
    scalar
    """
    error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    each = (error * (1 + BETWEEN_WEIGHT * between[:, None])).mean(dim=(1, 2, 3))
    return (each * complete).sum() / complete.sum().clamp(min=1)
