"""Carrying masks from frame to frame: the mask found on one frame prompts the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import numpy as np

from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Embedding, ImageModel, StackModel, Tracker
from napari_segany.core.settings import PropagationSettings
from napari_segany.session.carried import Carried


def begin_memory(model: ImageModel, frames: int, settings: PropagationSettings) -> Tracker:
    """A memory of its own, where a model has one, for objects on a stack of so many frames."""
    if isinstance(model, StackModel):
        return model.tracker(frames, settings.motion)
    return CarryingTracker(model, settings)


class CarryingTracker:
    """The `Tracker` of models without a memory of their own.

    Parameters
    ----------
    model : ImageModel
    settings : PropagationSettings
    """

    encodes = True

    def __init__(self, model: ImageModel, settings: PropagationSettings) -> None:
        self.model, self.settings = model, settings
        self.known: dict[int, dict[int, Carried]] = defaultdict(dict)
        self.latest: dict[int, tuple[int, Carried]] = {}

    def condition(self, frame: int, embedding: Embedding, given: Mapping[int, Prompt]) -> dict[int, Candidates]:
        """Ask for objects on a frame; see `Tracker.condition`."""
        answers = dict(zip(given, self.model.predict(embedding, list(given.values())), strict=True))
        for object_id, answer in answers.items():
            mask = given[object_id].known_mask
            self.known[object_id][frame] = Carried.from_candidates(answer) if mask is None else Carried.from_mask(mask)
        return answers

    def remind(self, frame: int, embedding: Embedding, masks: Mapping[int, np.ndarray]) -> None:
        """Go on from masks found earlier; see `Tracker.remind`."""
        for object_id, mask in masks.items():
            self.latest[object_id] = frame, Carried.from_mask(mask)

    def forget(self, object_id: int) -> None:
        """Drop an object."""
        self.known.pop(object_id, None)
        self.latest.pop(object_id, None)

    def follow(
        self, frame: int, embedding: Embedding, objects: Collection[int], backward: bool = False
    ) -> dict[int, Candidates]:
        """Carry the objects that were on the frame before; see `Tracker.follow`."""
        before = frame + 1 if backward else frame - 1
        asked = {}
        for object_id in objects:
            at, latest = self.latest.get(object_id, (None, None))
            carried = latest if at == before else self.known[object_id].get(before)
            if carried is not None and not carried.is_empty:
                asked[object_id] = carried
        answers = self.model.predict(embedding, [carried.next_prompt() for carried in asked.values()])
        found = {}
        for (object_id, earlier), answer in zip(asked.items(), answers, strict=True):
            now = Carried.from_candidates(answer)
            if now.continues(earlier, self.settings):
                self.latest[object_id] = frame, now
                found[object_id] = answer
        return found
