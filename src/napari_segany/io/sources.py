"""Arrays out of anything a person may point at, opened without reading their pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidImageError, StorageError, first_line
from napari_segany.core.paths import exists
from napari_segany.io.tiff import open_tiff

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif"}
TIFF_SUFFIXES = {".tif", ".tiff"}


@dataclass(frozen=True)
class Source:
    """An array with what its file says about it.

    Attributes
    ----------
    array : array-like
        With ``shape``, ``dtype`` and ``__getitem__``.
    axes : str or None
        One letter per axis, if known.
    scale : dict of axis name -> float
        Size of a pixel.
    translate : dict of axis name -> float
        Where the first pixel lies; empty when the file does not say.
    units : dict of axis name -> str
    path : Path or None
    close : callable
        Lets go of the file.
    """

    array: Any
    axes: str | None = None
    scale: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    close: Callable[[], None] = lambda: None
    translate: dict[str, float] = field(default_factory=dict)


def open_source(source: Any, level: int = 0) -> Source:
    """Open an array, a list of resolution levels, or a path.

    Parameters
    ----------
    source : array-like, sequence of array-likes, str or Path
        A path may lead to a zarr array, an OME-Zarr image or label image (0.4
        or 0.5), a TIFF, or an image file.
    level : int
        Resolution level of a multiscale image, 0 is full.

    Raises
    ------
    InvalidImageError, StorageError
    """
    if isinstance(source, str | Path):
        return _open_path(Path(source), level)
    if isinstance(source, list | tuple) or type(source).__name__ == "MultiScaleData":
        levels = list(source)
        if levels and all(hasattr(one, "shape") for one in levels):
            if not 0 <= level < len(levels):
                raise InvalidImageError(f"There is no resolution level {level}; the image has {len(levels)}.")
            return open_source(levels[level])
        try:
            source = np.asarray(source)
        except ValueError as error:
            raise InvalidImageError(f"The {type(source).__name__} of numbers is not an array: {error}.") from error
    if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise InvalidImageError(f"An array or a path was expected, got {type(source).__name__}.")
    try:
        kind = np.dtype(source.dtype).kind
    except TypeError as error:
        raise InvalidImageError(f"{source.dtype} is no dtype of numpy; convert the image to a numpy array.") from error
    if kind not in "buif":
        raise InvalidImageError(f"An image must hold real numbers, got dtype {source.dtype}.")
    names = getattr(getattr(source, "metadata", None), "dimension_names", None)
    axes = "".join(names) if names and all(name and len(name) == 1 for name in names) else None
    return Source(source, axes)


def _open_path(path: Path, level: int) -> Source:
    if not exists(path):
        raise StorageError(f"There is no file or folder {path}.")
    try:
        if path.is_dir():
            return _open_zarr(path, level)
        if path.suffix.lower() in TIFF_SUFFIXES:
            tiff = open_tiff(path, level)
            return Source(tiff.array, tiff.axes, tiff.scale, tiff.units, path, tiff.close)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return _open_picture(path)
    except (InvalidImageError, StorageError):
        raise
    except Exception as error:
        raise StorageError(f"{path} cannot be read as an image: {first_line(_cause(error))}.") from error
    raise StorageError(f"{path} is of an unknown kind; use a zarr folder, a TIFF, a PNG or a JPEG.")


def _open_picture(path: Path) -> Source:
    from imageio.v3 import imread
    from PIL.Image import DecompressionBombWarning

    with warnings.catch_warnings():
        # A small file that unpacks to a huge picture is refused, not only remarked on.
        warnings.simplefilter("error", DecompressionBombWarning)
        picture = imread(path, plugin="pillow")
    return Source(picture, {2: "yx", 3: "yxc"}.get(picture.ndim, "zyxc"), path=path)


def _cause(error: BaseException) -> BaseException:
    """The error that another one stands for."""
    return error if error.__cause__ is None else _cause(error.__cause__)


def _open_zarr(path: Path, level: int) -> Source:
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except Exception as error:
        raise StorageError(f"The folder {path} is not a zarr array or OME-Zarr image.") from error
    if isinstance(node, zarr.Array):
        opened = open_source(node)
        return Source(opened.array, opened.axes, path=path)
    attributes: dict[str, Any] = dict(node.attrs)
    multiscales = attributes.get("ome", attributes).get("multiscales")
    if not multiscales:
        raise StorageError(f"The zarr group {path} holds no image: it has no multiscales; name the array inside it.")
    datasets = multiscales[0]["datasets"]
    if not 0 <= level < len(datasets):
        raise InvalidImageError(f"There is no resolution level {level} in {path}; it has {len(datasets)}.")
    inside = (path / datasets[level]["path"]).resolve()
    if not inside.is_relative_to(path.resolve()):
        raise StorageError(f"The metadata of {path} point outside of it; the file is not trusted.")
    array = zarr.open_array(inside, mode="r")
    listed = multiscales[0].get("axes", [])
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in listed]
    units = {axis["name"]: axis["unit"] for axis in listed if isinstance(axis, dict) and "unit" in axis}
    factors, origin, placed = np.ones(len(names)), np.zeros(len(names)), False
    # Of this level, then of all levels.
    for described in (datasets[level], multiscales[0]):
        for transform in described.get("coordinateTransformations", []):
            if transform.get("type") == "scale":
                step = np.asarray(transform["scale"], dtype=np.float64)
                factors, origin = factors * step, origin * step
            elif transform.get("type") == "translation":
                origin, placed = origin + np.asarray(transform["translation"], dtype=np.float64), True
    scale = dict(zip(names, factors.tolist(), strict=True))
    translate = dict(zip(names, origin.tolist(), strict=True)) if placed else {}
    axes = "".join(names) if all(len(name) == 1 for name in names) else ""
    return Source(array, axes if len(axes) == array.ndim else None, scale, units, path, translate=translate)
