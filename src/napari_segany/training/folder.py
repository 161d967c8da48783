"""Annotated images from a folder with an ``index.json``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def read_stacks(folder: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Read the annotated stacks of a folder by modality, (N, H, W) twice; isotropic ones along each axis."""
    from skimage.io import imread

    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for item in json.loads((folder / "index.json").read_text()):
        if "labels" not in item or item["axes"] not in ("TYX", "ZYX"):
            continue
        image, labels = imread(folder / item["image"]), imread(folder / item["labels"])
        for axis in (0, 1, 2) if item["axes"] == "ZYX" else (0,):
            pair = np.moveaxis(image, axis, 0), np.moveaxis(labels, axis, 0)
            found.setdefault(item["modality"], []).append(pair)
    return found


def read_folder(folder: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Read every annotated image of a folder; stacks give their planes along each axis.

    Parameters
    ----------
    folder : Path
        Its ``index.json`` lists items with ``axes``, ``image``, ``labels`` and ``modality``.

    Returns
    -------
    dict of modality -> list of (image, labels)
        2D images (H, W[, C]) with labels (H, W).
    """
    from skimage.io import imread

    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for item in json.loads((folder / "index.json").read_text()):
        if "labels" not in item:
            continue
        image, labels = imread(folder / item["image"]), imread(folder / item["labels"])
        pairs = found.setdefault(item["modality"], [])
        if item["axes"] in ("YX", "YXC"):
            pairs.append((image, labels))
            continue
        axes = (0, 1, 2) if item["axes"] == "ZYX" else (0,)
        for axis in axes:
            for plane in range(2, image.shape[axis] - 2, 4):
                cut = labels.take(plane, axis)
                if cut.any():
                    pairs.append((image.take(plane, axis), cut))
    return found
