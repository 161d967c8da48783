"""Every object on every plane of a stack, plane by plane and tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from napari_segany.core.ahead import Ahead, with_next
from napari_segany.core.boxes import Box
from napari_segany.core.errors import UnreadableError
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.protocols import EmbeddingCache, ImageModel, NoCache
from napari_segany.session.stitching import Piece
from napari_segany.session.tiling import Search, cut, pieces_of, tiles, within

#: Labels of a window (y0, x0, y1, x1) of a plane, made when they are written.
Labels = Callable[[Box], np.ndarray]


class PlaneSource(Protocol):
    """A stack whose planes are read as far as they are looked at."""

    @property
    def intensity(self) -> IntensityRange:
        """One range for the whole stack."""
        ...

    def plane(self, frame: int) -> Any:
        """One plane, (H, W[, C]) array-like."""
        ...


@dataclass(frozen=True)
class Labelled:
    """What became of one plane.

    Attributes
    ----------
    frame : int
    objects : int
    damage : str
        Why the plane could not be read; empty when it could.
    """

    frame: int
    objects: int = 0
    damage: str = ""


class PlaneSearch:
    """A search over the planes of a stack.

    Parameters
    ----------
    model : ImageModel
    frames : PlaneSource
    what : Search
    example_frame : int
        The plane that examples lie on.
    region : (y0, x0, y1, x1), optional
        The part of each plane to look at; all by default.
    embeddings : EmbeddingCache, optional
        Where tiles are kept for the next search.

    Attributes
    ----------
    windows : list of (y0, x0, y1, x1)
        Tiles of the region.
    """

    def __init__(
        self,
        model: ImageModel,
        frames: PlaneSource,
        what: Search,
        example_frame: int = 0,
        region: Box | None = None,
        embeddings: EmbeddingCache | None = None,
    ) -> None:
        self.model, self.frames, self.what = model, frames, what
        shown = frames.plane(example_frame)
        self.shape: tuple[int, int] = (shown.shape[0], shown.shape[1])
        self.region = region or (0, 0, *self.shape)
        self.extent = self.region[2] - self.region[0], self.region[3] - self.region[1]
        self.windows = list(tiles(self.extent, *what.sides(model)))
        self._look = what.begin(model, shown, frames.intensity, embeddings or NoCache())
        self._pixels = Ahead(self._cut)

    def tile(self, frame: int, number: int, later: tuple[int, int] | None = None) -> list[Piece]:
        """What one tile of a plane shows; the tile that comes later (frame, number) is read meanwhile."""
        return pieces_of(number, self.windows[number], self._look, self._pixels((frame, number), later))

    def _cut(self, place: tuple[int, int]) -> np.ndarray:
        frame, number = place
        return cut(self.frames.plane(frame), within(self.region, self.windows[number]))

    def join(self, pieces: Sequence[Piece]) -> Instances:
        """Objects of a plane from what its tiles showed."""
        found = self.what.join(self.model, self.extent, pieces, self.windows)
        return found.placed(self.shape, self.region[:2])


def label_planes(
    search: PlaneSearch,
    planes: Iterable[int],
    write: Callable[[int, Labels], None],
    full: tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Labelled]:
    """Find and write the objects of planes, one after another.

    A plane whose data are damaged is left out, and said so.

    Parameters
    ----------
    write : callable
        Given a frame and its labels at full resolution.
    full : (H, W)
        Size of a plane at full resolution; the search may work at a lower one.
    progress : callable, optional
        Called with (tiles of the plane done, tiles of the plane).
    """
    todo, count = list(planes), len(search.windows)
    for frame, after in with_next(todo):
        pieces: list[Piece] = []
        try:
            for number in range(count):
                next_plane = None if after is None else (after, 0)
                pieces += search.tile(frame, number, (frame, number + 1) if number + 1 < count else next_plane)
                if progress is not None:
                    progress(number + 1, count)
        except UnreadableError as error:
            yield Labelled(frame, damage=str(error))
            continue
        found = search.join(pieces)
        write(frame, enlarged(found, full))
        yield Labelled(frame, len(found))


def enlarged(found: Instances, shape: tuple[int, int]) -> Labels:
    """Labels at full resolution of objects that were found at that or at a lower one; the nearest pixel counts."""
    if tuple(found.shape) == tuple(shape):
        return found.labels_in

    def labels_in(window: Box) -> np.ndarray:
        rows, cols = (
            ((np.arange(window[axis], window[axis + 2]) + 0.5) * found.shape[axis] / shape[axis]).astype(int)
            for axis in (0, 1)
        )
        small = found.labels_in((int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1))
        return small[np.ix_(rows - rows[0], cols - cols[0])]

    return labels_in
