"""A model that computes on another computer, used as if it were here.

Planes and prompts go there, logits come back; embeddings and memories stay.
Nothing here needs torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np

from napari_segany.cluster.link import Link
from napari_segany.cluster.wire import Facts, ForgottenError, pack_found, pack_prompt, unpack_answers, unpack_found
from napari_segany.core.concepts import Examples
from napari_segany.core.errors import UnsupportedError
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt, mask_logits
from napari_segany.core.protocols import ImageModel, Multimask
from napari_segany.core.settings import EverythingSettings, FindSettings
from napari_segany.core.volume_windows import WindowShape

#: Frames that a fresh memory is reminded of, as many as the models look back on.
RECENT = 7


def _key() -> str:
    return uuid4().hex


@dataclass(frozen=True, eq=False)
class RemoteEmbedding:
    """An image that was encoded elsewhere; it is kept to be encoded again should that be forgotten."""

    image_shape: tuple[int, int]
    model_name: str
    image: np.ndarray = field(repr=False)
    intensity: IntensityRange | None
    key: str = field(default_factory=_key)

    def restore(self, model: RemoteModel) -> None:
        """Encode it (again)."""
        model.call("embed", self.key, self.image, self.intensity)


@dataclass(frozen=True, eq=False)
class RemoteConcept:
    """A concept that was described elsewhere."""

    text: str | None
    examples: tuple[Examples, ...]
    key: str = field(default_factory=_key)

    def restore(self, model: RemoteModel) -> None:
        """Describe it (again)."""
        shown = [(one.embedding.key, one.boxes, one.negatives) for one in self.examples]
        model.call("describe", self.key, self.text, shown)


class RemoteModel:
    """An `ImageModel` on a worker.

    Parameters
    ----------
    link : Link
    facts : Facts
    """

    def __init__(self, link: Link, facts: Facts) -> None:
        self.link, self.name, self.family, self.capabilities = link, facts.name, facts.family, facts.capabilities
        self.device, self.dtype = f"{facts.device} of {link.address}", facts.dtype
        self._made: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> RemoteEmbedding:
        """Encode an (H, W[, C]) image; see `ImageModel.embed`."""
        image = np.ascontiguousarray(image)
        return self.make(RemoteEmbedding((image.shape[0], image.shape[1]), self.name, image, intensity))

    def predict(
        self, embedding: RemoteEmbedding, prompts: Sequence[Prompt], multimask: Multimask = "auto"
    ) -> list[Candidates]:
        """Answer prompts; see `ImageModel.predict`."""
        self.check(embedding)
        if not prompts:
            return []
        return unpack_answers(self.call("predict", embedding.key, [pack_prompt(one) for one in prompts], multimask))

    def check(self, embedding: Any) -> None:
        """Raise `UnsupportedError` when an embedding was made by another model."""
        if not isinstance(embedding, RemoteEmbedding) or embedding.model_name != self.name:
            raise UnsupportedError(f"This embedding was not made by {self.name}; embed the image again.")
        self._made[embedding.key] = embedding

    def make(self, thing: Any) -> Any:
        """Make an embedding, a concept or a memory there, and remember how."""
        self._made[thing.key] = thing
        thing.restore(self)
        return thing

    def call(self, method: str, *args: Any) -> Any:
        """Call the server; what it has forgotten is made again first."""
        while True:
            try:
                return self.link.call(method, *args)
            except ForgottenError as error:
                thing = self._made.get(str(error.args[0]))
                if thing is None:
                    raise
                thing.restore(self)


class RemoteStackModel(RemoteModel):
    """A `StackModel` on a worker."""

    def __init__(self, link: Link, facts: Facts) -> None:
        super().__init__(link, facts)
        self.revises = facts.revises

    def tracker(self, frames: int, motion: bool = False) -> RemoteTracker:
        """A fresh memory; see `StackModel.tracker`."""
        kind = RemoteRevisableTracker if self.revises else RemoteTracker
        return self.make(kind(self, frames, motion))


class RemoteConceptModel(RemoteStackModel):
    """A `ConceptModel` and `StackModel` on a worker."""

    def __init__(self, link: Link, facts: Facts) -> None:
        super().__init__(link, facts)
        self.words = facts.words or ()

    def describe(self, text: str | None, examples: Sequence[Examples]) -> RemoteConcept:
        """Encode what to look for; see `ConceptModel.describe`."""
        for one in examples:
            self.check(one.embedding)
        return self.make(RemoteConcept(text, tuple(examples)))

    def find(self, embedding: RemoteEmbedding, described: RemoteConcept, settings: FindSettings) -> Instances:
        """Find the objects of a concept; see `ConceptModel.find`."""
        self.check(embedding)
        self._made[described.key] = described
        return self.call("find", embedding.key, described.key, settings)


class RemoteProposingModel(RemoteConceptModel):
    """The same of a model that also proposes boxes and draws volumes, as nano does."""

    def __init__(self, link: Link, facts: Facts) -> None:
        super().__init__(link, facts)
        self.everything_settings: EverythingSettings = facts.everything_settings
        self.volume_window: WindowShape = facts.volume_window

    def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Draw objects in windows; see `VolumeModel.complete`."""
        return self.call("complete", pixels, given, seen)

    def propose_boxes(self, embedding: RemoteEmbedding) -> np.ndarray:
        """(N, 4) boxes (y0, x0, y1, x1) of the objects it sees."""
        self.check(embedding)
        return self.call("propose_boxes", embedding.key)


