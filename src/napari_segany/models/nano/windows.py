"""Prompts on the image as prompts in a window: the one place where (y, x) becomes (x, y)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.prompts import Prompt
from napari_segany.models.nano.corrections import Correction
from napari_segany.models.nano.network import WINDOW
from napari_segany.models.nano.prompt_maps import WindowPrompts
from napari_segany.models.nano.views import View


def to_windows(prompts: Sequence[Prompt], views: Sequence[View]) -> WindowPrompts:
    """Move each prompt into the window of its view."""
    count = len(prompts)
    most = max(1, max(len(prompt.points) for prompt in prompts))
    points = torch.zeros(count, most, 2)
    labels = torch.full((count, most), -1)
    boxes = torch.full((count, 4), torch.nan)
    masks = torch.zeros(count, 1, WINDOW // 4, WINDOW // 4)
    has_mask = torch.zeros(count)
    for i, (prompt, view) in enumerate(zip(prompts, views, strict=True)):
        scale, (oy, ox) = 2.0**-view.level, view.origin
        n = len(prompt.points)
        if n:
            yx = (prompt.points + 0.5) * scale - (oy, ox)
            points[i, :n] = torch.from_numpy(yx[:, ::-1].copy())
            labels[i, :n] = torch.from_numpy(prompt.labels)
        if prompt.box is not None:
            y0, x0, y1, x1 = prompt.box * scale - (oy, ox, oy, ox)
            boxes[i] = torch.tensor([x0, y0, x1, y1])
        if isinstance(prompt, Correction):
            masks[i, 0] = torch.from_numpy(view.resampled(prompt.drawn.view, prompt.drawn.logits)).sigmoid()
            has_mask[i] = 1.0
        elif prompt.mask is not None:
            masks[i, 0] = _mask_in_window(prompt.mask, view)
            has_mask[i] = 1.0
    return WindowPrompts(points, labels, boxes, masks, has_mask)


def _mask_in_window(logits: np.ndarray, view: View) -> Tensor:
    """Probability of a mask prompt in the cells of a window, (WINDOW/4, WINDOW/4)."""
    scale, (height, width) = 2.0**view.level, logits.shape
    y0, x0 = (o * scale for o in view.origin)
    side = WINDOW * scale
    top, left = max(0, math.floor(y0)), max(0, math.floor(x0))
    bottom, right = min(height, math.ceil(y0 + side)), min(width, math.ceil(x0 + side))
    full = torch.zeros(math.ceil(side), math.ceil(side))
    if bottom > top and right > left:
        part = torch.from_numpy(logits[top:bottom, left:right]).sigmoid()
        dy, dx = top - math.floor(y0), left - math.floor(x0)
        full[dy : dy + part.shape[0], dx : dx + part.shape[1]] = part[: full.shape[0] - dy, : full.shape[1] - dx]
    cells = (WINDOW // 4, WINDOW // 4)
    return F.interpolate(full[None, None], size=cells, mode="bilinear", align_corners=False, antialias=True)[0, 0]


def window_depth(prompt: Prompt, view: View) -> np.ndarray:
    """Distance of each cell of a window from the outline of a mask prompt, negative outside; (WINDOW/4, WINDOW/4).

    Zeros where the window has no outline in it.
    """
    assert prompt.mask is not None
    return signed_depth(_mask_in_window(prompt.mask, view).numpy() > 0.5)


def signed_depth(inside: np.ndarray) -> np.ndarray:
    """Distance of each cell from the outline of a mask (h, w) bool, negative outside; zeros where it has none."""
    if not inside.any() or inside.all():
        return np.zeros(inside.shape)
    distance = ndimage.distance_transform_edt
    return np.where(inside, distance(inside) - 0.5, 0.5 - distance(~inside))


def moved_along(values: np.ndarray, known: np.ndarray, inside: np.ndarray, share: float) -> np.ndarray:
    """Values (h, w) that belong to a known mask, moved by a share of the way from its centre to that of another mask.

    They stay where one of the masks (h, w) is empty.
    """
    if not (known.any() and inside.any()):
        return values
    way = np.subtract(ndimage.center_of_mass(inside), ndimage.center_of_mass(known))
    return ndimage.shift(values, share * way, order=1, mode="nearest")
