"""How nano draws a mask that it was given, and what that says of the masks it draws on the frames around."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.models.nano.views import View
from napari_segany.models.nano.windows import moved_along, signed_depth, window_depth

#: Logits for each cell of depth inside the last mask (or of distance from it) by which that mask outvotes the decoder,
#: where the decoder cannot redraw a mask it was given at all.
PRIOR_WEIGHT = 4.0
#: Logits for each cell by which the outline that was given lies beyond the one that was drawn.
LOGITS_PER_CELL = 1.5
#: Cells from an outline from which on it makes no difference how far it is.
FARTHEST = 3.0
#: Predicted IoUs up to which an object stays where it was, and from which it is where the decoder draws it.
UNSURE, SURE = 0.6, 0.9


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A mask that was given on a frame against what the decoder draws there.

    Attributes
    ----------
    iou : float
        Of one with the other.
    missing : (h, w) float32
        By how many cells each cell of the window is deeper inside the mask that was given.
    drawn : (h, w) bool
        What the decoder draws.
    level : int
        Zoom of the window, see `View`.
    """

    iou: float
    missing: np.ndarray
    drawn: np.ndarray
    level: int

    @classmethod
    def compare(cls, given: np.ndarray, drawn: np.ndarray, level: int, iou: float) -> Redrawn:
        """Compare a mask's `signed_depth` (h, w) in a window with what is drawn there, (h, w) bool."""
        missing = _near(given) - _near(signed_depth(drawn))
        return cls(iou, missing.astype(np.float32), drawn, level)

    def correction(self, inside: np.ndarray, level: int, last: np.ndarray) -> np.ndarray:
        """Logits (h, w) to be added on another frame to what the decoder draws there, (h, w) bool.

        An outline that is drawn too wide or too narrow on one frame is so on
        the next, the less, the more the object has grown or shrunk. It goes
        back towards the last mask, of which `last` is the `signed_depth`, and
        never beyond: what is mended on every frame would drift away.
        """
        if level != self.level or not (inside.any() and self.drawn.any()):
            return np.zeros(inside.shape, dtype=np.float32)
        missing = moved_along(self.missing, self.drawn, inside, 1.0)
        back = _near(last) - _near(signed_depth(inside))
        sizes = np.count_nonzero(inside), np.count_nonzero(self.drawn)
        towards = np.clip(missing, np.minimum(back, 0), np.maximum(back, 0))
        return LOGITS_PER_CELL * min(sizes) / max(sizes) * towards


def as_given(answer: Candidates, prompt: Prompt, view: View, redrawn: Redrawn | None) -> Candidates:
    """Draw an object more as a person drew it, the less the decoder is trusted with it and the less sure it is.

    Where the decoder drew another outline than it was given, it is taken to
    err in the same way on the next frames. What is left of its doubt is given
    to the last mask, which is moved along with an object of which it is sure.
    """
    score = float(answer.scores[0])
    doubt = 1.0 - (1.0 if redrawn is None else redrawn.iou) * math.sqrt(score)
    sure = float(np.clip((score - UNSURE) / (SURE - UNSURE), 0, 1))
    inside = answer.logits[0] > 0
    last = window_depth(prompt, view)
    depth = moved_along(last, last > 0, inside, sure)
    logits = answer.logits[0] + PRIOR_WEIGHT * doubt * _near(depth)
    if redrawn is not None:
        logits = logits + redrawn.correction(inside, view.level, moved_along(last, last > 0, inside, 1.0))
    return replace(answer, logits=logits[None].astype(np.float32))


def _near(depth: np.ndarray) -> np.ndarray:
    return np.clip(depth, -FARTHEST, FARTHEST)
