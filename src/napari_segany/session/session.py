"""A person's work on one stack: prompts, previews, labels, and the way back from every change."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import RLock
from typing import Any

import numpy as np
from psygnal import Signal

from napari_segany.core.errors import InvalidImageError, InvalidLabelsError, InvalidPromptError
from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import PointsLike, Prompt, make_prompt
from napari_segany.core.protocols import (
    Embedding,
    EmbeddingCache,
    FrameSource,
    ImageModel,
    LabelStore,
    NoCache,
)
from napari_segany.core.settings import PropagationSettings
from napari_segany.core.state import TABLES, Key
from napari_segany.session.history import EntryEdit, History, LabelEdit, Step
from napari_segany.session.tracks import Track, tracks

Event = dict[str, Any]

#: Embeddings kept for going back and forth between frames.
EMBEDDINGS_KEPT = 4
#: Candidate masks kept for prompts; those of earlier ones are asked for again.
CANDIDATES_KEPT = 64


class Session:
    """Objects, prompts and labels over a stack.

    Parameters
    ----------
    frames : FrameSource
    model : ImageModel
    labels : LabelStore
        Of the shape (N, H, W).
    record : callable, optional
        The journal: receives what each gesture changed as a list of
        ``{"event": "set", "table", "object", "frame", "value"}`` when a prompt,
        acceptance or score becomes `value` (None: gone),
        ``{"event": "run"}`` when a propagation begins anew and
        ``{"event": "frame", "frame"}`` when it has written a frame. Labels are
        written before.
    embeddings : EmbeddingCache, optional
        Where embeddings are kept for the next time.

    Raises
    ------
    InvalidLabelsError
        When labels and frames differ in shape.
    """

    #: Frame whose labels have changed.
    labels_changed = Signal(int)
    #: Object id and frame whose prompt or preview has changed.
    prompt_changed = Signal(int, int)

    def __init__(
        self,
        frames: FrameSource,
        model: ImageModel,
        labels: LabelStore,
        record: Callable[[list[Event]], None] | None = None,
        embeddings: EmbeddingCache | None = None,
    ) -> None:
        if tuple(labels.shape) != tuple(frames.shape[:3]):
            raise InvalidLabelsError(
                f"The labels have the shape {tuple(labels.shape)} and the stack {tuple(frames.shape[:3])}; "
                "they must be the same."
            )
        self.frames, self.model, self.store = frames, model, labels
        self.embeddings = embeddings
        self.settings = PropagationSettings()
        self.prompts: dict[Key, Prompt] = {}
        self.accepted: dict[Key, bool] = {}
        self.scores: dict[Key, float] = {}
        self.parents: dict[Key, int] = {}
        #: Prompts that it took until a mask was accepted; none for those that were only confirmed.
        self.clicks: dict[Key, int] = {}
        self._given: Counter[Key] = Counter()
        self.finished: set[int] = set()
        self.history = History()
        self._changed: dict[int, set[int]] = {}
        # Objects taken out while a propagation runs.
        self._removed: set[int] = set()
        self._candidates: OrderedDict[Key, Candidates] = OrderedDict()
        self._embeddings: OrderedDict[int, Embedding] = OrderedDict()
        # Frames that are being encoded: (id of the model, frame) -> what will be made.
        self._encoding: dict[tuple[int, int], Future[Embedding]] = {}
        self._record = record or (lambda events: None)
        # A click in the window and a running propagation meet here.
        self._lock = RLock()

    # -- reading ----------------------------------------------------------------------------

    @property
    def labels(self) -> Any:
        """(N, H, W) array-like of object ids, 0 is background."""
        return self.store.array()

    @property
    def tracks(self) -> list[Track]:
        """Where each object was found and how sure the model was of it."""
        return tracks(self.scores, self.parents)

    def uncertainty(self, object_id: int) -> np.ndarray:
        """(N,) float32: one minus the predicted IoU on each frame; NaN where the object was not found."""
        found = np.full(len(self.frames), np.nan, dtype=np.float32)
        for (one, frame), score in list(self.scores.items()):
            if one == object_id:
                found[frame] = 1.0 - min(max(score, 0.0), 1.0)
        return found

    def most_uncertain(self, object_id: int | None = None) -> tuple[int, int] | None:
        """Object id and frame whose mask the model was least sure of, of one object or of all; None without masks.

        Frames that a person has accepted are left out.
        """
        open_to_doubt = {
            key: score
            for key, score in list(self.scores.items())
            if key not in self.accepted and object_id in (None, key[0])
        }
        return min(open_to_doubt, key=open_to_doubt.__getitem__, default=None)

    def confirmed(self, frame: int) -> np.ndarray:
        """(H, W) labels of a frame without the objects that a model found there and nobody has accepted."""
        labels = self.store.read(self._check_frame(frame))
        doubtful = [i for i, at in self.scores if at == frame and (i, at) not in self.accepted]
        return np.where(np.isin(labels, doubtful), 0, labels)

    def candidates(self, object_id: int, frame: int) -> Candidates | None:
        """Candidate masks for an object's prompts on a frame, asked for again if need be; None without prompts."""
        key = object_id, frame
        prompt, known = self.prompts.get(key), self._candidates.get(key)
        if prompt is None or known is not None:
            # Those of an object that was removed are kept for its return.
            return None if prompt is None else known
        model = self.model
        (answer,) = model.predict(self.embedding(frame), [prompt])
        with self._lock:
            # Unless it was prompted differently meanwhile, or another model took over.
            if self.prompts.get(key) is prompt and model is self.model:
                self._keep(key, answer)
        return answer

    def _keep(self, key: Key, answer: Candidates) -> None:
        self._candidates[key] = answer
        self._candidates.move_to_end(key)
        while len(self._candidates) > CANDIDATES_KEPT:
            self._candidates.popitem(last=False)

    def embedding(self, frame: int) -> Embedding:
        """The embedding of a frame, made now or kept from before.

        Whoever asks for a frame that is being encoded waits for that; nobody
        else waits.
        """
        self._check_frame(frame)
        with self._lock:
            if frame in self._embeddings:
                self._embeddings.move_to_end(frame)
                return self._embeddings[frame]
            model, key = self.model, (id(self.model), frame)
            mine = key not in self._encoding
            promise = self._encoding.setdefault(key, Future())
        if not mine:
            return promise.result()
        try:
            image, intensity = self.frames[frame], self.frames.intensity
            made = (self.embeddings or NoCache()).embed(model, image, intensity)
            promise.set_result(made)
        except BaseException as error:
            promise.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._encoding[key]
        with self._lock:
            if model is self.model:
                self._embeddings[frame] = made
                while len(self._embeddings) > EMBEDDINGS_KEPT:
                    self._embeddings.popitem(last=False)
        return made

    def is_embedded(self, frame: int) -> bool:
        """Whether a click on this frame is answered without encoding it first."""
        return frame in self._embeddings

    def use_model(self, model: ImageModel) -> None:
        """Go on with another model; prompts and labels stay."""
        with self._lock:
            self.model = model
            self._embeddings.clear()
            self._candidates.clear()

    def next_object_id(self) -> int:
        """The smallest id larger than every id prompted or accepted so far."""
        used = [object_id for object_id, _ in (*self.prompts, *self.scores, *self.accepted)]
        return max(used, default=0) + 1

    # -- prompting ---------------------------------------------------------------------------

    def prompt(
        self,
        object_id: int,
        frame: int,
        points: PointsLike | None = None,
        labels: Sequence[int] | np.ndarray | None = None,
        box: Sequence[float] | np.ndarray | None = None,
        mask: np.ndarray | None = None,
        replace: bool = False,
    ) -> np.ndarray:
        """Add prompts for an object on a frame and preview the answer.

        Parameters
        ----------
        object_id : positive int
        frame : int
        points : N x (y, x), optional
        labels : N x {0, 1}, optional
        box : (y0, x0, y1, x1), optional
        mask : (H, W), optional
        replace : bool
            Forget the prompts this object had on this frame.

        Returns
        -------
        (H, W) bool
            The best mask. Labels change only by `accept` and `propagate`.

        Raises
        ------
        InvalidPromptError
            See `napari_segany.core.prompts.make_prompt`; also for an id that is not a positive integer.
        """
        key = self._check_object(object_id), self._check_frame(frame)
        new = make_prompt(self._frame_shape, points, labels, box, mask)
        self._given[key] += 1
        merged = self.prompts[key].merged(new) if key in self.prompts and not replace else new
        model = self.model
        (answer,) = model.predict(self.embedding(frame), [merged])
        with self._lock:
            if model is self.model:
                self._keep(key, answer)
            self._apply(Step("prompt", [self._set("prompts", key, merged)]))
        self.prompt_changed.emit(*key)
        return answer.best

    def forget(self, object_id: int, frame: int) -> None:
        """Drop an object's prompts on a frame; its labels stay."""
        key = object_id, frame
        self._candidates.pop(key, None)
        if key in self.prompts:
            self._apply(Step("forget", [self._set("prompts", key, None)]))
            self.prompt_changed.emit(object_id, frame)

    def accept(
        self,
        object_id: int,
        frame: int,
        mask: np.ndarray | None = None,
        candidate: int | None = None,
        overwrite: bool = False,
    ) -> np.ndarray:
        """Write an object's mask into the labels of a frame.

        Parameters
        ----------
        object_id, frame : int
        mask : (H, W) bool, optional
            The mask to write, drawn or corrected by hand.
        candidate : int, optional
            Which of the `candidates` to write without `mask`; the best by default.
        overwrite : bool
            Let it take pixels from other objects; by default theirs are kept.

        Returns
        -------
        (H, W) integer array
            The frame's labels afterwards.

        Raises
        ------
        InvalidPromptError
            Nothing to accept, or a mask of another shape.
        """
        key = self._check_object(object_id), self._check_frame(frame)
        score = 1.0
        if mask is None:
            answer = self.candidates(*key)
            if answer is None:
                raise InvalidPromptError(f"Object {object_id} has no mask on frame {frame} yet; prompt it first.")
            chosen = answer.best_index if candidate is None else candidate
            mask, score = answer.mask(chosen), float(answer.scores[chosen])
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != self._frame_shape:
            raise InvalidPromptError(f"The mask has the shape {mask.shape} and the frame {self._frame_shape}.")
        with self._lock:
            before = self.store.read(frame)
            after = np.where(before == object_id, 0, before)
            after[mask & (True if overwrite else after == 0)] = object_id
            step = Step("accept")
            if (before != after).any():
                step.edits.append(LabelEdit(self.store, frame, before, after))
            clicks = self.clicks.get(key, 0) + self._given.pop(key, 0)
            step.edits += [
                self._set("accepted", key, True),
                self._set("scores", key, score),
                self._set("clicks", key, clicks),
            ]
            self._apply(step)
        self.labels_changed.emit(frame)
        return after

    def accept_labels(self, frame: int, labels: np.ndarray) -> list[int]:
        """Write the objects of a label image into the labels of a frame, under the ids they have there.

        Parameters
        ----------
        frame : int
        labels : (H, W) integer array

        Returns
        -------
        ids of the objects

        Raises
        ------
        InvalidLabelsError
            Another shape than the frame's, no integers, or no object.
        """
        labels = np.asarray(labels)
        if labels.dtype.kind not in "bui" or labels.shape != self._frame_shape:
            raise InvalidLabelsError(
                f"A label image of integers with the shape {self._frame_shape} is needed, got {labels.dtype} with the "
                f"shape {labels.shape}."
            )
        ids = [int(i) for i in np.unique(labels) if i > 0]
        if not ids:
            raise InvalidLabelsError("The label image holds no object.")
        for object_id in ids:
            self.accept(object_id, frame, labels == object_id)
        return ids

    def remove(self, object_id: int) -> None:
        """Take an object out: its prompts, its scores and its labels on every frame; one step to undo."""
        with self._lock:
            step = Step("remove")
            for frame in range(len(self.frames)):
                before = self.store.read(frame)
                if (before == object_id).any():
                    step.edits.append(LabelEdit(self.store, frame, before, np.where(before == object_id, 0, before)))
            for table in TABLES:
                keys = [key for key in getattr(self, table) if key[0] == object_id]
                step.edits += [self._set(table, key, None) for key in keys]
            self._removed.add(object_id)
            self._apply(step)
        for frame in sorted(step.frames):
            self.labels_changed.emit(frame)

    # -- undoing -----------------------------------------------------------------------------

    def undo(self) -> str | None:
        """Take back the last prompt, acceptance or propagation; returns its name, None when there is none."""
        return self._travel(self.history.undo)

    def redo(self) -> str | None:
        """Do again what was taken back last; returns its name, None when there is none."""
        return self._travel(self.history.redo)

    def _travel(self, move: Callable[[], Step | None]) -> str | None:
        with self._lock:
            step = move()
            if step is None:
                return None
            for edit in step.entries:
                if edit.table == "prompts":
                    self._candidates.pop(edit.key, None)
            self._note(step)
        for edit in step.entries:
            if edit.table == "prompts":
                self.prompt_changed.emit(*edit.key)
        for frame in sorted(step.frames):
            self.labels_changed.emit(frame)
        return step.name

    def _apply(self, step: Step) -> None:
        done = Step(step.name)
        with self._lock:
            try:
                for edit in step.edits:
                    done.do(edit)
            finally:
                # What a full disk let through of it can be undone.
                self.history.push(done)
                self._note(done)

    def _note(self, step: Step) -> None:
        """Journal a step, and remember where `update` has to start."""
        for edit in step.entries:
            if edit.table in ("prompts", "accepted"):
                object_id, frame = edit.key
                self._changed.setdefault(object_id, set()).add(frame)
        if step.entries:
            self._record([event_of(edit) for edit in step.entries])

    def _set(self, table: str, key: Key, value: Any) -> EntryEdit:
        return EntryEdit(table, getattr(self, table), key, value)

    # -- checking ----------------------------------------------------------------------------

    @property
    def _frame_shape(self) -> tuple[int, int]:
        return self.frames.shape[1], self.frames.shape[2]

    def _span(self, start: int | None, stop: int | None) -> range:
        first, last = 0 if start is None else start, len(self.frames) if stop is None else stop
        if not 0 <= first < last <= len(self.frames):
            raise InvalidPromptError(
                f"Frames {first} to {last} are not a range within this stack of {len(self.frames)} frames."
            )
        return range(first, last)

    def _check_frame(self, frame: int) -> int:
        if not 0 <= frame < len(self.frames):
            raise InvalidImageError(f"Frame {frame} is not in this stack of {len(self.frames)} frames.")
        return int(frame)

    def _check_object(self, object_id: int) -> int:
        if int(object_id) != object_id or object_id < 1:
            raise InvalidPromptError(f"An object id must be a positive whole number, got {object_id}.")
        if object_id > np.iinfo(self.store.dtype).max:
            raise InvalidLabelsError(
                f"Object id {object_id} does not fit into labels of dtype {self.store.dtype}; use a wider dtype."
            )
        return int(object_id)


def event_of(edit: EntryEdit) -> Event:
    """What the journal is told of an entry, as it is now."""
    object_id, frame = edit.key
    value = edit.entries.get(edit.key)
    return {"event": "set", "table": edit.table, "object": object_id, "frame": frame, "value": value}
