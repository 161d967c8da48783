"""Every object of a concept in one image, in tiles where it is large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.concepts import Examples
from napari_segany.core.errors import InvalidPromptError, UnsupportedError
from napari_segany.core.instances import Instances, best_of_overlapping
from napari_segany.core.intensity import DEFAULT_PERCENTILES, IntensityRange, estimate_range
from napari_segany.core.protocols import ConceptModel, Embedding, ImageModel
from napari_segany.core.settings import FindSettings
from napari_segany.session.stitching import Piece, stitch

#: Longest side of the thinned-out image from which the intensities of a large one are estimated.
SAMPLE = 2048

Progress = Callable[[int, int], None]


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
    if isinstance(image, Embedding) or max(image.shape[:2]) <= settings.tile:
        embedding = image if isinstance(image, Embedding) else model.embed(np.asarray(image), intensity)
        shown = [Examples(embedding, exemplars, negatives)] if len(exemplars) + len(negatives) else []
        return tidied(network.find(embedding, network.describe(text, shown), settings), settings)
    step = -(-max(image.shape[:2]) // SAMPLE)
    intensity = intensity or estimate_range(np.asarray(image[::step, ::step]), DEFAULT_PERCENTILES)
    described = network.describe(text, _examples(model, image, exemplars, negatives, settings, intensity))
    windows = list(tiles((image.shape[0], image.shape[1]), settings.tile, settings.tile_overlap))
    pieces: list[Piece] = []
    for number, window in enumerate(windows):
        found = network.find(model.embed(_cut(image, window), intensity), described, settings)
        pieces += [
            Piece(number, (y0 + window[0], x0 + window[1], y1 + window[0], x1 + window[1]), patch, float(score))
            for ((y0, x0, y1, x1), patch), score in zip(found.found(), found.scores, strict=True)
        ]
        if progress is not None:
            progress(number + 1, len(windows))
    return tidied(stitch((image.shape[0], image.shape[1]), pieces, windows, settings.overlap_threshold), settings)


def tiles(shape: tuple[int, int], side: int, overlap: int) -> Iterator[Box]:
    """Windows (y0, x0, y1, x1) that cover an image and overlap by at least `overlap` pixels."""
    rows, cols = (_starts(extent, side, overlap) for extent in shape)
    for y0 in rows:
        for x0 in cols:
            yield y0, x0, min(y0 + side, shape[0]), min(x0 + side, shape[1])


def _starts(extent: int, side: int, overlap: int) -> list[int]:
    if extent <= side:
        return [0]
    count = -(-(extent - overlap) // (side - overlap))
    return [round(i * (extent - side) / (count - 1)) for i in range(count)]


def _cut(image: np.ndarray, window: Box) -> np.ndarray:
    y0, x0, y1, x1 = window
    return np.asarray(image[y0:y1, x0:x1])


def _examples(
    model: ImageModel,
    image: np.ndarray,
    exemplars: np.ndarray,
    negatives: np.ndarray,
    settings: FindSettings,
    intensity: IntensityRange,
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
            embedding = model.embed(_cut(image, window), intensity)  # type: ignore[arg-type]
            shown.append(Examples(embedding, *((moved, none) if positive else (none, moved))))
    return shown


def tidied(found: Instances, settings: FindSettings, best_first: bool = True) -> Instances:
    """Drop small objects and the poorer of two that overlap; best first, or in the order in which they came."""
    objects = found.found()
    large = [i for i, (_, patch) in enumerate(objects) if np.count_nonzero(patch) >= max(settings.min_area, 1)]
    kept = best_of_overlapping([objects[i] for i in large], found.scores[large], settings.overlap_threshold)
    return found.take([large[k] for k in (kept if best_first else sorted(kept))])
