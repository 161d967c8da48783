"""What the session needs of a model, of a stack and of a place for labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from napari_segany.core.concepts import Examples
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.core.settings import FindSettings
from napari_segany.core.volume_windows import WindowShape

#: True: three masks for every prompt. False: one. "auto": three for a single click, else one.
Multimask = bool | Literal["auto"]

#: Endings of weight files, the preferred first.
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class ModelInfo:
    """One row of the model list.

    Attributes
    ----------
    name, family : str
    capabilities : frozenset of {"image", "stack", "concept"}
    size : int
        Bytes of the weight file, 0 when unknown.
    licence : str
        SPDX identifier, or the licence's own name.
    installed : bool
        Whether the weights lie on this computer.
    gated : bool
        Whether the publisher asks for an account and an agreement.
    url : str
        Where the weights are published; empty for weights in the package.
    provenance : mapping or None
        What a person's own model was taught and what came of it, see `napari_segany.training.adapt.Provenance`.
    """

    name: str
    family: str
    capabilities: frozenset[str]
    size: int
    licence: str
    installed: bool
    gated: bool
    url: str = ""
    provenance: Mapping[str, Any] | None = None

    @property
    def page(self) -> str:
        """Where the publisher presents the model and its licence."""
        return self.url.split("/resolve/")[0]


@runtime_checkable
class Embedding(Protocol):
    """An encoded image, reusable for every prompt on it."""

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""
        ...

    @property
    def model_name(self) -> str:
        """Name of the model that made it, the only one that can read it."""
        ...


class ImageModel(Protocol):
    """A promptable model: encode once, answer many prompts."""

    @property
    def name(self) -> str:
        """Registered name, or the checkpoint's file name."""
        ...

    @property
    def family(self) -> str:
        """Architecture: "nano", "sam", "mobile-sam", ..."""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """Subset of {"image", "stack", "concept"}."""
        ...

    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> Embedding:
        """Encode an (H, W[, C]) image; `intensity` is estimated from it when absent."""
        ...

    def predict(self, embedding: Any, prompts: Sequence[Prompt], multimask: Multimask = "auto") -> list[Candidates]:
        """Answer a batch of prompts, one object each, on one embedding.

        Raises
        ------
        UnsupportedError
            When the embedding was made by another model.
        """
        ...


@runtime_checkable
class StorableModel(Protocol):
    """An `ImageModel` whose embeddings can be kept as arrays."""

    @property
    def fingerprint(self) -> str:
        """Differs between models that make different embeddings, whatever their names."""
        ...

    def pack(self, embedding: Any) -> dict[str, np.ndarray]:
        """Arrays of float16 that make up an embedding."""
        ...

    def unpack(
        self, arrays: Mapping[str, np.ndarray], image: np.ndarray, intensity: IntensityRange | None = None
    ) -> Embedding:
        """Undo `pack`, for the image (H, W[, C]) that was embedded."""
        ...


@runtime_checkable
class SurveyingModel(Protocol):
    """A `StorableModel` whose searches share more than the embedding."""

    def survey(self, embedding: Any) -> Any:
        """Do now what any search of an embedding needs, once; `pack` keeps it."""
        ...


class EmbeddingCache(Protocol):
    """A place where embeddings are kept."""

    def embed(self, model: ImageModel, image: np.ndarray, intensity: IntensityRange | None = None) -> Embedding:
        """The embedding of an image, kept from before or made and kept now."""
        ...

    def surveyed(self, model: ImageModel, image: np.ndarray, intensity: IntensityRange | None = None) -> Embedding:
        """The same with all that the model's searches share; see `SurveyingModel`."""
        ...


class NoCache:
    """Embeddings are made each time; an `EmbeddingCache` that keeps none."""

    def embed(self, model: ImageModel, image: np.ndarray, intensity: IntensityRange | None = None) -> Embedding:
        """See `EmbeddingCache.embed`."""
        return model.embed(image, intensity)

    surveyed = embed


