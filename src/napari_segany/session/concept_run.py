"""Going through a stack with a detector and a memory; what becomes of their answers is up to the rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from napari_segany.core.instances import Found
from napari_segany.core.prompts import Prompt, mask_logits
from napari_segany.core.protocols import ConceptModel, Embedding, Tracker
from napari_segany.core.settings import TrackSettings
from napari_segany.session.carried import Carried
from napari_segany.session.finding import tidied
from napari_segany.session.tiling import Progress


@dataclass(frozen=True)
class Tracked:
    """One frame of a run.

    Attributes
    ----------
    frame : int
    found : object id -> Carried
    parents : object id -> id of the track it came from
        Of objects that begin on this frame by division.
    unseen : set of object ids
        Found by the memory alone.
    """

    frame: int
    found: dict[int, Carried]
    parents: dict[int, int]
    unseen: frozenset[int] = frozenset()


class Detected(NamedTuple):
    """Objects of all concepts on one frame.

    Attributes
    ----------
    carried : M masks with their scores
    concepts : (M,) int
        Which of the concepts each is.
    looks : (M, D) or None
        Appearances, where the model gives them for every concept.
    """

    carried: list[Carried]
    concepts: np.ndarray
    looks: np.ndarray | None

    @property
    def found(self) -> list[Found]:
        """(box, mask inside the box) of each."""
        return [one.found for one in self.carried]

    @property
    def scores(self) -> np.ndarray:
        """(M,)."""
        return np.array([one.score for one in self.carried])

    def only(self, kept: Sequence[int]) -> Detected:
        """Those at the given places."""
        looks = None if self.looks is None else self.looks[kept]
        return Detected([self.carried[place] for place in kept], self.concepts[kept], looks)


@dataclass(eq=False)
class DetectingRun(ABC):
    """Going through frames and detecting on each.

    Attributes
    ----------
    model : ConceptModel
    embed : callable
        Gives the embedding of a frame.
    concepts : described concepts
        What `model.describe` made; objects of all of them are followed together.
    next_id : int
        Id of the next object.
    settings : TrackSettings
    """

    model: ConceptModel
    embed: Callable[[int], Embedding]
    concepts: Sequence[Any]
    next_id: int
    settings: TrackSettings

    @abstractmethod
    def frames(self, span: range, progress: Progress | None = None) -> Iterator[Tracked]:
        """Visit frames in order; each is given out when what is on it is certain.

        `progress` is called with (frames looked at, frames in all); False ends the run with these.
        """

    def detect(self, embedding: Embedding) -> Detected:
        """Ask for every concept."""
        answers = [
            tidied(self.model.find(embedding, concept, self.settings.find), self.settings.find, best_first=False)
            for concept in self.concepts
        ]
        carried = [
            Carried(answer.shape, box, mask_logits(patch), float(score))
            for answer in answers
            for (box, patch), score in zip(answer.found(), answer.scores, strict=True)
        ]
        concepts = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])
        looks = [answer.features for answer in answers if answer.features is not None]
        return Detected(carried, concepts, np.concatenate(looks) if len(looks) == len(answers) else None)

    def new_id(self) -> int:
        """An id that no object has had."""
        self.next_id += 1
        return self.next_id - 1


@dataclass(eq=False)
class ConceptRun(DetectingRun):
    """Detection and tracking over a range of frames.

    Attributes
    ----------
    tracker : Tracker
    """

    tracker: Tracker

    def frames(self, span: range, progress: Progress | None = None) -> Iterator[Tracked]:
        """Visit frames in order; each is given out when its young tracks have been confirmed or dropped."""
        waiting: list[Tracked] = []
        for count, frame in enumerate(span, start=1):
            waiting.append(self.visit(frame, self.embed(frame)))
            for object_id in self.unconfirmed(frame):
                self.drop(object_id)
                for tracked in waiting:
                    tracked.found.pop(object_id, None)
                    tracked.parents.pop(object_id, None)
            if progress is not None and progress(count, len(span)) is False:
                break
            if len(waiting) > self.settings.delay:
                yield waiting.pop(0)
        yield from waiting

    @abstractmethod
    def visit(self, frame: int, embedding: Embedding) -> Tracked:
        """Match what is detected with what is known, and go on."""

    @abstractmethod
    def unconfirmed(self, frame: int) -> list[int]:
        """Tracks on probation that have failed by this frame."""

    @abstractmethod
    def drop(self, object_id: int) -> None:
        """End a track."""

    def teach(self, frame: int, embedding: Embedding, object_id: int, carried: Carried) -> None:
        """Let the memory learn a mask as the truth."""
        self.tracker.condition(frame, embedding, {object_id: Prompt(mask=mask_logits(carried.mask))})
