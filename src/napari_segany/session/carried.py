"""An object's mask on one frame, and what it asks of the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.instances import Found, found_iou
from napari_segany.core.masks import Candidates, bounding_box, interior_point, paste
from napari_segany.core.prompts import Prompt, mask_logits
from napari_segany.core.settings import PropagationSettings


def as_prompt(anchor: Prompt | Carried) -> Prompt:
    """What to ask where an object is known, by its prompts or by the mask given."""
    return Prompt(mask=mask_logits(anchor.mask)) if isinstance(anchor, Carried) else anchor


def by_frame(anchors: Mapping[int, Mapping[int, Prompt | Carried]]) -> dict[int, dict[int, Prompt | Carried]]:
    """What is known of objects (by id) on frames, as frame -> object id -> it; frames in order."""
    found: dict[int, dict[int, Prompt | Carried]] = {}
    for object_id, own in anchors.items():
        for frame, anchor in own.items():
            found.setdefault(frame, {})[object_id] = anchor
    return dict(sorted(found.items()))


@dataclass(frozen=True, eq=False)
class Carried:
    """An object's mask on the frame just done.

    Attributes
    ----------
    shape : (H, W) of the frame
    box : (y0, x0, y1, x1)
        Tight and half-open; zeros when the mask is empty.
    logits : (y1 - y0, x1 - x0) float32
        Positive inside the object.
    score : float
        Predicted IoU.
    """

    shape: tuple[int, int]
    box: Box
    logits: np.ndarray
    score: float

    @classmethod
    def from_candidates(cls, candidates: Candidates) -> Carried:
        """Take the candidate with the highest score."""
        index = candidates.best_index
        box, logits = candidates.grid.logits_patch(candidates.logits[index])
        return cls(candidates.grid.image_shape, box, logits, float(candidates.scores[index]))

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> Carried:
        """Take a mask (H, W) that a person has accepted, sure of every pixel."""
        box = bounding_box(mask)
        inside = mask[box[0] : box[2], box[1] : box[3]]
        return cls(mask.shape, box, mask_logits(inside), 1.0)  # type: ignore[arg-type]

    @property
    def patch(self) -> np.ndarray:
        """The mask inside its box, bool."""
        return self.logits > 0

    @property
    def found(self) -> Found:
        """The box and the mask inside it."""
        return self.box, self.patch

    @property
    def mask(self) -> np.ndarray:
        """The mask on the whole frame, (H, W) bool."""
        return paste(self.shape, self.box, self.patch)

    @property
    def is_empty(self) -> bool:
        """Whether no pixel is inside."""
        return self.box[2] == self.box[0]

    def next_prompt(self) -> Prompt:
        """Ask a neighbouring frame for this object: its box, a point deep inside, and the mask itself."""
        y, x = interior_point(self.patch)
        return Prompt(
            points=np.array([[self.box[0] + y, self.box[1] + x]], dtype=np.float64),
            labels=np.ones(1, dtype=np.int64),
            box=np.array(self.box, dtype=np.float64),
            mask=mask_logits(self.mask),
        )

    def continues(self, earlier: Carried, settings: PropagationSettings) -> bool:
        """Whether this can be the same object as `earlier`, one frame on."""
        if self.is_empty or self.score < settings.min_score:
            return False
        growth = int(self.patch.sum()) / int(earlier.patch.sum())
        if not 1 / settings.max_growth <= growth <= settings.max_growth:
            return False
        return found_iou(self.found, earlier.found) >= settings.min_overlap