class RemoteTracker:
    """A `Tracker` on a worker, with what a fresh one has to be told should it be lost.

    Parameters
    ----------
    model : RemoteStackModel
    frames : int
    motion : bool
    """

    encodes = True

    def __init__(self, model: RemoteStackModel, frames: int, motion: bool) -> None:
        self.model, self.frames, self.motion, self.key = model, frames, motion, _key()
        self._given: dict[int, tuple[RemoteEmbedding, dict[int, Prompt]]] = {}
        self._recent: deque[tuple[int, RemoteEmbedding, dict[int, Prompt]]] = deque(maxlen=RECENT)

    def restore(self, model: RemoteModel) -> None:
        """Begin it (again): what it was given, and the masks of the last frames."""
        model.call("tracker", self.key, self.frames, self.motion)
        for frame, (embedding, given) in list(self._given.items()):
            model.call("condition", self.key, frame, embedding.key, given)
        for frame, embedding, masks in list(self._recent):
            model.call("remind", self.key, frame, embedding.key, masks)

    def condition(self, frame: int, embedding: RemoteEmbedding, given: Mapping[int, Prompt]) -> dict[int, Candidates]:
        """Learn objects on a frame; see `Tracker.condition`."""
        self.model.check(embedding)
        packed = {i: pack_prompt(prompt) for i, prompt in given.items()}
        found = unpack_found(self.model.call("condition", self.key, frame, embedding.key, packed))
        before = self._given.get(frame, (embedding, {}))[1]
        self._given[frame] = embedding, before | packed
        return found

    def remind(self, frame: int, embedding: RemoteEmbedding, masks: Mapping[int, np.ndarray]) -> None:
        """Remember masks found earlier; see `Tracker.remind`."""
        self.model.check(embedding)
        packed = {i: _mask_prompt(mask) for i, mask in masks.items()}
        self.model.call("remind", self.key, frame, embedding.key, packed)
        self._recent.append((frame, embedding, packed))

    def follow(
        self, frame: int, embedding: RemoteEmbedding, objects: Collection[int], backward: bool = False
    ) -> dict[int, Candidates]:
        """Find objects on the next frame; see `Tracker.follow`."""
        self.model.check(embedding)
        found = unpack_found(self.model.call("follow", self.key, frame, embedding.key, list(objects), backward))
        masks = {i: answer.best for i, answer in found.items()}
        # Later frames are reminded of these, should the memory be lost.
        self._recent.append((frame, embedding, {i: _mask_prompt(mask) for i, mask in masks.items() if mask.any()}))
        return found

    def forget(self, object_id: int) -> None:
        """Drop an object; see `Tracker.forget`."""
        self.model.call("forget", self.key, object_id)
        for objects in (*(given for _, given in self._given.values()), *(masks for *_, masks in self._recent)):
            objects.pop(object_id, None)


class RemoteRevisableTracker(RemoteTracker):
    """A `RevisableTracker` on a worker."""

    def revise(
        self, frame: int, embedding: RemoteEmbedding, found: Mapping[int, Candidates], trusted: Collection[int]
    ) -> None:
        """Remember other masks than those just found; see `RevisableTracker.revise`."""
        self.model.check(embedding)
        self.model.call("revise", self.key, frame, embedding.key, pack_found(found), list(trusted))
        if self._recent and self._recent[-1][0] == frame:
            masks = self._recent[-1][2]
            masks.update({i: _mask_prompt(answer.mask(0)) for i, answer in found.items() if answer.mask(0).any()})


def _mask_prompt(mask: np.ndarray) -> Prompt:
    return pack_prompt(Prompt(mask=mask_logits(mask)))


def load_remote(name: str, address: str, dtype: str = "auto") -> ImageModel:
    """Load a model on a worker of a scheduler; see `napari_segany.load_model`.

    Raises
    ------
    ClusterError
        Nobody answers, or no worker is there.
    UnknownModelError, CheckpointError
        Raised where the model is loaded, whose files count.
    """
    link = Link(address, name, dtype)
    try:
        facts = link.call("facts")
    except BaseException:
        link.close()
        raise
    kind: type[RemoteModel] = RemoteModel
    if "stack" in facts.capabilities:
        kind = RemoteStackModel if facts.words is None else RemoteConceptModel
        if facts.words is not None and facts.everything_settings is not None:
            kind = RemoteProposingModel
    return kind(link, facts)
