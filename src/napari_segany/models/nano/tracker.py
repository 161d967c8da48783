"""Following objects through a stack: nano's memory of each."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_segany.core.boxes import Box
from napari_segany.core.masks import Candidates, bounding_box, mask_iou, paste
from napari_segany.core.motion import BoxMotion
from napari_segany.core.parts import in_parts
from napari_segany.core.prompts import Prompt, mask_logits
from napari_segany.models.nano.embedding import NanoEmbedding
from napari_segany.models.nano.redrawing import Redrawn, as_given
from napari_segany.models.nano.views import COMFORTABLE_SIZE, View, comfortable_level
from napari_segany.models.nano.windows import window_depth

if TYPE_CHECKING:
    from napari_segany.models.nano.predictor import NanoModel

#: An object whose predicted IoU is lower is not in the frame.
MIN_SCORE = 0.02
#: A mask that grows or shrinks by a larger factor from one frame to the next is not believed.
MAX_GROWTH = 4.0
#: Frames on which an object may be missing before it is given up.
GAP = 3
#: Objects that are answered together: their masks are held as whole planes, and the windows through which they are
#: looked at are found again when they are remembered.
TOGETHER = 32
#: An object keeps its zoom level until its size is off by this factor.
LEVEL_SLACK = 1.9


@dataclass(frozen=True)
class Memory:
    """What is kept of one object on one frame.

    Attributes
    ----------
    box : (y0, x0, y1, x1)
    patch : (y1 - y0, x1 - x0) bool
        The mask in its box.
    view : View
        Window through which the object was seen.
    tokens : (M, C)
        See `Decoder.remember`.
    redrawn : Redrawn or None
        What the decoder makes of the mask, where it was given.
    """

    box: Box
    patch: np.ndarray
    view: View
    tokens: Tensor
    redrawn: Redrawn | None = None


class NanoTracker:
    """Memories of objects on one stack: the last frame of each, and every frame it was given on.

    Parameters
    ----------
    model : NanoModel
    motion : bool
        Look for an object where its movement leads, not where it was last.
    """

    encodes = True

    def __init__(self, model: NanoModel, motion: bool = False) -> None:
        self.model, self.motion = model, motion
        self.moving: dict[tuple[int, bool], tuple[int, BoxMotion]] = {}
        self.given: dict[int, dict[int, Memory]] = defaultdict(dict)
        self.latest: dict[int, tuple[int, Memory]] = {}

    @torch.inference_mode()
    def condition(self, frame: int, embedding: NanoEmbedding, given: Mapping[int, Prompt]) -> dict[int, Candidates]:
        """Learn objects on a frame; see `Tracker.condition`."""
        answers: dict[int, Candidates] = {}
        for part in in_parts(list(given), TOGETHER):
            answers.update(self._condition(frame, embedding, {i: given[i] for i in part}))
        return answers

    def _condition(self, frame: int, embedding: NanoEmbedding, given: Mapping[int, Prompt]) -> dict[int, Candidates]:
        answers = dict(zip(given, self.model.predict(embedding, list(given.values())), strict=True))
        masks = {}
        for object_id, answer in answers.items():
            known = given[object_id].known_mask
            masks[object_id] = answer.best if known is None else known
        memories = self._memorise(embedding, masks)
        redrawn = self._redraw(embedding, {i: masks[i] for i in memories}, memories)
        for object_id, memory in memories.items():
            self.given[object_id][frame] = replace(memory, redrawn=redrawn[object_id])
        return answers

    def _redraw(
        self, embedding: NanoEmbedding, masks: Mapping[int, np.ndarray], memories: Mapping[int, Memory]
    ) -> dict[int, Redrawn]:
        """What the decoder makes of masks on their own frame, with that frame in memory."""
        views = {i: memory.view for i, memory in memories.items()}
        tokens = {i: memory.tokens for i, memory in memories.items()}
        prompts = {i: _as_prompt(mask) for i, mask in masks.items()}
        again = self.model.look(embedding, prompts, views, tokens)
        return {
            i: Redrawn.compare(
                window_depth(prompts[i], views[i]),
                answer.logits[0] > 0,
                views[i].level,
                mask_iou(answer.mask(0), masks[i]),
            )
            for i, answer in again.items()
        }

    @torch.inference_mode()
    def remind(self, frame: int, embedding: NanoEmbedding, masks: Mapping[int, np.ndarray]) -> None:
        """Remember masks found earlier on; see `Tracker.remind`."""
        for object_id, memory in self._memorise(embedding, masks).items():
            self.latest[object_id] = frame, memory

    def forget(self, object_id: int) -> None:
        """Drop an object."""
        for table in (self.given, self.latest):
            table.pop(object_id, None)
        for backward in (False, True):
            self.moving.pop((object_id, backward), None)

    @torch.inference_mode()
    def follow(
        self, frame: int, embedding: NanoEmbedding, objects: Collection[int], backward: bool = False
    ) -> dict[int, Candidates]:
        """Find objects on the next frame; see `Tracker.follow`.

        An object is looked for where it was last, with that frame and the
        nearest one it was given on in memory.
        """
        found: dict[int, Candidates] = {}
        for part in in_parts(list(objects), TOGETHER):
            found.update(self._follow(frame, embedding, part, backward))
        return found

    def _follow(
        self, frame: int, embedding: NanoEmbedding, objects: Sequence[int], backward: bool
    ) -> dict[int, Candidates]:
        recalled = {i: self._recall(i, frame, backward) for i in objects}
        prompts, views, memories = {}, {}, {}
        for object_id, known in recalled.items():
            if known:
                last = known[0]
                mask = self._expected(object_id, frame, backward, embedding.image_shape, last)
                prompts[object_id] = _as_prompt(mask)
                views[object_id] = View.at(_centre(bounding_box(mask)), _level(last, embedding.coarsest))
                memories[object_id] = torch.cat([memory.tokens for memory in known])
        answers = self.model.look(embedding, prompts, views, memories)
        answers = {i: as_given(answer, prompts[i], views[i], recalled[i][-1].redrawn) for i, answer in answers.items()}
        found = {i: answer for i, answer in answers.items() if _is_plausible(answer, recalled[i][0])}
        if self.motion:
            for object_id, answer in found.items():
                self._learn_motion(object_id, frame, backward, answer.patch(0)[0])
        levels = {i: views[i].level for i in found}
        masks = {i: answer.best for i, answer in found.items()}
        for object_id, memory in self._memorise(embedding, masks, levels).items():
            self.latest[object_id] = frame, memory
        return found

    def _expected(self, object_id: int, frame: int, backward: bool, shape: tuple[int, int], last: Memory) -> np.ndarray:
        """The last mask, moved to where the object should be by now; (H, W) bool."""
        mask = paste(shape, last.box, last.patch)
        if (object_id, backward) not in self.moving:
            return mask
        at, motion = self.moving[object_id, backward]
        ahead = copy.deepcopy(motion).predict(abs(frame - at))[0]
        dy, dx = np.rint(np.subtract(_centre(ahead), _centre(last.box))).astype(int)
        moved = np.zeros_like(mask)
        y0, x0, y1, x1 = last.box
        top, left = max(0, y0 + dy), max(0, x0 + dx)
        bottom, right = min(shape[0], y1 + dy), min(shape[1], x1 + dx)
        if bottom <= top or right <= left:
            return mask
        moved[top:bottom, left:right] = mask[top - dy : bottom - dy, left - dx : right - dx]
        return moved if moved.any() else mask

    def _learn_motion(self, object_id: int, frame: int, backward: bool, box: Box) -> None:
        boxes = np.array([box], dtype=np.float64)
        if (object_id, backward) in self.moving:
            at, motion = self.moving[object_id, backward]
            motion.predict(abs(frame - at))
            motion.update(boxes, np.array([True]))
        else:
            motion = BoxMotion(boxes)
        self.moving[object_id, backward] = frame, motion

    def _recall(self, object_id: int, frame: int, backward: bool) -> list[Memory]:
        """The last frame the object was seen on, then the nearest it was given on; empty when it is lost."""
        step = -1 if backward else 1
        at = {f: memory for f, memory in self.given[object_id].items() if (frame - f) * step > 0}
        if object_id in self.latest and (frame - self.latest[object_id][0]) * step > 0:
            at.setdefault(*self.latest[object_id])
        if not at:
            return []
        last = min(at, key=lambda f: abs(frame - f))
        if abs(frame - last) > GAP:
            return []
        nearest = min(self.given[object_id], key=lambda f: abs(frame - f), default=last)
        return [at[last]] if nearest == last else [at[last], self.given[object_id][nearest]]

    def _memorise(
        self, embedding: NanoEmbedding, masks: Mapping[int, np.ndarray], levels: Mapping[int, int] | None = None
    ) -> dict[int, Memory]:
        boxes = {i: bounding_box(mask) for i, mask in masks.items()}
        boxes = {i: box for i, box in boxes.items() if box[2] > box[0]}
        views = {}
        for i, box in boxes.items():
            own = comfortable_level(max(box[2] - box[0], box[3] - box[1]), embedding.coarsest)
            views[i] = View.at(_centre(box), own if levels is None else levels[i])
        prompts = {i: _as_prompt(masks[i]) for i in boxes}
        tokens = self.model.remember(embedding, prompts, views)
        return {
            i: Memory(box, masks[i][box[0] : box[2], box[1] : box[3]], views[i], tokens[i]) for i, box in boxes.items()
        }


def _as_prompt(mask: np.ndarray) -> Prompt:
    return Prompt(mask=mask_logits(mask))


def _is_plausible(answer: Candidates, last: Memory) -> bool:
    """Whether a mask can be the object of a memory, a few frames on."""
    _, patch = answer.patch(0)
    if float(answer.scores[0]) < MIN_SCORE or not patch.any():
        return False
    growth = np.count_nonzero(patch) / np.count_nonzero(last.patch)
    return bool(1 / MAX_GROWTH <= growth <= MAX_GROWTH)


def _centre(box: Sequence[float] | np.ndarray) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _level(memory: Memory, coarsest: int) -> int:
    """The level of the memory, unless the object has grown or shrunk too far for it."""
    size = max(memory.box[2] - memory.box[0], memory.box[3] - memory.box[1])
    off = abs(math.log2(size * 2.0**-memory.view.level / COMFORTABLE_SIZE))
    return memory.view.level if off < math.log2(LEVEL_SLACK) else comfortable_level(size, coarsest)
