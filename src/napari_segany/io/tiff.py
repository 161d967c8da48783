"""TIFF stacks read page by page, with the axes and pixel sizes that ImageJ and OME write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_segany.core.errors import InvalidImageError, StorageError


@dataclass(frozen=True)
class Tiff:
    """The first series of a file as a zarr array over its pages.

    Attributes
    ----------
    array : zarr.Array
    axes : str or None
    scale : dict of axis name -> float
    units : dict of axis name -> str
    close : callable
    """

    array: Any
    axes: str | None
    scale: dict[str, float]
    units: dict[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


def open_tiff(path: Path, level: int) -> Tiff:
    """Open a TIFF without reading its pixels.

    Raises
    ------
    InvalidImageError
        No such resolution level.
    StorageError
        The file was cut off.
    """
    import tifffile
    import zarr

    tiff = tifffile.TiffFile(path)
    try:
        series = tiff.series[0]
        if not 0 <= level < len(series.levels):
            raise InvalidImageError(f"There is no resolution level {level} in {path}; it has {len(series.levels)}.")
        imagej = tiff.imagej_metadata or {}
        if imagej and imagej.get("images", 1) > series.size // series.keyframe.size:
            raise StorageError(f"{path} is damaged: it should hold {imagej['images']} planes; copy it again.")
        array = zarr.open_array(series.aszarr(level=level), mode="r")
        # Unnamed axes ("Q", "I") say nothing that a person could use.
        axes = series.axes.lower().replace("s", "c").replace("q", "z").replace("i", "z")
        scale, units = _ome_sizes(tifffile, tiff) if tiff.is_ome else _imagej_sizes(tiff, imagej)
        if level:
            for name in "yx":
                if name in scale and name in axes:
                    at = axes.index(name)
                    scale[name] *= series.shape[at] / array.shape[at]
        named = len(set(axes)) == len(axes) == array.ndim
        return Tiff(array, axes if named else None, scale, units, tiff.close)
    except BaseException:
        tiff.close()
        raise


def _imagej_sizes(tiff: Any, metadata: dict[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    if not metadata:
        # Others write the resolution for printing.
        return {}, {}
    sizes = {"z": metadata.get("spacing"), "t": metadata.get("finterval")}
    for name, tag in (("x", "XResolution"), ("y", "YResolution")):
        pixels, length = tiff.pages[0].tags[tag].value if tag in tiff.pages[0].tags else (0, 1)
        sizes[name] = length / pixels if pixels else None
    scale = {name: float(size) for name, size in sizes.items() if size}
    unit = metadata.get("unit")
    return scale, dict.fromkeys("zyx", str(unit)) if unit and unit != "pixel" else {}


def _ome_sizes(tifffile: Any, tiff: Any) -> tuple[dict[str, float], dict[str, str]]:
    images = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    pixels = (images[0] if isinstance(images, list) else images)["Pixels"]
    names = {"z": "PhysicalSizeZ", "y": "PhysicalSizeY", "x": "PhysicalSizeX", "t": "TimeIncrement"}
    scale = {name: float(pixels[key]) for name, key in names.items() if key in pixels}
    # The unit of the schema where none is written.
    units = {name: str(pixels.get(f"{names[name]}Unit", "s" if name == "t" else "µm")) for name in scale}
    return scale, units
