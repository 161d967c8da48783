"""Label stacks in memory or as OME-Zarr, written one frame at a time by a single writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.errors import InvalidLabelsError, StorageError, first_line
from napari_segany.core.instances import Instances
from napari_segany.core.paths import exists
from napari_segany.io.label_checks import check_fit, check_frame, check_label_dtype
from napari_segany.io.lock import OutputLock
from napari_segany.io.ngff import (
    DEFAULT_NAME,
    check_output,
    create_labels,
    finish_labels,
    forget_pyramid,
    frame_folder,
    is_stored,
    read_layout,
    replace_blocks,
    replace_frame,
)

#: Side of a chunk; a frame is one shard of them.
CHUNK = 256
#: One for the whole process: two stores may lead to the same folder.
_WRITER = ThreadPoolExecutor(1, thread_name_prefix="segany-labels")


class MemoryLabels:
    """Labels in an array, changed in place; implements `core.protocols.LabelStore`.

    Parameters
    ----------
    data : (N, H, W) integer array
    """

    def __init__(self, data: np.ndarray) -> None:
        check_label_dtype(data.dtype)
        if data.ndim != 3:
            raise InvalidLabelsError(f"Labels must have the shape (N, H, W), got {data.shape}.")
        if not data.flags.writeable:
            raise InvalidLabelsError("The labels array is read-only; pass a copy of it.")
        self.data = data

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        count, height, width = self.data.shape
        return count, height, width

    @property
    def dtype(self) -> np.dtype:
        """Integer dtype of the labels."""
        return self.data.dtype

    def read(self, frame: int) -> np.ndarray:
        """Copy one frame, (H, W)."""
        return self.data[frame].copy()

    def write(self, frame: int, labels: np.ndarray) -> None:
        """Replace one frame; see `check_frame` for what is refused."""
        check_frame(frame, labels, self.shape, self.dtype)
        self.data[frame] = labels

    def array(self) -> np.ndarray:
        """The labels themselves, (N, H, W)."""
        return self.data


class ZarrLabels:
    """Labels in an OME-Zarr (0.5), one shard per frame; implements `core.protocols.LabelStore`.

    All writing goes through one thread, since zarr loses concurrent writes
    inside a chunk; a lock keeps other processes out.

    Parameters
    ----------
    path : folder ending in ``.zarr``
        Created, or opened if it holds labels of this shape. It may be an
        OME-Zarr (0.5) image, which the labels are then written into.
    shape : (N, H, W)
    dtype : integer dtype
    axes : names of the axes, such as "zyx"
    scale : size of a voxel along them
    name : str
        Name of the label image inside the group ``labels``.

    Raises
    ------
    InvalidLabelsError
        The folder holds labels of another shape, `dtype` is no integer, or a size is zero.
    StorageError
        The folder cannot be written, is no zarr, or another process writes to it.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, int, int],
        dtype: Any = np.int32,
        axes: str = "zyx",
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        name: str = DEFAULT_NAME,
    ) -> None:
        self.path, self.name = Path(path), name
        self._axes, self._scale = axes, tuple(scale)
        check_label_dtype(dtype)
        if len(shape) != 3 or 0 in shape:
            raise InvalidLabelsError(f"Labels must have the shape (N, H, W) without zeros, got {tuple(shape)}.")
        check_output(self.path)
        self._lock = OutputLock(self.path)
        self._lock.acquire()
        # There may be one from before.
        self._closed, self._pyramid = False, True
        try:
            self._array = create_labels(self.path, name, shape, np.dtype(dtype), axes, self._scale, CHUNK)
            _sweep(self.path, name)
            if tuple(self._array.shape) != tuple(shape):
                raise InvalidLabelsError(
                    f"{self.path} holds labels of the shape {tuple(self._array.shape)} and the stack has "
                    f"{tuple(shape)}; choose another output."
                )
            check_label_dtype(self._array.dtype)
        except BaseException:
            self._lock.release()
            raise

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        count, height, width = self._array.shape
        return int(count), int(height), int(width)

    @property
    def dtype(self) -> np.dtype:
        """Integer dtype of the labels."""
        return np.dtype(self._array.dtype)

    def read(self, frame: int) -> np.ndarray:
        """Read one frame, (H, W).

        Raises
        ------
        StorageError
            Its data are damaged.
        """
        try:
            return np.array(self._array[frame])
        except IndexError:
            raise
        except Exception as error:
            raise StorageError(
                f"Frame {frame} of the labels in {self.path} is damaged ({first_line(error)}), the others are not; "
                f"remove {frame_folder(self.path, self.name, frame)} to begin it anew."
            ) from error

    def slice(self, index: Any) -> np.ndarray:
        """Read a part of the array; see `read_part`."""
        return read_part(self._array, index, self.path)

    def write(self, frame: int, labels: np.ndarray) -> None:
        """Replace one frame; returns when it is on disk.

        Raises
        ------
        InvalidLabelsError
            See `check_frame`.
        StorageError
            The disk is full, or the folder was taken away or made read-only.
        """
        check_frame(frame, labels, self.shape, self.dtype)
        self.update(lambda array: replace_frame(array, self.path, self.name, frame, labels), f"frame {frame}")

    def write_blocks(self, frame: int, labels: Callable[[Box], np.ndarray]) -> None:
        """Replace one frame that need not fit into the memory.

        Parameters
        ----------
        frame : int
        labels : callable
            Gives the labels of a window (y0, x0, y1, x1), which is a shard of the array.

        Raises
        ------
        StorageError
            See `write`.
        """
        self.update(lambda array: replace_blocks(array, self.path, self.name, frame, labels), f"frame {frame}")

    def update(self, change: Callable[[Any], None], what: str = "the labels") -> None:
        """Run a change of the zarr array on the writing thread and wait for it."""
        if self._closed:
            raise StorageError(f"Could not write {what} to {self.path}: the labels were closed.")

        def work() -> None:
            # Whoever opens them meanwhile, or after a kill, is not led to levels that are out of date, or half written.
            if self._pyramid:
                forget_pyramid(self.path, self.name)
                self._pyramid = False
            change(self._array)

        try:
            _WRITER.submit(work).result()
        except IndexError:
            raise
        except OSError as error:
            raise StorageError(f"Could not write {what} to {self.path}: {error.strerror or error}.") from error
        except Exception as error:
            # Such as a damaged chunk, which a change of a part of it has to read first.
            raise StorageError(f"Could not write {what} to {self.path}: {error}.") from error

    def missing(self, frames: Iterable[int]) -> list[int]:
        """Those of some frames that nothing is stored of: never written, or lost."""
        return [frame for frame in frames if not is_stored(self.path, self.name, frame)]

    def array(self) -> LabelArray:
        """The labels as an array-like that writes through the one writer."""
        return LabelArray(self)

    def finish(self, properties: Mapping[int, Mapping[str, Any]] | None = None) -> None:
        """Write colours, properties and the pyramid.

        Frames that are damaged are left out with a warning.

        Parameters
        ----------
        properties : object id -> name -> value, optional
            Such as score or model, stored with each label.

        Raises
        ------
        StorageError
            The disk is full, or the folder was taken away or made read-only.
        """
        self.update(
            lambda array: finish_labels(self.path, self.name, array, self._axes, self._scale, properties or {}),
            "colours and pyramid",
        )
        self._pyramid = True

    def close(self) -> None:
        """Let other processes write."""
        self._closed = True
        self._lock.release()


