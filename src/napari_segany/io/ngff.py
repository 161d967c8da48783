"""OME-NGFF 0.5 label images: their arrays, metadata and pyramid."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidLabelsError, StorageError

VERSION = "0.5"
#: Pyramid levels stop when a plane is at most this wide.
SMALLEST_LEVEL = 256
SPACE_AXES = "zyx"


def _zarr() -> Any:
    import zarr

    return zarr


def create_labels(
    path: Path, name: str, shape: tuple[int, int, int], dtype: np.dtype, axes: str, scale: Sequence[float], chunk: int
) -> Any:
    """Create the label image ``labels/<name>``, or open it where it exists.

    Metadata are written from the inside out, so that a reader never finds the
    name of labels that are not there yet.

    Returns
    -------
    zarr.Array of full resolution
    """
    zarr = _zarr()
    if path.exists() and any(path.iterdir()) and not any((path / mark).exists() for mark in ("zarr.json", ".zgroup")):
        raise StorageError(f"{path} exists and is not a zarr folder; choose another output.")
    try:
        root = zarr.open_group(path, mode="a", zarr_format=3)
        if f"labels/{name}/0" in root:
            return root[f"labels/{name}/0"]
        group = root.require_group("labels").require_group(name)
        array = _create_array(group, "0", shape, dtype, axes, chunk)
        _describe(group, axes, scale, 1, _image_label(root))
        listed = dict(root["labels"].attrs).get("ome", {}).get("labels", [])
        root["labels"].attrs["ome"] = {"version": VERSION, "labels": [*listed, name]}
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"Labels cannot be created in {path}: {error}.") from error
    return array


def _create_array(group: Any, level: str, shape: Sequence[int], dtype: np.dtype, axes: str, chunk: int) -> Any:
    from zarr.codecs import ZstdCodec

    side = [-(-extent // chunk) * chunk for extent in shape[1:]]
    return group.create_array(
        level,
        shape=tuple(shape),
        dtype=dtype,
        chunks=(1, chunk, chunk),
        shards=(1, *side),
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
        factors = [scale[0], scale[1] * 2**level, scale[2] * 2**level]
        # A pixel's centre moves when two become one.
        shift = [0.0, *((2**level - 1) / 2 * s for s in scale[1:])]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": factors}]
        if level:
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    described = [{"name": axis, "type": "time" if axis == "t" else "space"} for axis in axes]
    group.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [{"name": group.name.rsplit("/", 1)[-1], "axes": described, "datasets": datasets}],
        "image-label": dict(image_label),
    }


def label_attributes(
    path: Path,
    name: str,
    array: Any,
    axes: str,
    scale: Sequence[float],
    ids: Sequence[int],
    properties: Mapping[int, Mapping[str, Any]],
) -> None:
    """Write colours, properties and the pyramid of a finished label image."""
    root = _zarr().open_group(path, mode="a")
    group = root[f"labels/{name}"]
    level, current = 0, array
    while max(current.shape[1:]) > SMALLEST_LEVEL:
        level += 1
        shape = (current.shape[0], *((extent + 1) // 2 for extent in current.shape[1:]))
        smaller = _create_array(group, str(level), shape, array.dtype, axes, min(256, max(shape[1:])))
        for frame in range(shape[0]):
            smaller[frame] = current[frame][::2, ::2]
        current = smaller
    colours = [{"label-value": i, "rgba": _colour(i)} for i in ids]
    described = [{"label-value": i, **properties.get(i, {})} for i in ids]
    _describe(group, axes, scale, level + 1, _image_label(root, colors=colours, properties=described))


def _colour(label: int) -> list[int]:
    """A colour far from that of the neighbouring ids: hues by the golden ratio."""
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.75, 1.0)
    return [*(round(255 * part) for part in rgb), 255]


def read_layout(
    path: Path, name: str | None = None
) -> tuple[str, tuple[int, int, int], np.dtype, str, tuple[float, ...]]:
    """Name, shape, dtype, axes and scale of the label image in a folder.

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
        name = name or listed[0]
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
