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
        "rotate": image.rotate,
        "shear": image.shear,
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
    """
    shape = data_shape(image)
    if len(shape) < 2:
        raise InvalidImageError(f'The layer "{image.name}" is a line of {shape[0]} values; choose an image.')
    if 0 in full_data(image).shape:
        raise InvalidImageError(f'The layer "{image.name}" is empty: its shape is {shape}.')


def check_transform(image: Image, plane: tuple[int, int]) -> None:
    """Refuse an image whose planes do not lie flat on the canvas.

    Rotation and shear within the planes on display are served: they only
    change where on the canvas a pixel lies.

    Raises
    ------
    UnsupportedError
    """
    size = len(data_shape(image))
    origin = np.asarray(image.data_to_world(np.zeros(size)))
    linear = np.array([np.asarray(image.data_to_world(unit)) - origin for unit in np.eye(size)])
    tilted = np.abs(linear - np.diag(np.diag(linear)))
    tilted[np.ix_(plane, plane)] = 0
    if tilted.max() > 1e-6 * np.abs(linear).max():
        raise UnsupportedError(
            f'The layer "{image.name}" is rotated or sheared out of the plane on display, which is not supported; '
            "show the planes that it is turned in, or reset its transform."
        )


def check_output(labels: Labels, image: Image) -> None:
    """Refuse a labels layer that cannot hold the objects of an image.

    Raises
    ------
    InvalidLabelsError
        Another shape, several scales, which napari cannot edit, or an array that cannot be written into.
    """
    data = labels.data
    if labels.multiscale:
        raise InvalidLabelsError(
            f'The labels "{labels.name}" have several scales; choose or make a plain labels layer.'
        )
    if np.dtype(data.dtype).kind not in "iu":
        raise InvalidLabelsError(
            f'The labels "{labels.name}" are of dtype {data.dtype}; convert them to whole numbers first.'
        )
    fixed = isinstance(data, np.ndarray) and not data.flags.writeable
    # A dask array is a computation, not a place; of the others zarr says what it is open for.
    if hasattr(data, "dask") or not hasattr(data, "__setitem__") or fixed or getattr(data, "read_only", False):
        raise InvalidLabelsError(
            f'The labels "{labels.name}" cannot be written into; duplicate the layer or choose a new one.'
        )
    if tuple(data.shape) != data_shape(image):
        raise InvalidLabelsError(
            f'The labels "{labels.name}" have the shape {tuple(data.shape)} and the image '
            f'"{image.name}" {data_shape(image)}; choose labels of the same shape or a new layer.'
        )
