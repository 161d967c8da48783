"""From one layer's data coordinates to another's, through the world, and what layers can be worked on."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_segany.core.errors import InvalidImageError, InvalidLabelsError, UnsupportedError


def affine_between(source: Layer, target: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (n, n) and offset (n,) from the data coordinates of one layer to those of another."""
    corners = np.vstack([np.zeros(source.ndim), np.eye(source.ndim)])
    mapped = np.array([target.world_to_data(source.data_to_world(corner)) for corner in corners])
    return (mapped[1:] - mapped[0]).T, mapped[0]


def map_coords(coords: np.ndarray, source: Layer, target: Layer) -> np.ndarray:
    """Turn data coordinates (N, n) of one layer into data coordinates of another."""
    matrix, offset = affine_between(source, target)
    return coords @ matrix.T + offset


def alignment(image: Image) -> dict[str, Any]:
    """Keyword arguments that put a new layer exactly over an image."""
    return {
        "scale": image.scale,
        "translate": image.translate,
        "affine": image.affine,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }


def full_data(layer: Image | Labels) -> Any:
    """Return the array of a layer, the finest level of a multiscale one."""
    return layer.data[0] if layer.multiscale else layer.data


def data_shape(image: Image) -> tuple[int, ...]:
    """Sizes of an image along its dimensions, colour channels left out."""
    return tuple(int(n) for n in full_data(image).shape[: image.ndim])


def check_image(image: Image) -> None:
    """Refuse an image that cannot be worked on.

    Raises
    ------
    InvalidImageError
        An empty layer, or one that is no plane at all.
    UnsupportedError
        A rotated or sheared layer.
    """
    shape = data_shape(image)
    if len(shape) < 2:
        raise InvalidImageError(f'The layer "{image.name}" is a line of {shape[0]} values; choose an image.')
    if 0 in full_data(image).shape:
        raise InvalidImageError(f'The layer "{image.name}" is empty: its shape is {shape}.')
    origin = np.asarray(image.data_to_world(np.zeros(len(shape))))
    linear = np.array([np.asarray(image.data_to_world(unit)) - origin for unit in np.eye(len(shape))])
    off_diagonal = linear - np.diag(np.diag(linear))
    if np.abs(off_diagonal).max() > 1e-6 * np.abs(linear).max():
        raise UnsupportedError(
            f'The layer "{image.name}" is rotated or sheared, which is not supported; reset its transform first.'
        )


def check_output(labels: Labels, image: Image) -> None:
    """Refuse a labels layer that cannot hold the objects of an image.

    Raises
    ------
    InvalidLabelsError
        Another shape, several scales, which napari cannot edit, or no array in memory.
    """
    if labels.multiscale:
        raise InvalidLabelsError(
            f'The labels "{labels.name}" have several scales; choose or make a plain labels layer.'
        )
    if not isinstance(labels.data, np.ndarray):
        raise InvalidLabelsError(
            f'The labels "{labels.name}" lie on disk, where this window cannot write yet; choose a new layer.'
        )
    if tuple(labels.data.shape) != data_shape(image):
        raise InvalidLabelsError(
            f'The labels "{labels.name}" have the shape {tuple(labels.data.shape)} and the image '
            f'"{image.name}" {data_shape(image)}; choose labels of the same shape or a new layer.'
        )