class Tracker(Protocol):
    """What a model remembers of objects on one stack, and how it finds them on the next frame.

    Attributes
    ----------
    encodes : bool
        Whether it looks at embeddings of the frames that it is reminded of and follows objects to; else these may be
        None.
    """

    encodes: bool

    def condition(self, frame: int, embedding: Any, given: Mapping[int, Prompt]) -> dict[int, Candidates]:
        """Learn objects (by id) on a frame from prompts; a prompt that is a mask alone is the truth."""
        ...

    def remind(self, frame: int, embedding: Any, masks: Mapping[int, np.ndarray]) -> None:
        """Remember masks (H, W) bool that were found on a frame earlier on."""
        ...

    def follow(
        self, frame: int, embedding: Any, objects: Collection[int], backward: bool = False
    ) -> dict[int, Candidates]:
        """Find objects on a frame by what is remembered of the frames before it, or after it when `backward`.

        Objects that are not there have an empty mask or are left out.
        """
        ...

    def forget(self, object_id: int) -> None:
        """Drop an object, known or not."""
        ...


@runtime_checkable
class RevisableTracker(Protocol):
    """A `Tracker` that can be told better about the frame it has just followed objects to."""

    def revise(self, frame: int, embedding: Any, found: Mapping[int, Candidates], trusted: Collection[int]) -> None:
        """Remember these masks, the first of each, instead of those found on the frame; some as if they were given."""
        ...


@runtime_checkable
class StackModel(Protocol):
    """An `ImageModel` with a memory of its own for stacks."""

    def tracker(self, frames: int, motion: bool = False) -> Tracker:
        """A fresh memory for objects on a stack of so many frames; `motion` lets it expect steady movement."""
        ...


@runtime_checkable
class VolumeModel(ImageModel, Protocol):
    """An `ImageModel` that draws a whole object in space from what is known of it on a few planes."""

    @property
    def volume_window(self) -> WindowShape:
        """What it looks at."""
        ...

    def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Draw objects in windows around them, one object to a window.

        Parameters
        ----------
        pixels : (P, depth, side, side) float32
            Brightness from 0 to 1.
        given : (P, depth, side, side) float32
            On planes where the object is known, 1 inside and -1 outside, less for a mask that may be wrong; else 0.
        seen : (P, depth, side, side) bool
            Where there are pixels.

        Returns
        -------
        (P, depth, side, side) float32
            Logits, positive inside.
        """
        ...


@runtime_checkable
class ConceptModel(Protocol):
    """An `ImageModel` that finds every object of a concept."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words it knows; empty when it understands any phrase."""
        ...

    def describe(self, text: str | None, examples: Sequence[Examples]) -> Any:
        """Encode what to look for once, for any number of images; at least one of the two is given.

        Raises
        ------
        InvalidPromptError
            A word it does not know, or a phrase that is too long.
        """
        ...

    def find(self, embedding: Any, described: Any, settings: FindSettings) -> Instances:
        """Find the objects of one image whose score is above the threshold."""
        ...


class FrameSource(Protocol):
    """A stack read one frame at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W) or (N, H, W, C)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the frames."""
        ...

    @property
    def intensity(self) -> IntensityRange:
        """One range for the whole stack, so that a frame looks the same wherever it stands."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int) -> np.ndarray:
        """One frame, (H, W) or (H, W, C), in memory."""
        ...

    def plane(self, frame: int) -> Any:
        """One frame as an array-like that is read as far as it is sliced."""
        ...


@runtime_checkable
class LabelStore(Protocol):
    """A label stack written one frame at a time."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """An integer dtype."""
        ...

    def read(self, frame: int) -> np.ndarray:
        """A copy of one frame, (H, W)."""
        ...

    def write(self, frame: int, labels: np.ndarray) -> None:
        """Replace one frame; returns when the frame is safe."""
        ...

    def array(self) -> Any:
        """The labels as one array-like of shape (N, H, W), for display and slicing."""
        ...
