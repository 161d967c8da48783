"""Following objects through a stack: what SAM 2 remembers of each, and what it makes of the next frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.models.batches import in_batches
from napari_segany.models.sam2.mask_decoder import Decoded
from napari_segany.models.sam2.network import MEMORY_SLOTS, POINTERS, chosen
from napari_segany.models.sam2.selection import MotionSelection

if TYPE_CHECKING:
    from napari_segany.models.sam2.predictor import Sam2Embedding, Sam2Model

#: Logit of every pixel of an object that is not in the frame.
ABSENT_LOGIT = -1024.0
#: Logit of the pixels of a mask that was given.
GIVEN_LOGIT = 10.0
#: Objects whose memories are attended to at once.
BATCH = {"cpu": 4, "cuda": 32, "mps": 8}


@dataclass(frozen=True)
class Memory:
    """What is kept of one object on one frame.

    Attributes
    ----------
    features : (N, c) bfloat16
    pointer : (C,)
    good : bool
        Whether later frames may look at it when there are others to choose from.
    """

    features: Tensor
    pointer: Tensor
    good: bool = True


class Sam2Tracker:
    """Memories of objects on one stack.

    Kept of each object are its prompted frames and, around them and around
    the frame last seen, as many others as an answer looks at, so memory does
    not grow with the stack.

    Parameters
    ----------
    model : Sam2Model
    frames : int
        Length of the stack.
    motion : bool
        Let motion help to choose masks and frames to remember; see `MotionSelection`.
    """

    encodes = True

    def __init__(self, model: Sam2Model, frames: int, motion: bool = False) -> None:
        self.model, self.network = model, model.network
        self.selections = {backward: MotionSelection() for backward in (False, True)} if motion else {}
        self.pointers = min(frames, POINTERS)
        self.prompted: dict[int, dict[int, Memory]] = defaultdict(dict)
        self.seen: dict[int, dict[int, Memory]] = defaultdict(dict)

    def forget(self, object_id: int) -> None:
        """Drop an object."""
        self.prompted.pop(object_id, None)
        self.seen.pop(object_id, None)

    @torch.inference_mode()
    def condition(self, frame: int, embedding: Sam2Embedding, given: Mapping[int, Prompt]) -> dict[int, Candidates]:
        """Learn what objects look like on a frame.

        Parameters
        ----------
        frame : int
        embedding : Sam2Embedding
            Of that frame.
        given : object id -> Prompt
            A mask alone is taken as the truth.

        Returns
        -------
        object id -> Candidates
        """
        self.model.check(embedding)
        answers: dict[int, Candidates] = {}
        for object_id, prompt in given.items():
            mask = prompt.known_mask
            logits, score, pointer, present = (
                self._learn_prompt(embedding, prompt) if mask is None else self._learn_mask(embedding, mask)
            )
            answers[object_id] = self.model.candidates(embedding.image_shape, logits, score)
            inside = (self._enlarge(logits[:, None]) > 0).float()
            features = self.network.remember(embedding.features, inside, present)
            self.prompted[object_id][frame] = Memory(features[0].bfloat16(), pointer[0])
            self.seen[object_id].pop(frame, None)
        return answers

    def _learn_prompt(self, embedding: Sam2Embedding, prompt: Prompt) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (1, h, w), score (1,), pointer (1, C) and presence (1,) for clicks, a box and an earlier mask."""
        tokens, masks = self.model.encode_prompts(embedding.image_shape, [prompt])
        several = len(prompt.points) + 2 * (prompt.box is not None) <= 1
        found = self.network.decode(
            embedding.features + self.network.no_mem_embed, embedding.skips, tokens, masks, several
        )
        best = found.scores.argmax(dim=1)
        present = found.presence > 0
        logits = torch.where(present[:, None, None], chosen(found.logits, best), ABSENT_LOGIT)
        return logits, chosen(found.scores, best), self._pointers(found, best), present

    def _learn_mask(self, embedding: Sam2Embedding, known: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same for a mask that is known: the decoder only makes its pointer."""
        mask = (self.model.mask_input(known, self.network.mask_size) >= 0.5).float()[None]
        tokens, _ = self.model.encode_prompts(embedding.image_shape, [Prompt()])
        small = self.network.mask_downsample(mask.to(self.network.dtype))
        found = self.network.decode(embedding.features, embedding.skips, tokens, small, False)
        logits = F.interpolate(
            (2 * mask - 1) * GIVEN_LOGIT, scale_factor=0.25, mode="bilinear", align_corners=False, antialias=True
        )
        present = mask.flatten(1).any(dim=1)
        pointer = self.network.point_to(found.tokens[:, 0], present & (found.presence > 0))
        return logits[0], mask.new_ones(1), pointer, present

    def _pointers(self, found: Decoded, best: Tensor) -> Tensor:
        """Pointers (P, C) of the masks chosen."""
        token = chosen(found.tokens, best) if found.tokens.shape[1] > 1 else found.tokens[:, 0]
        return self.network.point_to(token, found.presence > 0)

    @torch.inference_mode()
    def remind(self, frame: int, embedding: Sam2Embedding, masks: Mapping[int, np.ndarray]) -> None:
        """Remember masks found earlier on; see `Tracker.remind`."""
        for object_id, mask in masks.items():
            logits, _, pointer, present = self._learn_mask(embedding, mask)
            features = self.network.remember(embedding.features, self._enlarge(logits[:, None]).sigmoid(), present)
            self.seen[object_id][frame] = Memory(features[0].bfloat16(), pointer[0])

    @torch.inference_mode()
    def revise(
        self, frame: int, embedding: Sam2Embedding, found: Mapping[int, Candidates], trusted: Collection[int]
    ) -> None:
        """Remember other masks than those just found; see `RevisableTracker.revise`.

        What an object is (its pointer) stays as it was found; where it is
        comes from the logits given, at the decoder's resolution.
        """
        side = self.network.mask_size

        def learn(part: Sequence[int]) -> None:
            logits = torch.from_numpy(np.stack([found[i].logits[:1] for i in part])).to(self.model.device)
            large = F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
            present = (logits > 0).flatten(1).any(dim=1)
            features = self.network.remember(embedding.features, large.sigmoid(), present).bfloat16()
            for row, object_id in enumerate(part):
                seen = self.seen[object_id]
                memory = replace(seen.pop(frame), features=features[row])
                (self.prompted[object_id] if object_id in trusted else seen)[frame] = memory

        in_batches(list(found), BATCH[self.model.device.type], learn)

    @torch.inference_mode()
    def follow(
        self, frame: int, embedding: Sam2Embedding, objects: Collection[int], backward: bool = False
    ) -> dict[int, Candidates]:
        """Find objects on the next frame by their memories.

        Parameters
        ----------
        frame : int
        embedding : Sam2Embedding
        objects : ids that were conditioned before
        backward : bool
            Whether frames come in falling order.

        Returns
        -------
        object id -> Candidates
            One mask each, empty where the object is not in the frame.
        """
        self.model.check(embedding)
        recalled = {object_id: self._recall(object_id, frame, backward) for object_id in objects}
        groups = defaultdict(list)
        for object_id, (memories, _, pointers, _) in recalled.items():
            groups[len(memories), len(pointers)].append(object_id)
        answers: dict[int, Candidates] = {}

        def find(part: Sequence[int]) -> None:
            memories, slots, pointers, distances = (
                torch.stack(column) for column in zip(*(recalled[i] for i in part), strict=True)
            )
            image = self.network.recall(embedding.features, memories.to(self.network.dtype), slots, pointers, distances)
            answers.update(self._find(frame, embedding, part, image, self.selections.get(backward)))

        for members in groups.values():
            in_batches(members, BATCH[self.model.device.type], find)
        return answers

    def _find(
        self,
        frame: int,
        embedding: Sam2Embedding,
        objects: Sequence[int],
        image: Tensor,
        selection: MotionSelection | None,
    ) -> dict[int, Candidates]:
        tokens, _ = self.model.encode_prompts(embedding.image_shape, [Prompt()])
        found = self.network.decode(image, embedding.skips, tokens.expand(len(objects), -1, -1), None, True)
        best, good = found.scores.argmax(dim=1), np.ones(len(objects), dtype=bool)
        present = found.presence > 0
        if selection is not None:
            candidates = (part.float().cpu().numpy() for part in (found.logits, found.scores, found.presence))
            picked, good = selection.choose(objects, *candidates)
            best = torch.from_numpy(picked).to(best.device)
        logits = torch.where(present[:, None, None], chosen(found.logits, best), ABSENT_LOGIT)
        pointers = self._pointers(found, best)
        probability = self._enlarge(logits[:, None]).sigmoid()
        features = self.network.remember(embedding.features, probability, present).bfloat16()
        scores = chosen(found.scores, best)
        answers = {}
        for row, object_id in enumerate(objects):
            self.seen[object_id][frame] = Memory(features[row], pointers[row], bool(good[row]))
            self._thin_out(object_id, frame)
            answer = self.model.candidates(embedding.image_shape, logits[row : row + 1], scores[row : row + 1])
            answers[object_id] = replace(answer, presence=float(found.presence[row]))
        return answers

    def _recall(self, object_id: int, frame: int, backward: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Memories (F, N, c), their slots (F,), pointers (K, C) and their distances (K,)."""
        step = -1 if backward else 1
        prompted = self._nearest(object_id, frame)
        others = {at: memory for at, memory in self.prompted[object_id].items() if at not in prompted}
        seen = self.seen[object_id] | others
        memories = [memory.features for memory in prompted.values()]
        slots = [MEMORY_SLOTS - 1] * len(prompted)
        signed = [((frame - at) * step, memory.pointer) for at, memory in prompted.items() if (frame - at) * step >= 0]
        for slot, memory in enumerate(self._recent(seen, frame, step)):
            if memory is not None:
                memories.append(memory.features)
                slots.append(slot)
        for distance in range(1, self.pointers):
            memory = seen.get(frame - step * distance)
            if memory is not None:
                signed.append((distance, memory.pointer))
        device, dtype = self.model.device, self.network.dtype
        longest = max(self.pointers - 1, 1)
        none = self.network.no_obj_ptr[:0]
        return (
            torch.stack(memories),
            torch.tensor(slots, device=device),
            torch.cat([none, *(pointer[None] for _, pointer in signed)]).to(dtype),
            torch.tensor([distance / longest for distance, _ in signed], device=device),
        )

    def _nearest(self, object_id: int, frame: int) -> dict[int, Memory]:
        """Prompted frames to look at: all, or the nearest before, the nearest after, and then the nearest."""
        prompted, limit = self.prompted[object_id], self.network.config.max_prompted
        if not limit or len(prompted) <= limit:
            return prompted
        near = sorted(prompted, key=lambda at: abs(at - frame))
        first = [next((at for at in near if at < frame), None), next((at for at in near if at >= frame), None)]
        picked = list(dict.fromkeys([at for at in first if at is not None] + near))[:limit]
        return {at: prompted[at] for at in picked}

    def _recent(self, seen: Mapping[int, Memory], frame: int, step: int) -> Sequence[Memory | None]:
        """Memories of the frames before, nearest first; with motion the frame before and good ones."""
        if not self.selections:
            return [seen.get(frame - step * distance) for distance in range(1, MEMORY_SLOTS)]
        before = sorted((f for f in seen if (frame - f) * step > 0), key=lambda f: abs(frame - f))
        return [seen[f] for f in before if f == frame - step or seen[f].good][: MEMORY_SLOTS - 1]

    def _thin_out(self, object_id: int, now: int) -> None:
        """Drop what no answer will look at: far from the frame just seen and from every prompted one."""
        seen = self.seen[object_id]
        near = [now, *self.prompted[object_id]]
        last_good = sorted((f for f in seen if seen[f].good), key=lambda f: abs(now - f))[: MEMORY_SLOTS - 1]
        for frame in [f for f in seen if min(abs(f - n) for n in near) > self.pointers and f not in last_good]:
            del seen[frame]

    def _enlarge(self, logits: Tensor) -> Tensor:
        """Stretch (P, 1, h, w) logits to the input's size, and from there to that at which masks are remembered."""
        size, remembered = self.network.config.input_size, self.network.mask_size
        large = F.interpolate(logits.float(), size=(size, size), mode="bilinear", align_corners=False)
        if size == remembered:
            return large
        return F.interpolate(large, size=(remembered, remembered), mode="bilinear", align_corners=False, antialias=True)
