"""Simulated people: first prompts on an object and corrective clicks on what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from napari_segany.core.masks import bounding_box
from napari_segany.models.nano.network import WINDOW
from napari_segany.models.nano.prompt_maps import WindowPrompts

#: 1 for what is missing and 0 for what is too much, the (row, column) deepest in it, and how deep that is.
Error = tuple[int, tuple[int, int], float]
#: Share of first prompts that are a click, a box, or the mask of a neighbouring frame.
KINDS = {"click": 0.45, "box": 0.3, "mask": 0.25}


def first_prompts(masks: np.ndarray, rng: np.random.Generator) -> tuple[WindowPrompts, Tensor]:
    """Draw a first prompt for each mask.

    Parameters
    ----------
    masks : (P, WINDOW, WINDOW) bool, none empty

    Returns
    -------
    prompts : WindowPrompts of P prompts
    single : (P,) bool
        Whether the prompt is one click and nothing else.
    """
    count = len(masks)
    points = np.zeros((count, 1, 2), dtype=np.float32)
    labels = np.full((count, 1), -1, dtype=np.int64)
    boxes = np.full((count, 4), np.nan, dtype=np.float32)
    previous = np.zeros((count, 1, WINDOW // 4, WINDOW // 4), dtype=np.float32)
    has_mask = np.zeros(count, dtype=np.float32)
    kinds = rng.choice(list(KINDS), size=count, p=list(KINDS.values()))
    for i, (mask, kind) in enumerate(zip(masks, kinds, strict=True)):
        click = kind == "click" or rng.random() < (0.2 if kind == "box" else 0.6)
        seen = mask
        if kind == "mask":
            seen = neighbour_mask(mask, rng)
            previous[i, 0] = _pool(seen)
            has_mask[i] = 1.0
        if kind == "box" or (kind == "mask" and rng.random() < 0.6):
            boxes[i] = _jittered_box(seen, rng, 0.05 if kind == "box" else 0.08)
        if click:
            both = seen & mask
            points[i, 0] = inner_click(both if both.any() else mask, rng)
            labels[i, 0] = 1
    prompts = WindowPrompts(*(torch.from_numpy(a) for a in (points, labels, boxes, previous, has_mask)))
    return prompts, torch.from_numpy(kinds == "click")


def mask_prompts(masks: np.ndarray) -> WindowPrompts:
    """Prompts that are masks (P, WINDOW, WINDOW) alone."""
    count, cells = len(masks), WINDOW // 4
    pooled = masks.reshape(count, 1, cells, 4, cells, 4).mean(axis=(3, 5), dtype=np.float32)
    return WindowPrompts(
        torch.zeros(count, 1, 2),
        torch.full((count, 1), -1),
        torch.full((count, 4), torch.nan),
        torch.from_numpy(pooled),
        torch.ones(count),
    )


def spoiled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as the model itself might have found it: now and then its outline is wrong."""
    from scipy import ndimage

    if rng.random() < 0.5:
        return mask
    size = np.sqrt(mask.sum())
    soft = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.02, 0.08) * size + 0.5)
    noise = ndimage.zoom(rng.normal(0, 0.1, (8, 8)), WINDOW / 8, order=1)
    changed = soft + noise > np.clip(rng.normal(0.5, 0.1), 0.2, 0.8)
    return changed if changed.sum() >= 12 else mask


def inner_click(mask: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Draw (x, y) inside a mask: half of the time the deepest pixel, else any not too near the edge."""
    from scipy import ndimage

    y0, x0, y1, x1 = bounding_box(mask)
    depth = ndimage.distance_transform_edt(np.pad(mask[y0:y1, x0:x1], 1))[1:-1, 1:-1]
    if rng.random() < 0.5:
        y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    else:
        rows, cols = np.nonzero(depth >= rng.uniform(0, 0.7) * depth.max())
        pick = rng.integers(len(rows))
        y, x = rows[pick], cols[pick]
    return float(x) + x0 + 0.5, float(y) + y0 + 0.5


def neighbour_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask as the frame before or after might have shown it: moved, resized, its outline changed."""
    from scipy import ndimage

    y0, x0, y1, x1 = bounding_box(mask)
    size = max(y1 - y0, x1 - x0)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.02, 0.12) * size + 0.5)
    noise = ndimage.zoom(rng.normal(0, 0.12, (8, 8)), WINDOW / 8, order=1)
    moved = ndimage.shift(soft + noise, rng.normal(0, 0.1 * size, 2), order=1, mode="nearest")
    changed = moved > np.clip(rng.normal(0.5, 0.13), 0.15, 0.85)
    return changed if changed.sum() >= 12 else mask


def _jittered_box(mask: np.ndarray, rng: np.random.Generator, jitter: float) -> np.ndarray:
    y0, x0, y1, x1 = bounding_box(mask)
    box = np.array([x0, y0, x1, y1], dtype=np.float32)
    if rng.random() < 0.7:
        box += rng.normal(0, jitter, 4) * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
    return box


def _pool(mask: np.ndarray) -> np.ndarray:
    side = WINDOW // 4
    return mask.reshape(side, 4, side, 4).mean(axis=(1, 3), dtype=np.float32)


def deepest_errors(wanted: np.ndarray, given: np.ndarray) -> Iterator[Error | None]:
    """Where a person would click next, for masks (P, h, w) and what they should be; None where nothing is wrong."""
    from scipy import ndimage

    for truth, answer in zip(wanted, given, strict=True):
        worst: Error | None = None
        for label, error in ((1, truth & ~answer), (0, answer & ~truth)):
            if error.any():
                depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
                if worst is None or depth.max() > worst[2]:
                    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
                    worst = label, (int(y), int(x)), float(depth.max())
        yield worst


def with_correction(prompts: WindowPrompts, truth: Tensor, logits: Tensor, rng: np.random.Generator) -> WindowPrompts:
    """Add the previous answer and one click deep inside the largest error.

    Parameters
    ----------
    truth : (P, h, w)
        Share of each cell inside the object, at stride 4.
    logits : (P, h, w)
        The answer to `prompts`.
    """
    points = torch.zeros(len(truth), 1, 2)
    labels = torch.full((len(truth), 1), -1)
    for i, error in enumerate(deepest_errors(truth.numpy() > 0.5, logits.numpy() > 0)):
        if error is not None:
            labels[i, 0], (y, x), depth = error
            jitter = rng.uniform(-0.5, 0.5, 2) * min(1.0, depth / 2)
            points[i, 0] = torch.tensor([(x + 0.5 + jitter[0]) * 4, (y + 0.5 + jitter[1]) * 4])
    return WindowPrompts(
        torch.cat([prompts.points, points], dim=1),
        torch.cat([prompts.labels, labels], dim=1),
        prompts.boxes,
        logits[:, None].sigmoid(),
        # A script may give several clicks at once, without any mask before them.
        torch.from_numpy((rng.random(len(truth)) < 0.7).astype(np.float32)),
    )
