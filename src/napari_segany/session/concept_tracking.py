"""Every object of a concept through a stack: a detector finds, a memory follows, and both are matched.

The life of a track (late confirmation, keeping alive, renewing the memory,
dropping duplicates) is akin to that of SAM 3 (Carion et al. 2025), whose own
rules are in `published_tracking`; matching is ours, see `association`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_segany.core.instances import common_pixels, found_iou
from napari_segany.core.motion import BoxMotion
from napari_segany.core.protocols import Embedding
from napari_segany.session.association import assign, mask_overlaps, mask_shares, similarity
from napari_segany.session.carried import Carried
from napari_segany.session.concept_run import ConceptRun, Detected, Tracked

#: How much of a track's appearance stays from frame to frame.
LOOK_DECAY = 0.8
#: Share of a new object's area inside the last mask of a track that makes it a part of it.
PART = 0.5
#: Share of its mask that a track has inside a detection which is several tracks in one.
MERGED = 0.6
#: IoU below which such tracks are different objects.
APART = 0.3
#: A track that has divided keeps less than this share of its area.
DIVIDED = 0.8


@dataclass
class Life:
    """A track while it lives.

    Attributes
    ----------
    object_id, born : int
    concept : int
        Which of the concepts it is.
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
    concept: int
    last: Carried
    before: Carried
    motion: BoxMotion
    look: np.ndarray | None
    unmatched: int = 0
    missing: int = 0


