"""OME-NGFF 0.5 label images: their arrays, metadata and pyramid."""

from __future__ import annotations

import colorsys
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.boxes import Box
from napari_segany.core.durable import sync
from napari_segany.core.errors import InvalidLabelsError, StorageError
from napari_segany.core.paths import exists

VERSION = "0.5"
#: Name of our label image among those of an image.
DEFAULT_NAME = "segany"
#: A frame is one shard, or several of this side when it is larger, since a shard is written as a whole.
SHARD = 4096
#: Colours and properties are listed for up to so many objects.
LISTED = 20_000
#: Pyramid levels stop when a plane is at most this wide.
SMALLEST_LEVEL = 256


def _zarr() -> Any:
    import zarr

    return zarr


def check_output(path: Path) -> None:
    """Refuse a folder that labels would not belong in, before anything is written.

    Raises
    ------
    StorageError
    """
    if not exists(path):
        return
    if not path.is_dir():
        raise StorageError(f"{path} is a file, not a folder; choose another output.")
    if any((path / mark).exists() for mark in (".zgroup", ".zarray")):
        # A group of zarr 3 in the same folder would hide the image from its readers.
        raise StorageError(
            f"{path} is in the older zarr 2 format, which labels of OME-Zarr {VERSION} cannot be written into; "
            "choose another output."
        )
    if any(path.iterdir()) and not (path / "zarr.json").exists():
        raise StorageError(f"{path} exists and is not a zarr folder; choose another output.")


def create_labels(
    path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, axes: str, scale: Sequence[float], chunk: int
) -> Any:
    """Create the label image ``labels/<name>``, or open it where it exists.

    Metadata are written from the inside out, so that a reader never finds the
    name of labels that are not there yet; what a killed process did not get
    to write is written now.

    Returns
    -------
    zarr.Array of full resolution
    """
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise StorageError(f"{name!r} cannot be the name of labels; use letters, digits, dots and dashes.")
    try:
        root = _zarr().open_group(path, mode="a", zarr_format=3)
        group = root.require_group("labels").require_group(name)
        # Empty frames are stored too: those that are missing were never written, or are lost.
        with _zarr().config.set({"array.write_empty_chunks": True}):
            array = group["0"] if "0" in group else _create_array(group, "0", shape, dtype, axes, chunk)
        if "ome" not in group.attrs:
            _describe(group, axes, scale, 1, _image_label(root))
        ome = dict(root["labels"].attrs).get("ome", {})
        listed = ome.get("labels", [])
        if name not in listed:
            root["labels"].attrs["ome"] = {**ome, "version": VERSION, "labels": [*listed, name]}
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"Labels cannot be created in {path}: {error}.") from error
    return array


def is_stored(path: Path, name: str, frame: int) -> bool:
    """Whether a frame of full resolution was written."""
    return any(frame_folder(path, name, frame).glob("*/*"))


def frame_folder(path: Path, name: str, frame: int) -> Path:
    """Where a frame of full resolution is stored."""
    return path / "labels" / name / "0" / "c" / str(frame)


def replace_frame(array: Any, path: Path, name: str, frame: int, labels: np.ndarray) -> None:
    """Write a frame of full resolution and wait until it is on the disk, which zarr does not do."""
    try:
        array[frame] = labels
    except OSError:
        raise
    except Exception:
        # Zarr reads what it overwrites, which fails where it is damaged; then nothing is lost by removing it.
        shutil.rmtree(frame_folder(path, name, frame), ignore_errors=True)
        array[frame] = labels
    _sync(frame_folder(path, name, frame))


