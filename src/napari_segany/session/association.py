"""Which detection continues which track: overlap, motion, appearance and score, weighed against one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from napari_segany.core.boxes import box_iou
from napari_segany.core.instances import Found, common_pixels, found_iou
from napari_segany.core.settings import TrackSettings


def mask_overlaps(first: Sequence[Found], second: Sequence[Found]) -> np.ndarray:
    """IoU of every mask with every other, (N, M) float64."""
    return _of_pairs(found_iou, first, second)


def mask_shares(first: Sequence[Found], second: Sequence[Found]) -> np.ndarray:
    """Share of every mask's area that lies in every other, (N, M) float64."""
    return _of_pairs(lambda one, other: common_pixels(one, other) / np.count_nonzero(one[1]), first, second)


def _of_pairs(measure: Callable[[Found, Found], float], first: Sequence[Found], second: Sequence[Found]) -> np.ndarray:
    """What is measured of every pair of masks, (N, M) float64; 0 where their boxes do not meet."""
    found = np.zeros((len(first), len(second)))
    if not found.size:
        return found
    boxes = [np.array([box for box, _ in masks], dtype=np.float64) for masks in (first, second)]
    for i, j in zip(*np.nonzero(box_iou(boxes[0][:, None], boxes[1][None]) > 0), strict=True):
        found[i, j] = measure(first[i], second[j])
    return found


def similarity(
    overlaps: np.ndarray,
    expected: np.ndarray,
    boxes: np.ndarray,
    looks: tuple[np.ndarray, np.ndarray] | None,
    scores: np.ndarray,
    settings: TrackSettings,
) -> np.ndarray:
    """How well detections continue tracks, (N, M) in 0-1.

    Parameters
    ----------
    overlaps : (N, M)
        IoU of the masks that the memory found with those detected.
    expected : (N, 4), or (N, 6) in space
        Boxes where motion puts the tracks; NaN where it is not known.
    boxes : (M, 4), or (M, 6)
        Of the detections.
    looks : (N, D) and (M, D), optional
        Appearance of tracks and detections.
    scores : (M,)
    settings : TrackSettings
    """
    weights = [settings.overlap_weight, settings.motion_weight, settings.score_weight]
    moved = np.nan_to_num(box_iou(expected[:, None], boxes[None]))
    parts = [overlaps, moved, np.broadcast_to(scores, overlaps.shape)]
    if looks is not None:
        tracks, found = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-6) for each in looks)
        weights.append(settings.appearance_weight)
        parts.append(np.clip(tracks @ found.T, 0, 1))
    total = sum(weight * part for weight, part in zip(weights, parts, strict=True)) / max(sum(weights), 1e-9)
    near = (overlaps > 0) | (moved > 0)
    return np.where(near, total, 0.0)


def assign(likeness: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs (track, detection) of the assignment with the largest sum, each at least so alike."""
    from scipy.optimize import linear_sum_assignment

    pairs = zip(*linear_sum_assignment(np.where(likeness >= least, likeness, 0.0), maximize=True), strict=True)
    return [(int(i), int(j)) for i, j in pairs if likeness[i, j] >= least]
