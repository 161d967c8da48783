"""Folders that this package wrote, opened to be looked at: an image, read as it is shown, and the labels on it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.axes import choose_planes
from napari_segany.core.errors import InvalidImageError, InvalidLabelsError, StorageError
from napari_segany.core.paths import exists
from napari_segany.core.shown import Shown
from napari_segany.core.state import SessionState
from napari_segany.io.frames import Frames
from napari_segany.io.label_checks import check_label_dtype
from napari_segany.io.labels import LabelArray, ZarrLabels, check_writable, open_labels, read_part
from napari_segany.io.ngff import DEFAULT_NAME, move_labels
from napari_segany.io.session_store import load_state
from napari_segany.io.sources import Source, open_source
from napari_segany.io.volumes import VolumeLabels


class FolderLabels:
    """Labels on disk, read as they are indexed; the first change takes the lock that keeps other programs out.

    Parameters
    ----------
    path : folder ending in ``.zarr``
    name : str
        Of the label image in it.
    array : zarr.Array
        Its full resolution, opened for reading.
    """

    def __init__(self, path: Path, name: str, array: Any) -> None:
        self._path, self._name, self._array = path, name, array
        self._store: ZarrLabels | None = None
        self.shape, self.dtype, self.ndim = tuple(array.shape), np.dtype(array.dtype), int(array.ndim)
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> np.ndarray:
        return read_part(self._array, index, self._path)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._store is None:
            self._store = open_labels(self._path, self._name)
        LabelArray(self._store)[index] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def __del__(self) -> None:
        store = getattr(self, "_store", None)
        if store is not None:
            store.close()


def is_ours(path: Path) -> bool:
    """Whether a folder is a saved session, an OME-Zarr with labels of ours, or these labels; nothing is opened."""
    marks = ("segany/session.json", f"labels/{DEFAULT_NAME}/zarr.json")
    return any(exists(path / mark) for mark in marks) or (_is_label_image(path) and exists(path / "zarr.json"))


def _is_label_image(path: Path) -> bool:
    return (path.parent.name, path.name) == ("labels", DEFAULT_NAME)


def open_folder(path: Path) -> tuple[Shown | None, Shown]:
    """Open a folder for which `is_ours` holds.

    Returns
    -------
    image : Shown or None
        That of the folder; else the stack of the session, cut out of its file as the session cut it, (N, H, W[, C]).
        None with a warning where it cannot be read, and for a label image alone.
    labels : Shown
        `FolderLabels` of the full resolution.

    Raises
    ------
    StorageError
        There are no labels that can be read.
    InvalidLabelsError
        The labels are no integers.
    """
    folder = path.parents[1] if _is_label_image(path) else path
    place = folder / "labels" / DEFAULT_NAME
    if not exists(place / "zarr.json"):
        raise StorageError(f"{folder} holds no labels that can be read; save the session again.")
    found = open_source(place)
    check_label_dtype(found.array.dtype)
    if not found.axes:
        raise StorageError(f"The labels in {folder} do not name their axes; write them again.")
    image = None if folder is not path else _image(folder, found.axes)
    # Labels that a session wrote into an image lie where the image does.
    translate = found.translate or (dict(zip(image.places, image.translate, strict=True)) if image else {})
    labels = FolderLabels(folder, DEFAULT_NAME, found.array)
    return image, _place(labels, found.axes, replace(found, translate=translate))


def _image(folder: Path, axes: str) -> Shown | None:
    """The image that labels with these axes belong to."""
    try:
        count = _count_levels(folder)
        levels = [open_source(folder, level) for level in range(count)]
        if levels and levels[0].axes and levels[0].axes.replace("c", "").endswith(axes):
            return _shown(levels)
        if not exists(folder / "segany" / "session.json"):
            return None
        return _stack(load_state(folder))
    except (StorageError, InvalidImageError) as error:
        warnings.warn(f"The labels are shown without their image: {error}", stacklevel=2)
        return None


def _count_levels(folder: Path) -> int:
    """Number of resolution levels of an OME-Zarr image; 0 for other folders."""
    try:
        multiscales = json.loads((folder / "zarr.json").read_text())["attributes"]["ome"]["multiscales"]
        return len(multiscales[0]["datasets"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0


def _shown(levels: Sequence[Source]) -> Shown:
    finest = levels[0]
    assert finest.axes is not None
    data = [_lazy(level.array) for level in levels]
    return _place(data if len(data) > 1 else data[0], finest.axes, finest)


def _stack(state: SessionState) -> Shown | None:
    """The planes of a session in its order, cut out of the file without reading it."""
    image = state.image
    if image.path is None:
        return None
    source = open_source(image.path)
    frames = Frames(source, choose_planes(source.array.shape, image.axes, image.axis or 0, image.index))
    planes = frames.planes
    index: list[int | slice] = [planes.fixed.get(axis, slice(None)) for axis in range(len(planes.axes))]
    kept = [axis for axis in range(len(planes.axes)) if axis not in planes.fixed]
    order = [axis for axis in (planes.frame, planes.rows, planes.columns, planes.channels) if axis is not None]
    data = _lazy(source.array)[tuple(index)].transpose([kept.index(axis) for axis in order])
    axes = "".join("c" if axis == planes.channels else planes.axes[axis] for axis in order)
    return _place(data, axes, source)


def _place(data: Any, axes: str, source: Source) -> Shown:
    places = axes.replace("c", "")
    return Shown(data, axes, _values(places, source.scale, 1.0), _values(places, source.translate, 0.0))


def _lazy(array: Any) -> Any:
    import dask.array as da

    return da.from_array(array, chunks=getattr(array, "chunks", None) or "auto")


def _values(axes: str, known: Mapping[str, float], otherwise: float) -> tuple[float, ...]:
    return tuple(known.get(axis, otherwise) for axis in axes)


def write_folder(
    path: Path,
    labels: Any,
    axes: str | None = None,
    scale: Sequence[float] | None = None,
    translate: Sequence[float] | None = None,
) -> Path:
    """Write labels as OME-Zarr, reading and writing one frame at a time.

    Parameters
    ----------
    path : folder ending in ``.zarr``
        New, or with labels of this shape, which are replaced. It may be an OME-Zarr (0.5) image.
    labels : integer array-like (H, W), (N, H, W) or (T, Z, H, W)
    axes : str, optional
        One letter for each axis; "zyx" or "tzyx" by default.
    scale, translate : sequences of float, optional

    Raises
    ------
    InvalidLabelsError
        Another number of dimensions, no integers, ids that do not fit, or the folder holds labels of another shape.
    StorageError
        The folder cannot be written, is no zarr, or another program writes to it.
    """
    count, dtype = len(labels.shape), check_label_dtype(labels.dtype)
    if count not in (2, 3, 4):
        raise InvalidLabelsError(
            f"Labels can be saved as (Y, X), (N, Y, X) or (T, Z, Y, X), not with the shape {tuple(labels.shape)}."
        )
    check_writable(path)
    if count == 2:
        # As everywhere, a plane is a stack of one.
        labels, axes = labels[None], f"z{axes or 'yx'}"
        scale, translate = [1.0, *(scale or (1.0, 1.0))], [0.0, *(translate or (0.0, 0.0))]
    shape = tuple(int(extent) for extent in labels.shape)
    scale = tuple(map(float, scale if scale is not None else [1.0] * len(shape)))
    store: ZarrLabels | VolumeLabels
    if count == 4:
        store = VolumeLabels(path, (shape[0], shape[1], shape[2], shape[3]), scale)
    else:
        store = ZarrLabels(path, (shape[0], shape[1], shape[2]), dtype, axes or "zyx", scale)
    try:
        move_labels(path, DEFAULT_NAME, translate if translate is not None else [0.0] * len(shape))
        for frame in range(shape[0]):
            store.write(frame, np.asarray(labels[frame]))
        if isinstance(store, ZarrLabels):
            store.finish()
    finally:
        store.close()
    return path
