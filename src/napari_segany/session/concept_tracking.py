"""Every object of a concept through a stack: a detector finds, a memory follows, and both are matched.

The life of a track (late confirmation, keeping alive, renewing the memory,
dropping duplicates) is that of SAM 3 (Carion et al. 2025); matching is our
own, see `association`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_segany.core.instances import Found, Instances, common_pixels, found_iou
from napari_segany.core.motion import BoxMotion
from napari_segany.core.prompts import MASK_LOGIT, Prompt
from napari_segany.core.protocols import ConceptModel, Embedding, Tracker
from napari_segany.core.settings import TrackSettings
from napari_segany.session.association import assign, mask_overlaps, published_assign, similarity
from napari_segany.session.carried import Carried

#: How much of a track's appearance stays from frame to frame.
LOOK_DECAY = 0.8
#: Share of a new object's area inside the last mask of a track that makes it a part of it.
PART = 0.5
#: A track that has divided keeps less than this share of its area.
DIVIDED = 0.8


@dataclass
class Life:
    """A track while it lives.

    Attributes
    ----------
    object_id, born : int
    last, before : Carried
        Its latest mask, and the one before that.
    motion : BoxMotion
    look : (D,) array or None
    unmatched : int
        Frames since birth on which no detection agreed.
    missing : int
        Frames in a row without an agreeing detection.
    """

    object_id: int
    born: int
    last: Carried
    before: Carried
    motion: BoxMotion
    look: np.ndarray | None
    unmatched: int = 0
    missing: int = 0


@dataclass(frozen=True)
class Tracked:
    """One frame of a run.

    Attributes
    ----------
    frame : int
    found : object id -> Carried
    parents : object id -> id of the track it came from
        Of objects that begin on this frame by division.
    """

    frame: int
    found: dict[int, Carried]
    parents: dict[int, int]


class ConceptRun:
    """Detection and tracking over a range of frames.

    Parameters
    ----------
    model : ConceptModel
    tracker : Tracker
    embed : callable
        Gives the embedding of a frame.
    concepts : described concepts
        What `model.describe` made; objects of all of them are tracked together.
    first_id : int
        Id of the first object.
    settings : TrackSettings
    """

    def __init__(
        self,
        model: ConceptModel,
        tracker: Tracker,
        embed: Callable[[int], Embedding],
        concepts: Sequence[Any],
        first_id: int,
        settings: TrackSettings,
    ) -> None:
        self.model, self.tracker, self.embed = model, tracker, embed
        self.concepts, self.next_id, self.settings = concepts, first_id, settings
        self.lives: dict[int, Life] = {}

    def frames(self, span: range) -> Iterator[Tracked]:
        """Visit frames in order; each is given out when its young tracks have been confirmed or dropped."""
        waiting: list[Tracked] = []
        for frame in span:
            waiting.append(self._visit(frame))
            for object_id in self._unconfirmed(frame):
                del self.lives[object_id]
                for tracked in waiting:
                    tracked.found.pop(object_id, None)
                    tracked.parents.pop(object_id, None)
            if len(waiting) > self.settings.delay:
                yield waiting.pop(0)
        yield from waiting

    def _visit(self, frame: int) -> Tracked:
        embedding = self.embed(frame)
        detections = [self.model.find(embedding, concept, self.settings.find) for concept in self.concepts]
        found, scores, looks = _joined(detections)
        lives = list(self.lives.values())
        answers = self.tracker.follow(frame, embedding, [life.object_id for life in lives]) if lives else {}
        followed = {i: Carried.from_candidates(answer) for i, answer in answers.items()}
        followed = {i: carried for i, carried in followed.items() if not carried.is_empty}
        expected = {life.object_id: life.motion.predict()[0] for life in lives}
        now: dict[int, Carried] = {}
        free = set(range(len(found)))
        for row, column in self._match(lives, followed, expected, found, scores, looks):
            life, look = lives[row], None if looks is None else looks[column]
            detected = _carried(embedding.image_shape, found[column], float(scores[column]))
            now[life.object_id] = self._continue(frame, embedding, life, followed.get(life.object_id), detected, look)
            free.discard(column)
        for life in lives:
            if life.object_id not in now:
                self._go_without(life, followed.get(life.object_id), now)
        overlaps = mask_overlaps(found, [(carried.box, carried.patch) for carried in now.values()])
        new = [
            (found[j], float(scores[j]), None if looks is None else looks[j])
            for j in sorted(free)
            if scores[j] >= self.settings.new_threshold and overlaps[j].max(initial=0.0) < self.settings.new_overlap
        ]
        parents = self._begin(frame, embedding, new, now)
        self._drop_duplicates(now)
        return Tracked(frame, now, parents)

    def _match(
        self,
        lives: list[Life],
        followed: dict[int, Carried],
        expected: dict[int, np.ndarray],
        found: list[Found],
        scores: np.ndarray,
        looks: np.ndarray | None,
    ) -> list[tuple[int, int]]:
        """Pairs (place in `lives`, detection)."""
        if not lives or not found:
            return []
        masks = [
            (carried.box, carried.patch) for carried in (followed.get(life.object_id, life.last) for life in lives)
        ]
        overlaps = mask_overlaps(masks, found)
        if self.settings.rule == "published":
            return published_assign(overlaps, self.settings)
        known = None
        if looks is not None and all(life.look is not None for life in lives):
            known = np.stack([life.look for life in lives if life.look is not None]), looks
        boxes = np.array([box for box, _ in found], dtype=np.float64)
        places = np.stack([expected[life.object_id] for life in lives])
        return assign(similarity(overlaps, places, boxes, known, scores, self.settings), self.settings.least)

    def _continue(
        self,
        frame: int,
        embedding: Embedding,
        life: Life,
        followed: Carried | None,
        detected: Carried,
        look: np.ndarray | None,
    ) -> Carried:
        """A track with its detection; the memory learns what it did not find itself.

        Published rules keep the memory's mask, ours the detector's, which owes nothing to the frames before.
        """
        settings, life.missing = self.settings, 0
        if look is not None:
            life.look = look if life.look is None else LOOK_DECAY * life.look + (1 - LOOK_DECAY) * look
        chosen = followed if settings.rule == "published" and followed is not None else detected
        due = settings.renew_every and (frame - life.born) % settings.renew_every == 0
        if due and detected.score >= settings.renew_score:
            self._teach(frame, embedding, life.object_id, detected)
        elif chosen is detected and (followed is None or found_iou(followed.found, detected.found) < settings.agree):
            self.tracker.remind(frame, embedding, {life.object_id: detected.mask})
        _move(life, chosen)
        return chosen

    def _go_without(self, life: Life, followed: Carried | None, now: dict[int, Carried]) -> None:
        life.unmatched, life.missing = life.unmatched + 1, life.missing + 1
        if life.missing > self.settings.keep_alive >= 0:
            del self.lives[life.object_id]
        elif followed is not None:
            _move(life, followed)
            now[life.object_id] = followed

    def _begin(
        self,
        frame: int,
        embedding: Embedding,
        new: Sequence[tuple[Found, float, np.ndarray | None]],
        now: dict[int, Carried],
    ) -> dict[int, int]:
        """Begin tracks; a new object out of one that has shrunk makes two daughters of it."""
        parents: dict[int, int] = {}
        older = [life for life in self.lives.values() if life.object_id in now]
        for found, score, look in new:
            carried = _carried(embedding.image_shape, found, score)
            parent = next((life for life in older if _is_part(carried, life, now)), None)
            born = self._birth(frame, embedding, carried, look)
            if parent is not None and self.settings.divisions:
                older.remove(parent)
                del self.lives[parent.object_id]
                sister = self._birth(frame, embedding, now[parent.object_id], parent.look)
                now[sister] = now.pop(parent.object_id)
                parents.update({born: parent.object_id, sister: parent.object_id})
            now[born] = carried
        return parents

    def _birth(self, frame: int, embedding: Embedding, carried: Carried, look: np.ndarray | None) -> int:
        object_id, self.next_id = self.next_id, self.next_id + 1
        motion = BoxMotion(np.array([carried.box], dtype=np.float64))
        self.lives[object_id] = Life(object_id, frame, carried, carried, motion, look)
        self._teach(frame, embedding, object_id, carried)
        return object_id

    def _teach(self, frame: int, embedding: Embedding, object_id: int, carried: Carried) -> None:
        mask = np.where(carried.mask, MASK_LOGIT, -MASK_LOGIT).astype(np.float32)
        self.tracker.condition(frame, embedding, {object_id: Prompt(mask=mask)})

    def _drop_duplicates(self, now: dict[int, Carried]) -> None:
        """Of two tracks on the same pixels the younger goes."""
        ids = sorted(now, key=lambda i: self.lives[i].born if i in self.lives else -1)
        masks = [(now[i].box, now[i].patch) for i in ids]
        overlaps = mask_overlaps(masks, masks)
        for later in range(len(ids)):
            older = [e for e in range(later) if ids[e] in now]
            if any(overlaps[later, e] >= self.settings.duplicate_overlap for e in older):
                del now[ids[later]]
                self.lives.pop(ids[later], None)

    def _unconfirmed(self, frame: int) -> list[int]:
        """Young tracks that too few detections have agreed with."""
        return [
            i
            for i, life in self.lives.items()
            if frame - life.born < self.settings.delay and life.unmatched >= self.settings.unmatched_limit
        ]


def _joined(
    detections: Sequence[Instances],
) -> tuple[list[Found], np.ndarray, np.ndarray | None]:
    """Masks, scores (M,) and looks (M, D) of all concepts together; looks only where all have them."""
    found = [one for instances in detections for one in instances.found()]
    scores = np.concatenate([instances.scores for instances in detections])
    features = [instances.features for instances in detections]
    known = [each for each in features if each is not None]
    return found, scores, np.concatenate(known) if len(known) == len(features) else None


def _carried(shape: tuple[int, int], found: Found, score: float) -> Carried:
    box, patch = found
    return Carried(shape, box, np.where(patch, MASK_LOGIT, -MASK_LOGIT).astype(np.float32), score)


def _move(life: Life, carried: Carried) -> None:
    life.motion.update(np.array([carried.box], dtype=np.float64), np.array([True]))
    life.before, life.last = life.last, carried


def _is_part(carried: Carried, life: Life, now: dict[int, Carried]) -> bool:
    """Whether a new object was a part of a track until this frame, on which the track has shrunk."""
    shrunk = int(now[life.object_id].patch.sum()) < DIVIDED * int(life.before.patch.sum())
    common = common_pixels(carried.found, life.before.found)
    return shrunk and common > PART * int(carried.patch.sum())
