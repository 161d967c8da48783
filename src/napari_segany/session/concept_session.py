"""A session that also finds every object of a concept, and follows all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.concepts import Examples, checked_text
from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.instances import Found, Instances
from napari_segany.core.masks import bounding_box
from napari_segany.core.prompts import check_boxes, check_region
from napari_segany.core.protocols import ConceptModel, VolumeModel
from napari_segany.core.settings import FindSettings, TrackSettings
from napari_segany.session.carrying import begin_memory
from napari_segany.session.concept_run import DetectingRun
from napari_segany.session.concept_tracking import AssignedRun
from napari_segany.session.everything import EverythingSearch, everything
from napari_segany.session.finding import FindSearch, concept_model, find
from napari_segany.session.history import LabelEdit, Step
from napari_segany.session.propagation import Visit
from napari_segany.session.published_tracking import PublishedRun
from napari_segany.session.tiling import Progress, Search, search
from napari_segany.session.track_session import TrackSession
from napari_segany.session.whole_tracking import WholeRun

#: Objects shown as examples at most, when more of the same are to be suggested.
EXAMPLES = 16
#: An object of which a larger share is labelled already is no news.
KNOWN_SHARE = 0.3


class ConceptSession(TrackSession):
    """A `TrackSession` with `find` and `track`."""

    def find(
        self,
        text: str | None = None,
        exemplars: Sequence[Sequence[float]] | np.ndarray | None = None,
        negatives: Sequence[Sequence[float]] | np.ndarray | None = None,
        frame: int = 0,
        settings: FindSettings | None = None,
        region: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> Instances:
        """Find every object of a concept on one frame; labels change only by `accept_found`.

        Parameters
        ----------
        text, exemplars, negatives, settings, region, progress
            See `napari_segany.find`.
        frame : int

        Raises
        ------
        InvalidPromptError, UnsupportedError
        """
        shown, others = (self._boxes(boxes) for boxes in (exemplars, negatives))
        settings = settings or FindSettings()
        place = self._place(region)
        tiled = place is not None or max(self._frame_shape) > settings.tile
        image = self.frames.plane(self._check_frame(frame)) if tiled else self.embedding(frame)
        intensity = self.frames.intensity
        words, kept = checked_text(text), self.embeddings
        return find(self.model, image, words, shown, others, settings, intensity, progress, place, kept)

    def propose(
        self,
        frame: int,
        settings: FindSettings | None = None,
        region: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> Instances:
        """Suggest the objects of a frame that are not in its labels; labels change only by `accept_found`.

        Objects like the `confirmed` ones of the nearest frame that has any, if the model finds
        concepts; otherwise everything.

        Parameters
        ----------
        frame : int
        settings : FindSettings, optional
        region : (y0, x0, y1, x1), optional
            Look only there.
        progress : callable, optional
            See `napari_segany.find`.

        Returns
        -------
        Instances
            The best first.
        """
        settings = settings or FindSettings()
        labels, shown = self.store.read(self._check_frame(frame)), self._nearest_confirmed(frame)
        if shown is None or not isinstance(self.model, ConceptModel):
            found = self._everything(frame, self._place(region), progress)
        elif shown == frame:
            found = self.find(None, self._boxes_of(shown), None, frame, settings, region, progress)
        elif region is not None or max(self._frame_shape) > settings.tile:
            what = FindSearch(None, self._boxes_of(shown), np.zeros((0, 4)), settings)
            found = self._search(frame, what, self._place(region), shown, progress)
        else:
            examples = Examples(self.embedding(shown), self._boxes_of(shown), np.zeros((0, 4)))
            found = self.model.find(self.embedding(frame), self.model.describe(None, [examples]), settings)
        objects = found.found()
        new = [
            i
            for i in np.argsort(-found.scores, kind="stable")
            if found.scores[i] >= settings.threshold and not _is_known(objects[i], labels)
        ]
        return found.take(new)

    def _everything(self, frame: int, region: Box | None, progress: Progress | None) -> Instances:
        what = EverythingSearch()
        if region is not None or max(self._frame_shape) > what.sides(self.model)[0]:
            return self._search(frame, what, region, frame, progress)
        return everything(self.model, self.embedding(frame))

    def _search(self, frame: int, what: Search, region: Box | None, shown: int, progress: Progress | None) -> Instances:
        """Look at a frame tile by tile, by examples on the frame `shown`."""
        plane, examples = self.frames.plane(frame), self.frames.plane(shown)
        return search(self.model, plane, what, self.frames.intensity, progress, region, examples, self.embeddings)

    def _nearest_confirmed(self, frame: int) -> int | None:
        """Frame nearest to `frame` on which something is confirmed, itself included."""
        frames = sorted(range(len(self.frames)), key=lambda at: abs(at - frame))
        return next((at for at in frames if self.confirmed(at).any()), None)

    def _boxes_of(self, frame: int) -> np.ndarray:
        """(N, 4) boxes around confirmed objects of a frame, the largest first."""
        labels = self.confirmed(frame)
        ids, areas = np.unique(labels[labels > 0], return_counts=True)
        largest = ids[np.argsort(-areas, kind="stable")][:EXAMPLES]
        return np.array([bounding_box(labels == i) for i in largest], dtype=np.float64)

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
                        self._set("clicks", (ids[-1], frame), 0),
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
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Find every object of a concept on every frame, and give each one id throughout.

        In depth, models that draw whole objects draw those that are found on
        planes, and the surest stay (`whole_tracking`); in time a memory
        follows what is found (`concept_tracking`).

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
        progress : callable, optional
            Called with (frames looked at, frames in all), also while none is yielded. False ends the run with these.

        Yields
        ------
        frame, labels
            As `propagate` does, ``settings.delay`` frames after they were looked at; in depth, when all objects on
            them have been seen to their ends.

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
        self._removed.clear()
        asked = network, self.embedding, concepts, first, settings
        whole = WholeRun(*asked, self.frames)
        if settings.rule == "assignment" and self._goes_through_depth(whole, span):
            return self._track(whole, span, progress)
        kind = PublishedRun if settings.rule == "published" else AssignedRun
        memory = begin_memory(network, len(self.frames), self.settings)
        return self._track(kind(*asked, memory), span, progress)

    def _goes_through_depth(self, run: WholeRun, span: range) -> bool:
        """Whether objects are whole ones in space, and the model draws such; where nobody said, some are tried."""
        if self.settings.motion or run.settings.divisions or not isinstance(self.model, VolumeModel):
            return False
        if self.settings.depth is None and span:
            middle = span[len(span) // 2]
            found = run.detect(self.embedding(middle)).carried
            if found:
                self._find_out_depth({number: {middle: carried} for number, carried in enumerate(found)})
        return bool(self.settings.depth)

    def _track(self, run: DetectingRun, span: range, progress: Progress | None) -> Iterator[tuple[int, np.ndarray]]:
        step = Step("track")
        try:
            for tracked in run.frames(span, progress):
                parents = [
                    self._set("parents", (object_id, tracked.frame), parent)
                    for object_id, parent in tracked.parents.items()
                ]
                visit = Visit(tracked.frame, tracked.found, frozenset(tracked.found))
                yield self._write(step, visit, parents)
        finally:
            self.history.push(step)

    def _place(self, region: Sequence[float] | None) -> Box | None:
        return None if region is None else check_region(self._frame_shape, region)

    def _boxes(self, boxes: Sequence[Sequence[float]] | np.ndarray | None) -> np.ndarray:
        return np.zeros((0, 4)) if boxes is None or len(boxes) == 0 else check_boxes(self._frame_shape, boxes)


def _is_known(found: Found, labels: np.ndarray) -> bool:
    (y0, x0, y1, x1), patch = found
    inside = labels[y0:y1, x0:x1][patch]
    return int(np.count_nonzero(inside)) > KNOWN_SHARE * max(inside.size, 1)
