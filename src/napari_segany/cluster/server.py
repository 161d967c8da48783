"""A model as an actor on a Dask worker: it keeps embeddings and memories, and answers prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_segany.cluster.pages import keep_pages
from napari_segany.cluster.wire import (
    Answers,
    Facts,
    ForgottenError,
    pack_answers,
    pack_found,
    unpack_found,
    unpack_prompt,
)
from napari_segany.core.concepts import Examples
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Multimask, RevisableTracker, StackModel
from napari_segany.core.settings import FindSettings

#: Embeddings, concepts and trackers kept; a client sends again what it still needs and is no longer there.
KEPT = 16


class ModelServer:
    """A model and what was made with it, by keys that the client chooses.

    Parameters
    ----------
    name : str
        See `napari_segany.load_model`.
    dtype : str
    """

    def __init__(self, name: str, dtype: str = "auto") -> None:
        self.name, self.dtype = name, dtype
        self._model: Any = None
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def call(self, method: str, *args: Any) -> tuple[bool, Any]:
        """Call a method of this class; (True, answer) or (False, error).

        Errors of the work are returned, so that those that are raised are
        errors of the connection.
        """
        try:
            return True, getattr(self, method)(*args)
        except Exception as error:
            return False, error

    @property
    def model(self) -> Any:
        """The model, loaded when it is first needed."""
        if self._model is None:
            from napari_segany.models.registry import load_model

            keep_pages()
            self._model = load_model(self.name, dtype=self.dtype)
        return self._model

    def facts(self) -> Facts:
        """What a client must know."""
        model = self.model
        return Facts(
            model.name,
            model.family,
            model.capabilities,
            str(getattr(model, "device", "cpu")),
            str(getattr(model, "dtype", "")).removeprefix("torch."),
            getattr(model, "words", None),
            getattr(model, "everything_settings", None),
            getattr(model, "volume_window", None),
            isinstance(model, StackModel) and isinstance(model.tracker(1), RevisableTracker),
        )

    def embed(self, key: str, image: np.ndarray, intensity: IntensityRange | None) -> None:
        """Encode an image and keep it."""
        self._keep(key, self.model.embed(image, intensity))

    def predict(self, key: str, prompts: Sequence[Prompt], multimask: Multimask) -> Answers:
        """See `ImageModel.predict`."""
        return pack_answers(self.model.predict(self._get(key), [unpack_prompt(one) for one in prompts], multimask))

    def propose_boxes(self, key: str) -> np.ndarray:
        """Boxes of the objects that the model sees."""
        return np.asarray(self.model.propose_boxes(self._get(key)))

    def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """See `VolumeModel.complete`."""
        return np.asarray(self.model.complete(pixels, given, seen))

    def describe(self, key: str, text: str | None, examples: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
        """Describe a concept and keep it; examples are (key of the embedding, boxes, negatives)."""
        shown = [Examples(self._get(one), boxes, negatives) for one, boxes, negatives in examples]
        self._keep(key, self.model.describe(text, shown))

    def find(self, key: str, described: str, settings: FindSettings) -> Instances:
        """See `ConceptModel.find`."""
        return self.model.find(self._get(key), self._get(described), settings)

    def tracker(self, key: str, frames: int, motion: bool) -> None:
        """Begin a memory and keep it."""
        self._keep(key, self.model.tracker(frames, motion))

    def condition(self, key: str, frame: int, embedding: str, given: Mapping[int, Prompt]) -> Any:
        """See `Tracker.condition`."""
        prompts = {i: unpack_prompt(prompt) for i, prompt in given.items()}
        return pack_found(self._get(key).condition(frame, self._get(embedding), prompts))

    def remind(self, key: str, frame: int, embedding: str, masks: Mapping[int, Prompt]) -> None:
        """See `Tracker.remind`; masks come as prompts."""
        known = {i: unpack_prompt(prompt).known_mask for i, prompt in masks.items()}
        self._get(key).remind(frame, self._get(embedding), known)

    def follow(self, key: str, frame: int, embedding: str, objects: Sequence[int], backward: bool) -> Any:
        """See `Tracker.follow`."""
        return pack_found(self._get(key).follow(frame, self._get(embedding), objects, backward))

    def forget(self, key: str, object_id: int) -> None:
        """See `Tracker.forget`."""
        self._get(key).forget(object_id)

    def revise(self, key: str, frame: int, embedding: str, found: Any, trusted: Sequence[int]) -> None:
        """See `RevisableTracker.revise`."""
        self._get(key).revise(frame, self._get(embedding), unpack_found(found), trusted)

    def _keep(self, key: str, value: Any) -> None:
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def _get(self, key: str) -> Any:
        if key not in self._kept:
            raise ForgottenError(key)
        self._kept.move_to_end(key)
        return self._kept[key]
