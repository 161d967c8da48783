"""Annotated images from a folder with an ``index.json``."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.errors import StorageError, first_line

#: A stack at least so deep, in units of its width, is looked at along each axis.
AS_DEEP_AS_WIDE = 0.75


def read_stacks(folder: Path, axes: Collection[str] = ("TYX", "ZYX")) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Read the annotated stacks of a folder by modality, (N, H, W) twice; those as deep as wide along each axis.

    Parameters
    ----------
    folder : Path
    axes : names of axes
        Of the stacks that are wanted.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for item in _items(folder):
        if item["axes"] not in axes:
            continue
        image, labels = _read(folder, item["image"]), _read(folder, item["labels"])
        for axis in _looked_along(item, image.shape):
            pair = np.moveaxis(image, axis, 0), np.moveaxis(labels, axis, 0)
            found.setdefault(item["modality"], []).append(pair)
    return found


def read_folder(folder: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Read every annotated image of a folder; stacks give their planes, those as deep as wide along each axis.

    Parameters
    ----------
    folder : Path
        Its ``index.json`` lists items with ``axes``, ``image``, ``labels`` and ``modality``.

    Returns
    -------
    dict of modality -> list of (image, labels)
        2D images (H, W[, C]) with labels (H, W).

    Raises
    ------
    StorageError
        The index or an image is missing, damaged, or outside of the folder.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for item in _items(folder):
        image, labels = _read(folder, item["image"]), _read(folder, item["labels"])
        pairs = found.setdefault(item["modality"], [])
        if item["axes"] in ("YX", "YXC"):
            pairs.append((image, labels))
            continue
        for axis in _looked_along(item, image.shape):
            for plane in range(2, image.shape[axis] - 2, 4):
                cut = labels.take(plane, axis)
                if cut.any():
                    pairs.append((image.take(plane, axis), cut))
    return found


def _looked_along(item: dict[str, str], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes along which a stack is looked at."""
    return (0, 1, 2) if item["axes"] == "ZYX" and shape[0] >= AS_DEEP_AS_WIDE * max(shape) else (0,)


def _items(folder: Path) -> list[dict[str, str]]:
    """Those of the index that have labels."""
    index = folder / "index.json"
    try:
        listed = [item for item in json.loads(index.read_text()) if "labels" in item]
        known = all(isinstance(item[key], str) for item in listed for key in ("axes", "image", "labels", "modality"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(f"{index} does not list annotated images ({first_line(error)}).") from error
    if not known:
        raise StorageError(f"{index} does not list annotated images: axes, image, labels and modality are text.")
    return listed


def _read(folder: Path, name: str) -> Any:
    from skimage.io import imread

    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise StorageError(f"The index of {folder} names an image outside of it and is not trusted: {name}.")
    try:
        return imread(path)
    except Exception as error:
        # Each format has errors of its own.
        raise StorageError(f"{path} cannot be read as an image: {first_line(error)}.") from error
