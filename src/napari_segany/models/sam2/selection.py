"""Choosing among candidate masks, and among frames to remember, with the help of motion (SAMURAI, Yang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_segany.core.boxes import box_iou
from napari_segany.core.masks import bounding_box
from napari_segany.core.motion import BoxMotion

#: Frames in a row that must be good before motion has a say.
STABLE_FRAMES = 15
#: Predicted IoU below which a frame is not good enough to learn motion from.
STABLE_SCORE = 0.3
#: Say of the motion against that of the predicted IoU.
MOTION_WEIGHT = 0.25
#: Predicted IoU below which a frame is not remembered.
MEMORY_SCORE = 0.5


class MotionSelection:
    """One motion filter for each object followed in one direction."""

    def __init__(self) -> None:
        self._filters: dict[int, BoxMotion] = {}
        self._stable: dict[int, int] = {}

    def choose(
        self, objects: Sequence[int], logits: np.ndarray, scores: np.ndarray, presence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose a mask for each object and learn its motion.

        Parameters
        ----------
        objects : P ids
        logits : (P, K, h, w)
        scores : (P, K)
            Predicted IoU.
        presence : (P,)
            Logit of "the object is in this frame".

        Returns
        -------
        best : (P,) int
        good : (P,) bool
            Whether the frame is worth remembering for the object.
        """
        best, good = scores.argmax(axis=1), np.zeros(len(objects), dtype=bool)
        for row, object_id in enumerate(objects):
            boxes = np.array([bounding_box(mask > 0) for mask in logits[row]], dtype=np.float64)
            expected = self._filters[object_id].predict() if object_id in self._filters else None
            motion = np.ones(len(boxes)) if expected is None else box_iou(boxes, expected)
            if self._stable.get(object_id, 0) >= STABLE_FRAMES:
                best[row] = (MOTION_WEIGHT * motion + (1 - MOTION_WEIGHT) * scores[row]).argmax()
            pick = best[row]
            self._learn(object_id, boxes[pick], scores[row, pick])
            good[row] = scores[row, pick] > MEMORY_SCORE and presence[row] > 0 and motion[pick] > 0
        return best, good

    def _learn(self, object_id: int, box: np.ndarray, score: float) -> None:
        if score <= STABLE_SCORE or box[2] <= box[0]:
            self._stable[object_id] = 0
            return
        if object_id in self._filters:
            self._filters[object_id].update(box[None], np.array([True]))
        else:
            self._filters[object_id] = BoxMotion(box[None])
        self._stable[object_id] = self._stable.get(object_id, 0) + 1
