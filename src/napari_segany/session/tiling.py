"""Images of any size, looked at one overlapping tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from napari_segany.core.ahead import Ahead, with_next
from napari_segany.core.boxes import Box
from napari_segany.core.errors import UnsupportedError
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import DEFAULT_PERCENTILES, IntensityRange, estimate_range
from napari_segany.core.memory import give_back_memory
from napari_segany.core.protocols import EmbeddingCache, ImageModel, NoCache
from napari_segany.session.stitching import Piece

#: Longest side of the thinned-out image from which the intensities of a large one are estimated.
SAMPLE = 2048

Progress = Callable[[int, int], bool | None]


class Search(Protocol):
    """A way to look for objects that does not need to see the whole image at once."""

    def sides(self, model: ImageModel) -> tuple[int, int]:
        """Side of a tile, and by how much tiles overlap, pixels."""
        ...

    def begin(
        self, model: ImageModel, image: Any, intensity: IntensityRange | None, embeddings: EmbeddingCache
    ) -> Callable[[np.ndarray], Instances]:
        """Prepare once, on the image (H, W[, C]) that examples lie on, to look at any number of tiles."""
        ...

    def join(
        self, model: ImageModel, shape: tuple[int, int], pieces: Sequence[Piece], windows: Sequence[Box]
    ) -> Instances:
        """Objects of an image (H, W) from what its tiles showed."""
        ...


def search(
    model: ImageModel,
    image: Any,
    what: Search,
    intensity: IntensityRange | None = None,
    progress: Progress | None = None,
    region: Box | None = None,
    shown: Any = None,
    embeddings: EmbeddingCache | None = None,
) -> Instances:
    """Look for objects in an image, of which one tile at a time is read.

    Parameters
    ----------
    image : (H, W[, C]) array-like
    intensity : IntensityRange, optional
        Estimated from the image when absent.
    progress : callable, optional
        Called with (tiles done, tiles in all); False ends the search with what was found until then.
    region : (y0, x0, y1, x1), optional
        The part of the image to look at; the objects are those of the part cut out, placed in the whole.
    shown : (H, W[, C]) array-like, optional
        The image that examples lie on, `image` by default.
    embeddings : EmbeddingCache, optional
        Where tiles are kept for the next search.
    """
    shape = int(image.shape[0]), int(image.shape[1])
    region = region or (0, 0, *shape)
    intensity = intensity or sampled_range(image)
    look = what.begin(model, image if shown is None else shown, intensity, embeddings or NoCache())
    extent = region[2] - region[0], region[3] - region[1]
    windows = list(tiles(extent, *what.sides(model)))
    pieces: list[Piece] = []
    pixels: Ahead[Box, np.ndarray] = Ahead(lambda window: cut(image, within(region, window)))
    for number, (window, later) in enumerate(with_next(windows)):
        pieces += pieces_of(number, window, look, pixels(window, later))
        if progress is not None and progress(number + 1, len(windows)) is False:
            break
    return what.join(model, extent, pieces, windows).placed(shape, region[:2])


def within(region: Box, window: Box) -> Box:
    """Where in the image a window of a region lies."""
    y, x = region[:2]
    return window[0] + y, window[1] + x, window[2] + y, window[3] + x


def pieces_of(number: int, window: Box, look: Callable[[np.ndarray], Instances], pixels: np.ndarray) -> list[Piece]:
    """Look at a tile; what it shows, placed where its window lies."""
    found = look(pixels)
    give_back_memory()
    y, x = window[:2]
    return [
        Piece(number, (y0 + y, x0 + x, y1 + y, x1 + x), patch, float(score))
        for ((y0, x0, y1, x1), patch), score in zip(found.found(), found.scores, strict=True)
    ]


def tiles(shape: tuple[int, int], side: int, overlap: int) -> Iterator[Box]:
    """Windows (y0, x0, y1, x1) that cover an image and overlap by at least `overlap` pixels.

    Raises
    ------
    UnsupportedError
        Tiles would consist of overlap alone.
    """
    if overlap >= side and max(shape) > side:
        raise UnsupportedError(f"Tiles of {side} pixels cannot overlap by {overlap}; choose larger tiles.")
    rows, cols = (_starts(extent, side, overlap) for extent in shape)
    for y0 in rows:
        for x0 in cols:
            yield y0, x0, min(y0 + side, shape[0]), min(x0 + side, shape[1])


def _starts(extent: int, side: int, overlap: int) -> list[int]:
    if extent <= side:
        return [0]
    count = -(-(extent - overlap) // (side - overlap))
    return [round(i * (extent - side) / (count - 1)) for i in range(count)]


def cut(image: Any, window: Box) -> np.ndarray:
    """Read a window of an image."""
    y0, x0, y1, x1 = window
    return np.asarray(image[y0:y1, x0:x1])


def sampled_range(image: Any) -> IntensityRange:
    """Intensities of an image of any size."""
    step = -(-max(image.shape[:2]) // SAMPLE)
    return estimate_range(np.asarray(image[::step, ::step]), DEFAULT_PERCENTILES)
