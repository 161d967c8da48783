"""Every object of a concept through a stack by SAM 3's own rules (Carion et al. 2025).

Overlap alone decides; several tracks may share a detection, and a track keeps
the memory's mask. Masks are compared at the image's resolution, where the
published code compares them at the decoder's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from napari_segany.core.masks import Candidates, bounding_box, clear_specks
from napari_segany.core.prompts import MASK_LOGIT
from napari_segany.core.protocols import Embedding, RevisableTracker
from napari_segany.session.association import mask_overlaps
from napari_segany.session.carried import Carried
from napari_segany.session.concept_run import ConceptRun, Detected, Tracked

#: Logit of every pixel of an object that is hidden.
HIDDEN_LOGIT = np.float32(-10.0)
#: When a track that has never been hidden was so last.
NEVER = -1


@dataclass
class Life:
    """A track while it lives.

    Attributes
    ----------
    born : int
    concept : int
    unmatched : int
        Frames since birth on which no detection agreed.
    hidden : int
        Last frame on which it was not to be seen.
    """

    born: int
    concept: int
    unmatched: int = 0
    hidden: int = NEVER


@dataclass(eq=False)
class PublishedRun(ConceptRun):
    """SAM 3's rules."""

    lives: dict[int, Life] = field(default_factory=dict)
    #: Frames on which a track (second) has shared its detection with an older one (first).
    shared: Counter[tuple[int, int]] = field(default_factory=Counter)

    def visit(self, frame: int, embedding: Embedding) -> Tracked:
        """See `ConceptRun.visit`."""
        detected = self.detect(embedding)
        answers = self._follow(frame, embedding)
        followed = {i: Carried.from_candidates(answer) for i, answer in answers.items()}
        ids = list(followed)
        overlaps = mask_overlaps([followed[i].found for i in ids], detected.found)
        overlaps[np.array([self.lives[i].concept for i in ids])[:, None] != detected.concepts[None]] = 0.0
        self._count(ids, overlaps, followed)
        renewed = self._renewed(frame, ids, overlaps, detected, answers)
        for object_id in self._hidden(frame, followed):
            answers[object_id] = _blank(answers[object_id], everywhere=True)
            followed[object_id] = Carried.from_candidates(answers[object_id])
        self._remember(frame, embedding, answers, followed, renewed)
        followed |= {i: detected.carried[column] for i, column in renewed.items()}
        if self.settings.renew_from == "detection":
            for object_id in renewed:
                self.teach(frame, embedding, object_id, followed[object_id])
        now = {i: carried for i, carried in followed.items() if not carried.is_empty}
        # The first objects of all only have to be detected.
        least = self.settings.new_threshold if self.lives else 0.0
        for column in np.flatnonzero((overlaps < self.settings.new_overlap).all(axis=0)):
            carried = detected.carried[column]
            if carried.score >= least:
                object_id = self.new_id()
                self.lives[object_id] = Life(frame, int(detected.concepts[column]))
                self.teach(frame, embedding, object_id, carried)
                now[object_id] = _without_specks(carried, self.settings.speck_area)
        return Tracked(frame, now, {})

    def _follow(self, frame: int, embedding: Embedding) -> dict[int, Candidates]:
        """What the memory finds, one mask each, without specks."""
        found = self.tracker.follow(frame, embedding, list(self.lives)) if self.lives else {}
        return {
            i: replace(
                found[i],
                logits=clear_specks(found[i].logits[found[i].best_index], self.settings.speck_area)[None],
                scores=found[i].scores[[found[i].best_index]],
            )
            for i in self.lives
            if i in found
        }

    def _count(self, ids: list[int], overlaps: np.ndarray, followed: Mapping[int, Carried]) -> None:
        """Count frames without a detection, and with a shared one."""
        for object_id, row in zip(ids, overlaps, strict=True):
            if not followed[object_id].is_empty and row.max(initial=0.0) < self.settings.published_overlap:
                self.lives[object_id].unmatched += 1
        for column in overlaps.T:
            matched = [i for i, value in zip(ids, column, strict=True) if value >= self.settings.new_overlap]
            oldest = min(matched, key=lambda i: self.lives[i].born, default=0)
            self.shared.update((oldest, i) for i in matched if i != oldest)

    def unconfirmed(self, frame: int) -> list[int]:
        """Young tracks that too few detections have agreed with, or that others have had for longer."""
        settings = self.settings
        twins = {later for (_, later), count in self.shared.items() if count >= settings.duplicate_limit}
        return [
            i
            for i, life in self.lives.items()
            if frame - life.born < settings.delay and (life.unmatched >= settings.unmatched_limit or i in twins)
        ]

    def drop(self, object_id: int) -> None:
        """See `ConceptRun.drop`."""
        del self.lives[object_id]
        self.tracker.forget(object_id)

    def _renewed(
        self,
        frame: int,
        ids: list[int],
        overlaps: np.ndarray,
        detected: Detected,
        answers: Mapping[int, Candidates],
    ) -> dict[int, int]:
        """Tracks to be renewed now, with the detection that vouches for each."""
        settings = self.settings
        if not ids or not settings.renew_every or frame % settings.renew_every:
            return {}
        pairs = {
            ids[int(column.argmax())]: j
            for j, column in enumerate(overlaps.T)
            if detected.carried[j].score >= settings.renew_score and column.max() >= settings.renew_overlap
        }
        # The published code compares a logit with what is else a probability.
        return {i: j for i, j in pairs.items() if answers[i].presence > settings.renew_score}

    def _hidden(self, frame: int, followed: Mapping[int, Carried]) -> list[int]:
        """Tracks that lie on another one of their concept and were hidden more recently than that."""
        ids = list(followed)
        masks = [carried.found for carried in followed.values()]
        on_top = mask_overlaps(masks, masks) >= self.settings.duplicate_overlap
        last = {i: self.lives[i].hidden for i in ids}
        hidden = []
        for object_id, row in zip(ids, on_top, strict=True):
            others = [other for other, is_on_top in zip(ids, row, strict=True) if is_on_top]
            if any(
                last[object_id] > last[other] > NEVER and self.lives[other].concept == self.lives[object_id].concept
                for other in others
            ):
                hidden.append(object_id)
        for object_id in ids:
            if object_id in hidden or followed[object_id].is_empty:
                self.lives[object_id].hidden = frame
        return hidden

    def _remember(
        self,
        frame: int,
        embedding: Embedding,
        answers: Mapping[int, Candidates],
        followed: Mapping[int, Carried],
        renewed: Mapping[int, int],
    ) -> None:
        """Let a memory that can be revised keep what was left of the masks."""
        if not isinstance(self.tracker, RevisableTracker) or not answers:
            return
        kept = dict(answers)
        for concept in {self.lives[i].concept for i in answers}:
            for object_id in self._covered({i: c for i, c in followed.items() if self.lives[i].concept == concept}):
                kept[object_id] = _blank(kept[object_id])
        self.tracker.revise(frame, embedding, kept, renewed if self.settings.renew_from == "memory" else ())

    def _covered(self, followed: Mapping[int, Carried]) -> list[int]:
        """Tracks of one concept of which little is left where each pixel goes to the likeliest."""
        if len(followed) < 2:
            return []
        shape = next(iter(followed.values())).shape
        best, owner = np.zeros(shape, dtype=np.float32), np.full(shape, -1)
        for object_id, carried in followed.items():
            y0, x0, y1, x1 = carried.box
            wins = carried.logits > best[y0:y1, x0:x1]
            best[y0:y1, x0:x1][wins] = carried.logits[wins]
            owner[y0:y1, x0:x1][wins] = object_id
        left = {i: int(np.count_nonzero(owner == i)) for i in followed}
        return [
            i
            for i, carried in followed.items()
            if left[i] < self.settings.least_visible * max(int(np.count_nonzero(carried.patch)), 1)
        ]


def _blank(answer: Candidates, everywhere: bool = False) -> Candidates:
    """The answer with nothing inside; `everywhere` makes all of it equally unlikely."""
    logits = np.full_like(answer.logits, HIDDEN_LOGIT) if everywhere else np.minimum(answer.logits, HIDDEN_LOGIT)
    return replace(answer, logits=logits)


def _without_specks(carried: Carried, area: int) -> Carried:
    """`clear_specks` for a mask in its box: of what is around it, as much as tells a hole from the background."""
    y0, x0, y1, x1 = carried.box
    top, left = max(0, y0 - area - 1), max(0, x0 - area - 1)
    bottom, right = min(carried.shape[0], y1 + area + 1), min(carried.shape[1], x1 + area + 1)
    wide = np.full((bottom - top, right - left), -MASK_LOGIT, dtype=np.float32)
    wide[y0 - top : y1 - top, x0 - left : x1 - left] = carried.logits
    clear = clear_specks(wide, area)
    y0, x0, y1, x1 = bounding_box(clear > 0)
    return replace(carried, box=(y0 + top, x0 + left, y1 + top, x1 + left), logits=clear[y0:y1, x0:x1])
