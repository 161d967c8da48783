"""Labels of volumes over time as OME-Zarr, written one time at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.axes import choose_planes
from napari_segany.core.errors import InvalidImageError, InvalidLabelsError, StorageError
from napari_segany.io.frames import Frames
from napari_segany.io.label_checks import check_frame
from napari_segany.io.labels import CHUNK, check_writable
from napari_segany.io.lock import OutputLock
from napari_segany.io.ngff import DEFAULT_NAME, check_output, create_labels, replace_frame
from napari_segany.io.sources import Source, open_source


class MemoryVolumes:
    """Labels (T, Z, H, W) in memory."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.data = np.zeros(shape, dtype=np.int32)

    def write(self, time: int, labels: np.ndarray) -> None:
        """Replace the volume (Z, H, W) of a time."""
        self.data[time] = labels


class VolumeLabels:
    """Labels (T, Z, H, W) in an OME-Zarr (0.5); each plane is a shard, and every time is on disk when it is written.

    Parameters
    ----------
    path : folder ending in ``.zarr``
        New, or with labels of this shape.
    shape : (T, Z, H, W)
    scale : size of a voxel along t, z, y and x

    Raises
    ------
    InvalidLabelsError
        The folder holds labels of another shape.
    StorageError
        The folder cannot be written, is no zarr, or another process writes to it.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int], scale: tuple[float, ...]) -> None:
        check_writable(path)
        check_output(path)
        self.path, self.shape, self.dtype = path, shape, np.dtype(np.int32)
        self._lock = OutputLock(path)
        self._lock.acquire()
        try:
            self.data = create_labels(path, DEFAULT_NAME, shape, self.dtype, "tzyx", scale, CHUNK)
            if tuple(self.data.shape) != shape:
                raise InvalidLabelsError(
                    f"{path} holds labels of the shape {tuple(self.data.shape)} and the stack has {shape}; "
                    "choose another output."
                )
        except BaseException:
            self._lock.release()
            raise

    @property
    def folder(self) -> Path:
        """The label image inside the OME-Zarr."""
        return self.path / "labels" / DEFAULT_NAME

    def write(self, time: int, labels: np.ndarray) -> None:
        """Replace the volume (Z, H, W) of a time; returns when it is on disk.

        Raises
        ------
        InvalidLabelsError, StorageError
        """
        check_frame(time, labels, self.shape, self.dtype)
        try:
            replace_frame(self.data, self.path, DEFAULT_NAME, time, labels)
        except OSError as error:
            raise StorageError(f"Could not write time {time} to {self.path}: {error.strerror or error}.") from error

    def describe(self, properties: Mapping[int, Mapping[str, Any]]) -> None:
        """Note properties of objects (by id), such as the parent, where OME-NGFF keeps those of labels."""
        import zarr

        group = zarr.open_group(self.folder, mode="r+")
        attributes: dict[str, Any] = dict(group.attrs)
        ome = attributes["ome"]
        listed = [{"label-value": object_id, **known} for object_id, known in sorted(properties.items())]
        group.attrs["ome"] = {**ome, "image-label": {**ome["image-label"], "properties": listed}}

    def close(self) -> None:
        """Let other processes write."""
        self._lock.release()


def open_volumes(
    stack: Any, axes: str | None, index: Mapping[str, int] | None
) -> tuple[Source, Callable[[int], Frames], tuple[int, int, int, int], tuple[float, ...]]:
    """Open volumes over time without reading them.

    Returns
    -------
    source : Source
    planes : callable
        Gives the planes of a time.
    shape : (T, Z, H, W)
    scale : size of a voxel along these

    Raises
    ------
    InvalidImageError
        The array has no axes "t" and "z".
    StorageError
    """
    source = open_source(stack)
    extents = tuple(int(extent) for extent in source.array.shape)
    names = (axes or source.axes or ("tzyx" if len(extents) == 4 else "")).lower()
    if len(names) != len(extents) or not {"t", "z"} <= set(names):
        raise InvalidImageError(
            f'Volumes over time need the axes "t" and "z"; the array has the shape {extents} and the axes "{names}": '
            'name them, for example axes="tzyx".'
        )

    def planes(time: int) -> Frames:
        return Frames(source, choose_planes(extents, names, "z", {**(index or {}), "t": time}))

    first = planes(0)
    shape = (extents[names.index("t")], first.shape[0], first.shape[1], first.shape[2])
    return source, planes, shape, (source.scale.get("t", 1.0), *first.scale)


def has_volumes(stack: Any, axes: str | None, index: Mapping[str, int]) -> bool:
    """Whether a stack goes on in "t" and in "z", and no position on either was chosen."""
    source = open_source(stack)
    names = (axes or source.axes or "").lower()
    source.close()
    longer = {name for name, extent in zip(names, source.array.shape, strict=False) if extent > 1}
    return {"t", "z"} <= longer and not {"t", "z"} & set(index)


def read_parents(folder: Path) -> dict[int, int]:
    """Object id -> id of its parent, as the properties of a label image tell; empty when they do not."""
    import zarr

    attributes: dict[str, Any] = dict(zarr.open_group(folder, mode="r").attrs)
    label = attributes.get("ome", {}).get("image-label", {})
    known = [one for one in label.get("properties", []) if one.get("parent")]
    return {int(one["label-value"]): int(one["parent"]) for one in known}
