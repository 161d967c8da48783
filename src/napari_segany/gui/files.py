"""Reader and writer of napari for folders of ours: File > Open, ``napari PATH``, File > Save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany import api
from napari_segany.core.errors import InvalidLabelsError, StorageError
from napari_segany.core.shown import Shown

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return a reader for a folder that this package wrote, None for all else.

    napari asks for every folder that is opened, so only names of files are looked at.
    """
    return read_folder if isinstance(path, str) and api.is_ours(path) else None


def read_folder(path: str) -> list[LayerData]:
    """Open a saved session, an OME-Zarr with labels of ours, or such labels alone, as image and Labels layers.

    Raises
    ------
    StorageError, InvalidLabelsError
        The labels cannot be read.
    """
    image, labels = api.open_folder(path)
    name = Path(path).name.split(".")[0]
    layers = [] if image is None else [_image_layer(image, name)]
    placed = _placed(labels)
    data = labels.data
    if data.ndim == 3 and len(data) == 1 and (image is None or len(image.scale) == 2):
        from napari_segany.gui.plane_labels import PlaneOnly

        data, placed = PlaneOnly(data), {key: value[1:] for key, value in placed.items()}
    return [*layers, (data, {"name": f"{name} labels", **placed}, "labels")]


def _image_layer(image: Shown, name: str) -> LayerData:
    meta = {"name": name, **_placed(image)}
    if "c" in image.axes:
        finest = image.data[0] if isinstance(image.data, list) else image.data
        colours = image.axes.endswith("c") and finest.shape[-1] in (3, 4) and finest.dtype == np.uint8
        meta |= {"rgb": True} if colours else {"channel_axis": image.axes.index("c"), "name": None}
    return image.data, meta, "image"


def _placed(shown: Shown) -> dict[str, Any]:
    return {"scale": shown.scale, "translate": shown.translate, "axis_labels": tuple(shown.places)}


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Labels layer as OME-Zarr, plane by plane.

    Raises
    ------
    StorageError
        See `api.write_labels`.
    """
    finest = data[0] if meta.get("multiscale") else data
    names = [str(name) for name in meta.get("axis_labels") or ()]
    # napari's names for axes that have none are "-2" and "-1".
    named = all(len(name) == 1 and name.isalpha() for name in names) and len(set(names)) == len(names)
    axes = "".join(names).lower() if named and names else None
    try:
        return [str(api.write_labels(finest, path, axes, meta.get("scale"), meta.get("translate")))]
    except InvalidLabelsError as error:
        # napari takes those for a writer that does not know the format, and keeps the sentence to itself.
        raise StorageError(str(error)) from error
