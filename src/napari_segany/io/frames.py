"""A stack as planes, read one at a time from wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_segany.core.ahead import Ahead
from napari_segany.core.axes import PlaneAxes, choose_planes, guess_axes
from napari_segany.core.errors import InvalidImageError, StorageError, UnreadableError
from napari_segany.core.intensity import DEFAULT_PERCENTILES, IntensityRange, estimate_range
from napari_segany.core.memory import free_memory
from napari_segany.core.state import ImageReference
from napari_segany.io.sources import Source, open_source

#: Planes looked at to find black and white for the whole stack.
SAMPLED_PLANES = 8
#: Share of the free memory that one plane may take.
MEMORY_SHARE = 0.25
#: Planes of more pixels are sampled in windows of this side for their intensities.
LARGE_PLANE, WINDOW = 1 << 26, 512


class Frames:
    """Planes of an array along one axis; implements `core.protocols.FrameSource`.

    Parameters
    ----------
    source : Source
    planes : PlaneAxes
    named : bool
        Whether somebody said which axes these are, or it was guessed.

    Attributes
    ----------
    intensity : IntensityRange
        One for the whole stack, from percentiles of a few planes until it is set.
    """

    def __init__(self, source: Source, planes: PlaneAxes, named: bool = True) -> None:
        self.source, self.planes, self.named = source, planes, named
        self._intensity: IntensityRange | None = None
        self._stamp = self._read_stamp()
        self._ahead: Ahead[int, np.ndarray] = Ahead(self.read)
        self._last = -1

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W) or (N, H, W, C)."""
        shape, planes = self.source.array.shape, self.planes
        count = 1 if planes.frame is None else shape[planes.frame]
        colour = () if planes.channels is None else (shape[planes.channels],)
        return (int(count), int(shape[planes.rows]), int(shape[planes.columns]), *map(int, colour))

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the frames."""
        return np.dtype(self.source.array.dtype)

    @property
    def scale(self) -> tuple[float, float, float]:
        """Size of a voxel along frames, rows and columns; 1 where unknown."""
        names = [None if i is None else self.planes.axes[i] for i in (self.planes.frame, *self._plane)]
        first, second, third = (self.source.scale.get(name, 1.0) if name else 1.0 for name in names)
        return first, second, third

    @property
    def _plane(self) -> tuple[int, int]:
        return self.planes.rows, self.planes.columns

    @property
    def axis_names(self) -> str:
        """Names of the axes of `labels` made for this stack, such as "zyx"."""
        frame = "z" if self.planes.frame is None else self.planes.axes[self.planes.frame]
        return frame + "".join(self.planes.axes[i] for i in self._plane)

    @property
    def depth(self) -> bool | None:
        """Whether frames are planes in space, not moments; None where nobody said."""
        return {"t": False, "z": True}.get(self.axis_names[0]) if self.named else None

    def reference(self) -> ImageReference:
        """How to open this stack again."""
        planes, path = self.planes, self.source.path
        return ImageReference(
            path=None if path is None else str(path.resolve()),
            axes=planes.axes,
            axis=None if planes.frame is None else planes.axes[planes.frame],
            index={planes.axes[axis]: at for axis, at in planes.fixed.items()},
            shape=self.shape,
            intensity=self.intensity,
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frame: int) -> np.ndarray:
        """Read one frame, (H, W) or (H, W, C); see `read`.

        When frames are asked for in a row, up or down the stack, the next is
        read while this one is worked on.
        """
        if isinstance(self.source.array, np.ndarray):
            return self.read(frame)
        following, self._last = 2 * frame - self._last, frame
        in_a_row = abs(following - frame) == 1 and 0 <= following < len(self)
        return self._ahead(frame, following if in_a_row else None)

    def plane(self, frame: int) -> Plane:
        """One frame as an array-like that is read as far as it is indexed."""
        return Plane(self, frame)

    def read(self, frame: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Read a part of one frame, (h, w) or (h, w, C).

        Raises
        ------
        StorageError
            Its chunks are damaged or missing, the file is another than the one
            that was opened, or the frame is too large for the memory.
        """
        if not 0 <= frame < len(self):
            raise IndexError(f"Frame {frame} is not in this stack of {len(self)} frames.")
        extents = (len(range(*part.indices(size))) for part, size in zip((rows, columns), self.shape[1:3], strict=True))
        self._check_size((*extents, *self.shape[3:]))
        if self._read_stamp() != self._stamp:
            raise StorageError(f"{self.source.path} has changed or gone since it was opened; open it again.")
        index: list[int | slice] = [slice(None)] * len(self.source.array.shape)
        for axis, position in self.planes.fixed.items():
            index[axis] = position
        if self.planes.frame is not None:
            index[self.planes.frame] = frame
        index[self.planes.rows], index[self.planes.columns] = rows, columns
        try:
            plane = np.asarray(self.source.array[tuple(index)])
        except MemoryError as error:
            raise StorageError(f"Frame {frame} does not fit into the memory; use a lower resolution level.") from error
        except Exception as error:
            raise UnreadableError(f"Frame {frame} cannot be read, its data are damaged or gone: {error}.") from error
        kept = [i for i in range(len(index)) if isinstance(index[i], slice)]
        order = [kept.index(i) for i in (*self._plane, self.planes.channels) if i is not None]
        return plane.transpose(order)

    def _read_stamp(self) -> tuple[int, int] | None:
        """When the file was last written and how long it is; of a zarr, its description."""
        path = self.source.path
        if path is None:
            return None
        described = [path / name for name in ("zarr.json", ".zarray", ".zattrs")] if path.is_dir() else [path]
        try:
            found = next(file.stat() for file in described if file.exists())
        except (StopIteration, OSError):
            return None
        return found.st_mtime_ns, found.st_size

    def _check_size(self, shape: tuple[int, ...]) -> None:
        size = int(np.prod(shape, dtype=np.float64)) * self.dtype.itemsize
        free = free_memory()
        if free is not None and size > MEMORY_SHARE * free:
            raise StorageError(
                f"One plane of {shape[0]} x {shape[1]} pixels takes {size / 1e9:.1f} GB and only "
                f"{free / 1e9:.1f} GB of memory are free; cut the image or use a lower resolution level."
            )

    @property
    def intensity(self) -> IntensityRange:
        """Black and white of the whole stack; settable."""
        if self._intensity is None:
            self._intensity = self.estimate_intensity()
        return self._intensity

    @intensity.setter
    def intensity(self, value: IntensityRange) -> None:
        self._intensity = value

    def estimate_intensity(self, percentiles: tuple[float, float] = DEFAULT_PERCENTILES) -> IntensityRange:
        """Black and white from percentiles of a few evenly spaced planes, damaged ones left out."""
        chosen = np.unique(np.linspace(0, len(self) - 1, SAMPLED_PLANES).round().astype(int))
        if self.shape[1] * self.shape[2] > LARGE_PLANE:
            return self._estimate_by_windows(chosen, percentiles)
        thin = max(1, int(np.sqrt(self.shape[1] * self.shape[2] / 500_000)))
        sampled, damaged = [], None
        for frame in chosen:
            try:
                # A copy, or each whole plane would be kept.
                sampled.append(self[int(frame)][::thin, ::thin].copy())
            except StorageError as error:
                damaged = error
        if damaged is not None and not sampled:
            raise damaged
        planes = np.stack(sampled)
        # A lone colour axis would otherwise be taken for columns.
        return estimate_range(planes if planes.ndim == 4 else planes[..., None], percentiles)

    def _estimate_by_windows(self, chosen: np.ndarray, percentiles: tuple[float, float]) -> IntensityRange:
        """The same from windows spread over each plane, none of which is read whole."""
        starts = [np.linspace(0, max(0, extent - WINDOW), 4).round().astype(int) for extent in self.shape[1:3]]
        sampled, damaged = [], None
        for frame, y, x in ((int(f), int(y), int(x)) for f in chosen for y in starts[0] for x in starts[1]):
            try:
                sampled.append(self.read(frame, slice(y, y + WINDOW), slice(x, x + WINDOW))[::2, ::2].copy())
            except StorageError as error:
                damaged = error
        if damaged is not None and not sampled:
            raise damaged
        windows = np.stack(sampled)
        return estimate_range(windows if windows.ndim == 4 else windows[..., None], percentiles)

    def remarks(self) -> list[str]:
        """Sentences on what makes work on this stack slow or wrong; see `napari_segany.io.layout`."""
        from napari_segany.io.layout import remarks

        return remarks(self)

    def close(self) -> None:
        """Close the file; the frames cannot be read afterwards."""
        self._ahead.close()
        self.source.close()

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Plane:
    """One frame, (H, W[, C]), read as far as it is indexed.

    Parameters
    ----------
    frames : Frames
    frame : int
    """

    def __init__(self, frames: Frames, frame: int) -> None:
        self.frames, self.frame = frames, frame
        self.shape, self.dtype = frames.shape[1:], frames.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        if all(isinstance(part, slice) for part in parts) and len(parts) <= 2:
            return self.frames.read(self.frame, *parts)
        return self.frames.read(self.frame)[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.frames.read(self.frame), dtype=dtype)


def open_frames(
    source: Any,
    axis: int | str = 0,
    axes: str | None = None,
    index: Mapping[str, int] | None = None,
    level: int = 0,
) -> Frames:
    """Open a stack without reading it.

    Parameters
    ----------
    source : array-like, list of resolution levels, or path
        See `napari_segany.io.sources.open_source`. A 2D image is a stack of one frame.
    axis : int or str
        Propagation axis, by position or by name.
    axes : str, optional
        One letter per axis; taken from the file or guessed by default.
    index : dict of axis name -> int, optional
        Position on every further axis, and on "c" to take a single channel.
    level : int
        Resolution level, 0 is full.

    Raises
    ------
    InvalidImageError
        Empty, not real, or the axes do not make one stack of planes.
    StorageError
        The path cannot be read.
    """
    opened = open_source(source, level)
    shape = tuple(opened.array.shape)
    if 0 in shape:
        raise InvalidImageError(f"The array is empty: its shape is {shape}.")
    names = axes or opened.axes
    named = names is not None or isinstance(axis, str)
    return Frames(opened, choose_planes(shape, names or guess_axes(shape), axis, index), named)