@dataclass(eq=False)
class AssignedRun(ConceptRun):
    """Tracks and detections matched by the assignment of greatest likeness."""

    lives: dict[int, Life] = field(default_factory=dict)

    def visit(self, frame: int, embedding: Embedding) -> Tracked:
        """See `ConceptRun.visit`."""
        lives = list(self.lives.values())
        answers = self.tracker.follow(frame, embedding, [life.object_id for life in lives]) if lives else {}
        followed = {i: Carried.from_candidates(answer) for i, answer in answers.items()}
        followed = {i: carried for i, carried in followed.items() if not carried.is_empty}
        detected, touching = self._without_merged(self.detect(embedding), followed)
        now: dict[int, Carried] = {}
        free = set(range(len(detected.carried)))
        for row, column in self._match(lives, followed, detected):
            life, look = lives[row], None if detected.looks is None else detected.looks[column]
            mask = self._continue(frame, embedding, life, followed.get(life.object_id), detected.carried[column], look)
            now[life.object_id] = mask
            free.discard(column)
        for life in lives:
            if life.object_id not in now:
                self._go_without(life, followed.get(life.object_id), life.object_id in touching, now)
        overlaps = mask_overlaps(detected.found, [carried.found for carried in now.values()])
        new = [
            (detected.carried[j], int(detected.concepts[j]), None if detected.looks is None else detected.looks[j])
            for j in sorted(free)
            if detected.carried[j].score >= self.settings.new_threshold
            and overlaps[j].max(initial=0.0) < self.settings.new_overlap
        ]
        parents = self._begin(frame, embedding, new, now)
        self._drop_duplicates(now)
        return Tracked(frame, now, parents, frozenset(i for i in now if self.lives[i].missing))

    def drop(self, object_id: int) -> None:
        """See `ConceptRun.drop`."""
        del self.lives[object_id]
        self.tracker.forget(object_id)

    def _without_merged(self, detected: Detected, followed: dict[int, Carried]) -> tuple[Detected, frozenset[int]]:
        """Leave out detections that are several tracks of a concept in one, which touch; and the ids of these tracks.

        The memory knows each of them from frames on which they were apart.
        """
        ids = list(followed)
        masks = [carried.found for carried in followed.values()]
        inside = mask_shares(masks, detected.found) > MERGED
        inside &= np.array([self.lives[i].concept for i in ids], dtype=int)[:, None] == detected.concepts
        kept: list[int] = []
        touching: set[int] = set()
        for place, within in enumerate(map(np.flatnonzero, inside.T)):
            some = [masks[j] for j in within]
            overlaps = mask_overlaps(some, some)
            np.fill_diagonal(overlaps, 0.0)
            apart = within[(overlaps < APART).all(axis=1)]
            if len(apart) > 1:
                touching.update(ids[j] for j in apart)
            else:
                kept.append(place)
        return detected.only(kept), frozenset(touching)

    def _match(self, lives: list[Life], followed: dict[int, Carried], detected: Detected) -> list[tuple[int, int]]:
        """Pairs (place in `lives`, detection)."""
        places = [life.motion.predict()[0] for life in lives]
        if not lives or not detected.carried:
            return []
        masks = [followed.get(life.object_id, life.last).found for life in lives]
        overlaps = mask_overlaps(masks, detected.found)
        known = None
        if detected.looks is not None and all(life.look is not None for life in lives):
            known = np.stack([life.look for life in lives if life.look is not None]), detected.looks
        boxes = np.array([box for box, _ in detected.found], dtype=np.float64)
        likeness = similarity(overlaps, np.stack(places), boxes, known, detected.scores, self.settings)
        return assign(likeness, self.settings.least)

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

        The mask is the detector's, which owes nothing to the frames before.
        """
        settings, life.missing = self.settings, 0
        if look is not None:
            life.look = look if life.look is None else LOOK_DECAY * life.look + (1 - LOOK_DECAY) * look
        due = settings.renew_every and (frame - life.born) % settings.renew_every == 0
        if due and detected.score >= settings.renew_score:
            self.teach(frame, embedding, life.object_id, detected)
        elif followed is None or found_iou(followed.found, detected.found) < settings.agree:
            self.tracker.remind(frame, embedding, {life.object_id: detected.mask})
        _move(life, detected)
        return detected

    def _go_without(self, life: Life, followed: Carried | None, seen: bool, now: dict[int, Carried]) -> None:
        life.unmatched, life.missing = life.unmatched + 1, 0 if seen else life.missing + 1
        if life.missing > self.settings.keep_alive >= 0:
            self.drop(life.object_id)
        elif followed is not None:
            _move(life, followed)
            now[life.object_id] = followed

    def _begin(
        self,
        frame: int,
        embedding: Embedding,
        new: Sequence[tuple[Carried, int, np.ndarray | None]],
        now: dict[int, Carried],
    ) -> dict[int, int]:
        """Begin tracks; a new object out of one that has shrunk makes two daughters of it."""
        parents: dict[int, int] = {}
        older = [life for life in self.lives.values() if life.object_id in now]
        for carried, concept, look in new:
            parent = next((life for life in older if _is_part(carried, life, now)), None)
            born = self._birth(frame, embedding, carried, concept, look)
            if parent is not None and self.settings.divisions:
                older.remove(parent)
                self.drop(parent.object_id)
                sister = self._birth(frame, embedding, now[parent.object_id], parent.concept, parent.look)
                now[sister] = now.pop(parent.object_id)
                parents.update({born: parent.object_id, sister: parent.object_id})
            now[born] = carried
        return parents

    def _birth(self, frame: int, embedding: Embedding, carried: Carried, concept: int, look: np.ndarray | None) -> int:
        object_id = self.new_id()
        motion = BoxMotion(np.array([carried.box], dtype=np.float64))
        self.lives[object_id] = Life(object_id, frame, concept, carried, carried, motion, look)
        self.teach(frame, embedding, object_id, carried)
        return object_id

    def _drop_duplicates(self, now: dict[int, Carried]) -> None:
        """Of two tracks on the same pixels the younger goes."""
        ids = sorted(now, key=lambda i: self.lives[i].born if i in self.lives else -1)
        masks = [now[i].found for i in ids]
        overlaps = mask_overlaps(masks, masks)
        for later in range(len(ids)):
            older = [e for e in range(later) if ids[e] in now]
            if any(overlaps[later, e] >= self.settings.duplicate_overlap for e in older):
                del now[ids[later]]
                if ids[later] in self.lives:
                    self.drop(ids[later])

    def unconfirmed(self, frame: int) -> list[int]:
        """Young tracks that too few detections have agreed with."""
        return [
            i
            for i, life in self.lives.items()
            if frame - life.born < self.settings.delay and life.unmatched >= self.settings.unmatched_limit
        ]


def _move(life: Life, carried: Carried) -> None:
    life.motion.update(np.array([carried.box], dtype=np.float64), np.array([True]))
    life.before, life.last = life.last, carried


def _is_part(carried: Carried, life: Life, now: dict[int, Carried]) -> bool:
    """Whether a new object was a part of a track until this frame, on which the track has shrunk."""
    shrunk = int(now[life.object_id].patch.sum()) < DIVIDED * int(life.before.patch.sum())
    common = common_pixels(carried.found, life.before.found)
    return shrunk and common > PART * int(carried.patch.sum())
