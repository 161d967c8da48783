"""All objects of an image, from a grid of clicks or from boxes that the model proposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.concepts import checked_text
from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.instances import Found, Instances, best_of_overlapping, non_maximum_suppression
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.masks import bounding_box, remove_small_parts
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Embedding, EmbeddingCache, ImageModel
from napari_segany.core.settings import EverythingSettings, FindSettings
from napari_segany.session.finding import concept_model, tidied
from napari_segany.session.stitching import Piece, stitch

#: Prompts answered in one call; the memory of a call is bounded by it.
BATCH = 64
#: A box says where its object is, so its mask need not prove itself as that of a click that may have hit anything.
BOX_SETTINGS = EverythingSettings(score_threshold=0.5, stability_threshold=0.0)


@runtime_checkable
class ProposesBoxes(Protocol):
    """A model that knows where objects are before it is asked, as MobileSAMv2's detector does."""

    everything_settings: EverythingSettings

    def propose_boxes(self, embedding: Embedding) -> np.ndarray:
        """(N, 4) boxes (y0, x0, y1, x1), one around each object it sees."""
        ...


def grid_points(shape: tuple[int, int], points_per_side: int) -> np.ndarray:
    """Centres (y, x) of a grid of cells over an image, (points_per_side ** 2, 2)."""
    ys, xs = ((np.arange(points_per_side) + 0.5) * extent / points_per_side - 0.5 for extent in shape)
    return np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2)


def proposals(detector: ImageModel, embedding: Embedding, text: str | None) -> np.ndarray:
    """Boxes (N, 4) of the objects that a model sees, or of those that a phrase names.

    Raises
    ------
    InvalidPromptError
        It needs a phrase, or does not know this one.
    UnsupportedError
        It only answers prompts.
    """
    if text is None and isinstance(detector, ProposesBoxes):
        return detector.propose_boxes(embedding)
    network = concept_model(detector)
    if text is None:
        raise InvalidPromptError(f'{detector.name} proposes objects of a concept; say which, such as text="cell".')
    found = network.find(embedding, network.describe(checked_text(text), []), FindSettings())
    return tidied(found, FindSettings()).boxes.astype(np.float64)


def everything(
    model: ImageModel,
    embedding: Embedding,
    settings: EverythingSettings | None = None,
    progress: Callable[[int, int], bool | None] | None = None,
    boxes: np.ndarray | None = None,
) -> Instances:
    """Segment every object of an image.

    Masks are filtered at the decoder's resolution, before they are brought to
    the image's (automatic mask generation of Kirillov et al. 2023, which
    filters after).

    Parameters
    ----------
    model, embedding
        The embedding must be the model's own.
    settings : EverythingSettings, optional
        With them a grid of clicks is used. Without, a model that proposes
        boxes is asked for them, and others get a grid with SAM's numbers.
    progress : callable, optional
        Called with (prompts answered, prompts in all); False ends the search with what was found until then.
    boxes : (N, 4), optional
        Where objects are, as another model sees it; they take the place of the
        grid (MobileSAMv2, Zhang et al. 2023).
    """
    if boxes is not None:
        settings = settings or BOX_SETTINGS
        prompts = [Prompt(box=box) for box in boxes]
    elif settings is None and isinstance(model, ProposesBoxes):
        settings = model.everything_settings
        prompts = [Prompt(box=box) for box in model.propose_boxes(embedding)]
    else:
        settings = settings or EverythingSettings()
        inside = np.ones(1, dtype=np.int64)
        places = grid_points(embedding.image_shape, settings.points_per_side)
        prompts = [Prompt(points=place[None], labels=inside) for place in places]
    found: list[Found] = []
    scores: list[float] = []
    for start in range(0, len(prompts), BATCH):
        for candidates in model.predict(embedding, prompts[start : start + BATCH]):
            for index in map(int, np.flatnonzero(settings.accepts(candidates))):
                found.append(candidates.patch(index))
                scores.append(float(candidates.scores[index]))
        if progress is not None and progress(min(start + BATCH, len(prompts)), len(prompts)) is False:
            break
    return _merge(embedding.image_shape, found, np.array(scores), settings)


@dataclass(frozen=True)
class EverythingSearch:
    """Looking for every object; see `everything` and `session.tiling.Search`."""

    settings: EverythingSettings | None = None
    #: A model whose boxes are prompted, and what it looks for.
    detector: Any = None
    text: str | None = None

    def used(self, model: ImageModel) -> EverythingSettings:
        """The settings, or the model's own."""
        if self.detector is not None:
            return self.settings or BOX_SETTINGS
        own = model.everything_settings if isinstance(model, ProposesBoxes) else EverythingSettings()
        return self.settings or own

    def sides(self, model: ImageModel) -> tuple[int, int]:
        """Side and overlap of tiles."""
        settings = self.used(model)
        return settings.tile, settings.tile_overlap

    def begin(
        self,
        model: ImageModel,
        image: Any,
        intensity: IntensityRange | None,
        embeddings: EmbeddingCache,
        progress: Callable[[int, int], bool | None] | None = None,
    ) -> Callable[[np.ndarray], Instances]:
        """Nothing to prepare."""

        def look(tile: np.ndarray) -> Instances:
            boxes = None
            if self.detector is not None:
                boxes = proposals(self.detector, embeddings.surveyed(self.detector, tile, intensity), self.text)
            return everything(model, embeddings.surveyed(model, tile, intensity), self.settings, progress, boxes)

        return look

    def join(
        self, model: ImageModel, shape: tuple[int, int], pieces: Sequence[Piece], windows: Sequence[Box]
    ) -> Instances:
        """Put objects together across seams."""
        settings = self.used(model)
        joined = stitch(shape, pieces, windows, settings.overlap_threshold)
        if len(windows) == 1:
            return joined
        found = joined.found()
        kept = best_of_overlapping(found, joined.scores, settings.overlap_threshold, settings.contained_threshold)
        return Instances.from_patches(shape, [found[i] for i in kept], joined.scores[kept])


def _merge(shape: tuple[int, int], found: list[Found], scores: np.ndarray, settings: EverythingSettings) -> Instances:
    areas = np.array([patch.sum() for _, patch in found])
    usable = [
        i
        for i in range(len(found))
        if areas[i] > 0 and settings.min_area <= areas[i] <= settings.max_share * shape[0] * shape[1]
    ]
    if not usable:
        return Instances.from_patches(shape, [], [])
    boxes = np.array([found[i][0] for i in usable], dtype=np.float64)
    kept = [usable[i] for i in non_maximum_suppression(boxes, scores[usable], settings.overlap_threshold)]
    if settings.contained_threshold < 1:
        masks, best = [found[i] for i in kept], scores[kept]
        kept = [kept[i] for i in best_of_overlapping(masks, best, 1.0, settings.contained_threshold)]
    return Instances.from_patches(
        shape, [_cleaned(found[i], settings.min_area) for i in kept], [float(scores[i]) for i in kept]
    )


def _cleaned(found: Found, min_area: int) -> Found:
    box, patch = found
    clean = remove_small_parts(patch, min_area)
    y0, x0, y1, x1 = bounding_box(clean)
    return (box[0] + y0, box[1] + x0, box[0] + y1, box[1] + x1), clean[y0:y1, x0:x1]