class LabelArray:
    """Labels (N, H, W) of a `ZarrLabels`, to be sliced, shown and painted on."""

    ndim = 3

    def __init__(self, labels: ZarrLabels) -> None:
        self._labels = labels
        self.shape, self.dtype = labels.shape, labels.dtype

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._labels.slice(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        check_fit(value, self.dtype)

        def change(array: Any) -> None:
            if isinstance(index, tuple) and all(isinstance(one, np.ndarray) for one in index):
                array.vindex[index] = value
            else:
                array[index] = value

        self._labels.update(change)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._labels.slice(...), dtype=dtype)


def read_part(array: Any, index: Any, path: Path) -> np.ndarray:
    """Index labels that lie in a folder.

    Raises
    ------
    StorageError
        Their data are damaged.
    """
    try:
        return np.asarray(array[index])
    except IndexError:
        raise
    except Exception as error:
        raise StorageError(f"A part of the labels in {path} is damaged ({first_line(error)}).") from error


def _sweep(path: Path, name: str) -> None:
    """Remove what a killed process left half written, and nothing of a foreign image around the labels."""
    labels = path / "labels"
    for leftover in (*path.glob("*.partial"), *labels.glob("*.partial"), *(labels / name).rglob("*.partial")):
        leftover.unlink(missing_ok=True)


def open_labels(path: str | Path, name: str | None = None) -> ZarrLabels:
    """Open the labels of an existing OME-Zarr for reading and writing."""
    found, shape, dtype, axes, scale = read_layout(Path(path), name)
    return ZarrLabels(path, shape, dtype, axes, scale, found)


def write_plane(path: Path, frame: int, labels: Callable[[Box], np.ndarray], name: str = DEFAULT_NAME) -> None:
    """Replace one frame of labels that another process has locked for this one; see `ZarrLabels.write_blocks`.

    Different frames may be written at the same time, since no shard holds two.

    Raises
    ------
    StorageError
    """
    import zarr

    try:
        array = zarr.open_array(path / "labels" / name / "0", mode="r+")
        replace_blocks(array, path, name, frame, labels)
    except Exception as error:
        raise StorageError(f"Could not write frame {frame} to {path}: {error}.") from error


def check_writable(path: Path) -> None:
    """Say so before any work is done if a folder cannot be created or written.

    Raises
    ------
    StorageError
    """
    parent = path if exists(path) else path.parent
    while not exists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise StorageError(f"{parent} is a file, not a folder; choose another output.")
    if not os.access(parent, os.W_OK):
        raise StorageError(f"{parent} is read-only; choose another output.")
    if shutil.disk_usage(parent).free < 1_000_000:
        raise StorageError(f"The disk of {parent} is full; choose another output.")


def write_image(labels: np.ndarray | Instances, path: Path) -> Path:
    """Write an (H, W) label image as TIFF or PNG, that of found objects as OME-Zarr, too, by the ending of `path`.

    Raises
    ------
    StorageError
    """
    check_writable(path)
    if path.suffix == ".zarr" and isinstance(labels, Instances):
        store = ZarrLabels(path, (1, labels.shape[0], labels.shape[1]), np.int32)
        try:
            store.write_blocks(0, labels.labels_in)
            store.finish()
        finally:
            store.close()
        return path
    if path.suffix not in (".tif", ".tiff", ".png"):
        raise StorageError(f"Labels cannot be written as {path.name}; end it with .zarr, .tif or .png.")
    from skimage.io import imsave

    if isinstance(labels, Instances):
        labels = labels.labels
    narrow = labels.astype(np.uint16) if labels.max(initial=0) < 2**16 else labels
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, narrow, check_contrast=False)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path
