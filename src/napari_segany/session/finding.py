"""Every object of a concept in one image, in tiles where it is large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.concepts import Examples
from napari_segany.core.errors import InvalidPromptError, UnsupportedError
from napari_segany.core.instances import Instances, best_of_overlapping
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.protocols import ConceptModel, Embedding, EmbeddingCache, ImageModel, NoCache
from napari_segany.core.settings import FindSettings
from napari_segany.session.stitching import Piece, stitch
from napari_segany.session.tiling import Progress, cut, search


def concept_model(model: ImageModel) -> Any:
    """Return the model when it finds concepts.

    Raises
    ------
    UnsupportedError
        It only answers points, boxes and masks.
    """
    if not isinstance(model, ConceptModel):
        raise UnsupportedError(f"{model.name} does not find concepts; use nano or SAM 3, or prompt with boxes.")
    return model


def find(
    model: ImageModel,
    image: np.ndarray | Embedding,
    text: str | None,
    exemplars: np.ndarray,
    negatives: np.ndarray,
    settings: FindSettings,
    intensity: IntensityRange | None = None,
    progress: Progress | None = None,
    region: Box | None = None,
    embeddings: EmbeddingCache | None = None,
) -> Instances:
    """Find every object; see `napari_segany.find`.

    Parameters
    ----------
    exemplars, negatives : (N, 4) and (M, 4) float64
        Boxes inside the image.

    Raises
    ------
    InvalidPromptError
        Neither words nor examples, or an example larger than a tile.
    UnsupportedError
        The model does not find concepts.
    """
    network = concept_model(model)
    if text is None and not len(exemplars):
        raise InvalidPromptError("Say what to look for: a word, or boxes around one or more examples.")
    if isinstance(image, Embedding) or (region is None and max(image.shape[:2]) <= settings.tile):
        cache = embeddings or NoCache()
        embedding = image if isinstance(image, Embedding) else cache.surveyed(model, np.asarray(image), intensity)
        examples = [Examples(embedding, exemplars, negatives)] if len(exemplars) + len(negatives) else []
        return tidied(network.find(embedding, network.describe(text, examples), settings), settings)
    what = FindSearch(text, exemplars, negatives, settings)
    return search(model, image, what, intensity, progress, region, embeddings=embeddings)


@dataclass(frozen=True, eq=False)
class FindSearch:
    """Looking for a concept; see `find` and `session.tiling.Search`."""

    text: str | None
    exemplars: np.ndarray
    negatives: np.ndarray
    settings: FindSettings

    def sides(self, model: ImageModel) -> tuple[int, int]:
        """Side and overlap of tiles."""
        return self.settings.tile, self.settings.tile_overlap

    def begin(
        self, model: ImageModel, image: Any, intensity: IntensityRange | None, embeddings: EmbeddingCache
    ) -> Callable[[np.ndarray], Instances]:
        """Describe the concept."""
        network = concept_model(model)
        shown = _examples(model, image, self.exemplars, self.negatives, self.settings, intensity, embeddings)
        described = network.describe(self.text, shown)
        return lambda tile: network.find(embeddings.surveyed(model, tile, intensity), described, self.settings)

    def join(
        self, model: ImageModel, shape: tuple[int, int], pieces: Sequence[Piece], windows: Sequence[Box]
    ) -> Instances:
        """Put objects together across seams."""
        return tidied(stitch(shape, pieces, windows, self.settings.overlap_threshold), self.settings)


def _examples(
    model: ImageModel,
    image: np.ndarray,
    exemplars: np.ndarray,
    negatives: np.ndarray,
    settings: FindSettings,
    intensity: IntensityRange | None,
    embeddings: EmbeddingCache,
) -> list[Examples]:
    """Each example in the middle of a tile of its own surroundings."""
    shown, side, extent = [], settings.tile, np.array(image.shape[:2])
    for boxes, positive in ((exemplars, True), (negatives, False)):
        for box in boxes:
            if (box[2:] - box[:2]).max() > side:
                raise InvalidPromptError(
                    f"The example {tuple(float(v) for v in box)} is larger than a tile of {side} pixels; "
                    "use larger tiles, or a coarser level of the image."
                )
            start = np.clip(np.rint((box[:2] + box[2:]) / 2 - side / 2), 0, np.maximum(extent - side, 0)).astype(int)
            window = (int(start[0]), int(start[1]), *(int(v) for v in np.minimum(start + side, extent)))
            moved = (box - np.tile(start, 2))[None]
            none = np.zeros((0, 4))
            embedding = embeddings.embed(model, cut(image, window), intensity)  # type: ignore[arg-type]
            shown.append(Examples(embedding, *((moved, none) if positive else (none, moved))))
    return shown


def tidied(found: Instances, settings: FindSettings, best_first: bool = True) -> Instances:
    """Drop small objects and the poorer of two that overlap; best first, or in the order in which they came."""
    objects = found.found()
    large = [i for i, (_, patch) in enumerate(objects) if np.count_nonzero(patch) >= max(settings.min_area, 1)]
    kept = best_of_overlapping([objects[i] for i in large], found.scores[large], settings.overlap_threshold)
    return found.take([large[k] for k in (kept if best_first else sorted(kept))])
