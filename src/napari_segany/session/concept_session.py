"""A session that also finds every object of a concept, and follows all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from napari_segany.core.concepts import Examples, checked_text
from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.instances import Instances
from napari_segany.core.prompts import check_boxes
from napari_segany.core.settings import FindSettings, TrackSettings
from napari_segany.session.concept_tracking import ConceptRun
from napari_segany.session.finding import concept_model, find
from napari_segany.session.history import LabelEdit, Step
from napari_segany.session.propagation import Visit
from napari_segany.session.session import Session


class ConceptSession(Session):
    """A `Session` with `find` and `track`."""

    def find(
        self,
        text: str | None = None,
        exemplars: Sequence[Sequence[float]] | np.ndarray | None = None,
        negatives: Sequence[Sequence[float]] | np.ndarray | None = None,
        frame: int = 0,
        settings: FindSettings | None = None,
    ) -> Instances:
        """Find every object of a concept on one frame; labels change only by `accept_found`.

        Parameters
        ----------
        text, exemplars, negatives, settings
            See `napari_segany.find`.
        frame : int

        Raises
        ------
        InvalidPromptError, UnsupportedError
        """
        shown, others = (self._boxes(boxes) for boxes in (exemplars, negatives))
        settings = settings or FindSettings()
        image: Any = self.embedding(frame)
        if max(self._frame_shape) > settings.tile:
            image = self.frames[frame]
        return find(self.model, image, checked_text(text), shown, others, settings, self.frames.intensity)

    def accept_found(self, found: Instances, frame: int) -> list[int]:
        """Write objects that were found on a frame into its labels, as new objects; one step to undo.

        Pixels of other objects are kept; an object of which nothing is left gets no id.

        Returns
        -------
        ids given to the objects, in their order
        """
        self._check_frame(frame)
        with self._lock:
            before = self.store.read(frame)
            first = max(self.next_object_id(), int(before.max()) + 1)
            self._check_object(first + len(found))
            after, step = before.copy(), Step("accept")
            ids: list[int] = []
            for (box, patch), score in zip(found.found(), found.scores, strict=True):
                window = after[box[0] : box[2], box[1] : box[3]]
                free = patch & (window == 0)
                if free.any():
                    ids.append(first + len(ids))
                    window[free] = ids[-1]
                    step.edits += [
                        self._set("accepted", (ids[-1], frame), True),
                        self._set("scores", (ids[-1], frame), float(score)),
                    ]
            if ids:
                step.edits.insert(0, LabelEdit(self.store, frame, before, after))
                self._apply(step)
        if ids:
            self.labels_changed.emit(frame)
        return ids

    def track(
        self,
        text: str | Sequence[str] | None = None,
        exemplars: Sequence[Sequence[float]] | np.ndarray | None = None,
        negatives: Sequence[Sequence[float]] | np.ndarray | None = None,
        frame: int = 0,
        start: int | None = None,
        stop: int | None = None,
        settings: TrackSettings | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Find every object of a concept on every frame, and give each one id throughout.

        Parameters
        ----------
        text : str or several, optional
            Concepts to follow together.
        exemplars, negatives : N x (y0, x0, y1, x1), optional
            On `frame`.
        frame : int
        start, stop : int, optional
            Frames ``start <= frame < stop``; all by default.
        settings : TrackSettings, optional

        Yields
        ------
        frame, labels
            As `propagate` does, ``settings.delay`` frames after they were looked at.

        Raises
        ------
        InvalidPromptError, UnsupportedError
        """
        span = self._span(start, stop)
        settings = settings or TrackSettings()
        network = concept_model(self.model)
        shown, others = (self._boxes(boxes) for boxes in (exemplars, negatives))
        texts = [text] if text is None or isinstance(text, str) else list(text)
        if texts in ([], [None]) and not len(shown):
            raise InvalidPromptError("Say what to look for: a word, or boxes around one or more examples.")
        examples = [Examples(self.embedding(frame), shown, others)] if len(shown) + len(others) else []
        concepts = [network.describe(checked_text(one), examples) for one in texts or [None]]
        taken = max(int(self.store.read(at).max()) for at in span)
        first = max(self.next_object_id(), taken + 1)
        run = ConceptRun(network, self._tracker(), self.embedding, concepts, first, settings)
        return self._track(run, span)

    def _track(self, run: ConceptRun, span: range) -> Iterator[tuple[int, np.ndarray]]:
        step = Step("track")
        try:
            for tracked in run.frames(span):
                parents = [
                    self._set("parents", (object_id, tracked.frame), parent)
                    for object_id, parent in tracked.parents.items()
                ]
                visit = Visit(tracked.frame, tracked.found, frozenset(tracked.found))
                yield self._write(step, visit, parents)
        finally:
            self.history.push(step)

    def _boxes(self, boxes: Sequence[Sequence[float]] | np.ndarray | None) -> np.ndarray:
        return np.zeros((0, 4)) if boxes is None or len(boxes) == 0 else check_boxes(self._frame_shape, boxes)
