"""Arrays out of anything a person may point at, opened without reading their pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidImageError, StorageError

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
    units : dict of axis name -> str
    path : Path or None
    """

    array: Any
    axes: str | None = None
    scale: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    path: Path | None = None


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
        source = np.asarray(source)
    if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
        raise InvalidImageError(f"An array or a path was expected, got {type(source).__name__}.")
    if np.dtype(source.dtype).kind not in "buif":
        raise InvalidImageError(f"An image must hold real numbers, got dtype {source.dtype}.")
    names = getattr(getattr(source, "metadata", None), "dimension_names", None)
    axes = "".join(names) if names and all(name and len(name) == 1 for name in names) else None
    return Source(source, axes)


def _open_path(path: Path, level: int) -> Source:
    if not path.exists():
        raise StorageError(f"There is no file or folder {path}.")
    try:
        if path.is_dir():
            return _open_zarr(path, level)
        if path.suffix.lower() in TIFF_SUFFIXES:
            return _open_tiff(path, level)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            from skimage.io import imread

            return Source(imread(path), path=path)
    except (InvalidImageError, StorageError):
        raise
    except Exception as error:
        raise StorageError(f"{path} cannot be read as an image: {_first_line(error)}.") from error
    raise StorageError(f"{path} is of an unknown kind; use a zarr folder, a TIFF, a PNG or a JPEG.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


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
    described = multiscales[0].get("axes", [])
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in described]
    units = {axis["name"]: axis["unit"] for axis in described if isinstance(axis, dict) and "unit" in axis}
    scale: dict[str, float] = {}
    for transform in datasets[level].get("coordinateTransformations", []):
        if transform.get("type") == "scale":
            scale = dict(zip(names, map(float, transform["scale"]), strict=True))
    axes = "".join(names) if all(len(name) == 1 for name in names) else ""
    return Source(array, axes if len(axes) == array.ndim else None, scale, units, path)


def _open_tiff(path: Path, level: int) -> Source:
    import tifffile
    import zarr

    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        # Singleton and unnamed axes ("Q") say nothing that a person could use.
        axes = series.axes.lower().replace("s", "c").replace("q", "z").replace("i", "z")
        levels = len(series.levels)
    if not 0 <= level < levels:
        raise InvalidImageError(f"There is no resolution level {level} in {path}; it has {levels}.")
    array = zarr.open_array(tifffile.imread(path, aszarr=True, level=level), mode="r")
    if len(set(axes)) != len(axes) or len(axes) != array.ndim:
        axes = ""
    return Source(array, axes or None, path=path)