def replace_blocks(array: Any, path: Path, name: str, frame: int, labels: Callable[[Box], np.ndarray]) -> None:
    """Write a frame shard by shard from labels that are made as they are written, and wait for the disk."""
    for box in blocks(array.shape[1:], array.shards[1:]):
        window = (frame, slice(box[0], box[2]), slice(box[1], box[3]))
        made = labels(box)
        try:
            array[window] = made
        except OSError:
            raise
        except Exception:
            # As above.
            place = (box[0] // array.shards[1], box[1] // array.shards[2])
            frame_folder(path, name, frame).joinpath(*map(str, place)).unlink(missing_ok=True)
            array[window] = made
    _sync(frame_folder(path, name, frame))


def blocks(shape: Sequence[int], sides: Sequence[int]) -> Iterator[Box]:
    """Windows (y0, x0, y1, x1) of a grid."""
    for y in range(0, shape[0], sides[0]):
        for x in range(0, shape[1], sides[1]):
            yield y, x, min(y + sides[0], shape[0]), min(x + sides[1], shape[1])


def _sync(folder: Path) -> None:
    for part in (*folder.rglob("*"), folder, folder.parent):
        if part.exists():
            sync(part)


def _create_array(group: Any, level: str, shape: Sequence[int], dtype: np.dtype, axes: str, chunk: int) -> Any:
    from zarr.codecs import ZstdCodec

    side = [min(-(-extent // chunk) * chunk, SHARD) for extent in shape[-2:]]
    single = [1] * (len(shape) - 2)
    return group.create_array(
        level,
        shape=tuple(shape),
        dtype=dtype,
        chunks=(*single, chunk, chunk),
        shards=(*single, *side),
        # The checksum: without it, flipped bits decode as other labels.
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=list(axes),
        fill_value=0,
        overwrite=True,
    )


def _image_label(root: Any, **parts: Any) -> dict[str, Any]:
    """Metadata of a label image; its source is named where the folder holds the image itself."""
    source = {"source": {"image": "../../"}} if "multiscales" in dict(root.attrs).get("ome", {}) else {}
    return {"version": VERSION, **parts, **source}


def _describe(group: Any, axes: str, scale: Sequence[float], levels: int, image_label: Mapping[str, Any]) -> None:
    datasets = []
    for level in range(levels):
        factors = [*scale[:-2], *(s * 2**level for s in scale[-2:])]
        # A pixel's centre moves when two become one.
        shift = [*(0.0 for _ in scale[:-2]), *((2**level - 1) / 2 * s for s in scale[-2:])]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": factors}]
        if level:
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    described = [{"name": axis, "type": "time" if axis == "t" else "space"} for axis in axes]
    earlier = dict(group.attrs).get("ome", {}).get("multiscales", [{}])[0]
    moved = {key: earlier[key] for key in ("coordinateTransformations",) if key in earlier}
    multiscale = {"name": group.name.rsplit("/", 1)[-1], "axes": described, "datasets": datasets, **moved}
    group.attrs["ome"] = {"version": VERSION, "multiscales": [multiscale], "image-label": dict(image_label)}


def move_labels(path: Path, name: str, translate: Sequence[float]) -> None:
    """Say where the first pixel of a label image lies, in the units of its scale.

    Raises
    ------
    StorageError
    """
    try:
        group = _zarr().open_group(path / "labels" / name, mode="r+")
        ome = dict(group.attrs)["ome"]
        multiscale = {key: value for key, value in ome["multiscales"][0].items() if key != "coordinateTransformations"}
        if any(translate):
            # Of all levels: a scale comes first, as the specification wants it.
            multiscale["coordinateTransformations"] = [
                {"type": "scale", "scale": [1.0] * len(translate)},
                {"type": "translation", "translation": [float(step) for step in translate]},
            ]
        group.attrs["ome"] = {**ome, "multiscales": [multiscale, *ome["multiscales"][1:]]}
    except OSError as error:
        raise StorageError(f"The labels in {path} cannot be written: {error.strerror or error}.") from error


def forget_pyramid(path: Path, name: str) -> None:
    """Describe the full resolution alone, before it is changed and the other levels are not."""
    group = _zarr().open_group(path / "labels" / name, mode="r+")
    ome = dict(group.attrs)["ome"]
    multiscale = ome["multiscales"][0]
    if len(multiscale["datasets"]) > 1:
        finest = {**multiscale, "datasets": multiscale["datasets"][:1]}
        group.attrs["ome"] = {**ome, "multiscales": [finest, *ome["multiscales"][1:]]}


def finish_labels(
    path: Path,
    name: str,
    array: Any,
    axes: str,
    scale: Sequence[float],
    properties: Mapping[int, Mapping[str, Any]],
) -> None:
    """Write colours, properties and the pyramid of a finished label image, leaving out damaged frames."""
    root = _zarr().open_group(path, mode="a")
    group = root[f"labels/{name}"]
    levels: list[Any] = []
    shape = array.shape
    while max(shape[1:]) > SMALLEST_LEVEL:
        shape = (shape[0], *((extent + 1) // 2 for extent in shape[1:]))
        levels.append(_create_array(group, str(len(levels) + 1), shape, array.dtype, axes, SMALLEST_LEVEL))
    found: set[int] = set()
    for frame in range(array.shape[0]):
        try:
            for y0, x0, y1, x1 in blocks(array.shape[1:], array.shards[1:]):
                found.update(np.unique(array[frame, y0:y1, x0:x1]).tolist())
            for finer, level in pairwise([array, *levels]):
                for box in blocks(level.shape[1:], level.shards[1:]):
                    level[frame, box[0] : box[2], box[1] : box[3]] = _halved(finer, frame, box, level.chunks[1])
        except Exception as error:
            warnings.warn(f"Frame {frame} of the labels in {path} is damaged and was left out: {error}", stacklevel=2)
    ids = sorted(found - {0})[:LISTED]
    colours = [{"label-value": i, "rgba": _colour(i)} for i in ids]
    described = [{"label-value": i, **properties.get(i, {})} for i in ids]
    _describe(group, axes, scale, len(levels) + 1, _image_label(root, colors=colours, properties=described))


def _halved(finer: Any, frame: int, box: Box, rows: int) -> np.ndarray:
    """A window (y0, x0, y1, x1) of the next level of a frame, made from so many rows at a time."""
    y0, x0, y1, x1 = box
    strips = ((y, min(y + rows, y1)) for y in range(y0, y1, rows))
    return np.concatenate([finer[frame, 2 * a : 2 * b, 2 * x0 : 2 * x1][::2, ::2] for a, b in strips])


def _colour(label: int) -> list[int]:
    """A colour far from that of the neighbouring ids: hues by the golden ratio."""
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.75, 1.0)
    return [*(round(255 * part) for part in rgb), 255]


def read_layout(
    path: Path, name: str | None = None
) -> tuple[str, tuple[int, int, int], np.dtype, str, tuple[float, ...]]:
    """Name, shape, dtype, axes and scale of the label image in a folder: the named one, ours, or the first.

    Raises
    ------
    StorageError
        No such folder, or no labels in it.
    InvalidLabelsError
        The labels are not a stack (N, H, W).
    """
    zarr = _zarr()
    try:
        root = zarr.open_group(path, mode="r")
        listed = list(dict(root["labels"].attrs)["ome"]["labels"])
        name = name or (DEFAULT_NAME if DEFAULT_NAME in listed else listed[0])
        group = root[f"labels/{name}"]
        array = group["0"]
        multiscale = dict(group.attrs)["ome"]["multiscales"][0]
        axes = "".join(axis["name"] for axis in multiscale["axes"])
        scale = tuple(multiscale["datasets"][0]["coordinateTransformations"][0]["scale"])
    except Exception as error:
        raise StorageError(f"{path} holds no labels that can be read.") from error
    if array.ndim != 3:
        raise InvalidLabelsError(f"The labels in {path} have {array.ndim} dimensions; a stack (N, H, W) is needed.")
    return name, array.shape, array.dtype, axes, scale
