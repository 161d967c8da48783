"""Which stack of planes of an n-dimensional array is worked on, and how to read it plane by plane.

Pure rules over axes and indices: nothing here knows napari.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_segany.core.errors import UnsupportedError


@dataclass(frozen=True)
class StackView:
    """A stack of 2D planes inside an n-dimensional array.

    Attributes
    ----------
    shape : tuple of int
        Of the array, without colour channels.
    plane : (axis, axis)
        Array axes of the planes, ascending, whatever way round they are displayed.
    axis : int or None
        Array axis along which masks are propagated; None when the array is one plane.
    fixed : tuple of (axis, index)
        The other axes and where the stack lies on them.
    """

    shape: tuple[int, ...]
    plane: tuple[int, int]
    axis: int | None
    fixed: tuple[tuple[int, int], ...] = ()

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """(N, H, W) of the stack."""
        count = 1 if self.axis is None else self.shape[self.axis]
        return count, self.shape[self.plane[0]], self.shape[self.plane[1]]

    @property
    def orientation(self) -> str:
        """Name that tells prompts on these planes from prompts on planes cut another way, "0:1,2"."""
        return f"{self.axis}:{self.plane[0]},{self.plane[1]}"

    def index(self, frame: int) -> tuple[int | slice, ...]:
        """Return the index of one plane in the array."""
        index: list[int | slice] = [slice(None)] * len(self.shape)
        for axis, position in self.fixed:
            index[axis] = position
        if self.axis is not None:
            index[self.axis] = frame
        return tuple(index)

    def locate(self, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find positions of the array in the stack.

        Parameters
        ----------
        coords : (N, ndim) positions in the array

        Returns
        -------
        frames : (N,) int64
        points : (N, 2) positions (y, x) in the plane
        here : (N,) bool
            Whether the position lies in this stack, inside or beside its planes.
        """
        steps = np.floor(coords + 0.5).astype(np.int64)
        here = np.ones(len(coords), dtype=bool)
        for axis, position in self.fixed:
            here &= steps[:, axis] == position
        frames = np.zeros(len(coords), dtype=np.int64) if self.axis is None else steps[:, self.axis]
        here &= (frames >= 0) & (frames < self.stack_shape[0])
        return frames, coords[:, self.plane], here

    def place(self, frame: int, points: np.ndarray) -> np.ndarray:
        """Return positions in the array, (N, ndim), of points (N, 2) on a plane: the way back from `locate`."""
        coords = np.zeros((len(points), len(self.shape)))
        for axis, position in self.fixed:
            coords[:, axis] = position
        if self.axis is not None:
            coords[:, self.axis] = frame
        coords[:, self.plane] = points
        return coords

    def expand(self, plane: np.ndarray) -> np.ndarray:
        """Give a plane the full number of dimensions, one long along all other axes."""
        return np.expand_dims(plane, [a for a in range(len(self.shape)) if a not in self.plane])


def propagation_axes(shape: Sequence[int], plane: Sequence[int]) -> list[int]:
    """List the axes along which masks can be propagated when the axes `plane` are displayed."""
    others = [axis for axis in range(len(shape)) if axis not in plane]
    return [axis for axis in others if shape[axis] > 1] or others[-1:]


def resolve_view(
    shape: Sequence[int], displayed: Sequence[int], position: Sequence[float], axis: int | None = None
) -> StackView:
    """Turn what is displayed and the axis chosen into a stack.

    Parameters
    ----------
    shape : sizes of the array without colour channels
    displayed : array axes on the canvas, in any order
    position : where the other axes stand, in array indices
    axis : int, optional
        Axis of propagation; needed when there are several.

    Raises
    ------
    UnsupportedError
        3D display, a displayed axis the array does not have, or several axes and none chosen.
    """
    if len(displayed) != 2:
        raise UnsupportedError("Prompts need the 2D view: switch off 3D display (the cube button) first.")
    if min(displayed) < 0:
        raise UnsupportedError("The image does not extend along both displayed axes; roll the axes back first.")
    plane = (min(displayed), max(displayed))
    axes = propagation_axes(shape, plane)
    if axis is None and len(axes) > 1:
        raise UnsupportedError(
            f"This image has {len(axes)} axes besides the displayed plane; choose the one to propagate along."
        )
    chosen = axis if axis in axes else (axes[0] if axes else None)
    fixed = tuple(
        (other, int(np.clip(np.floor(position[other] + 0.5), 0, shape[other] - 1)))
        for other in range(len(shape))
        if other not in plane and other != chosen
    )
    return StackView(tuple(int(n) for n in shape), plane, chosen, fixed)


class PlaneStack:
    """The planes of a view as an (N, H, W[, C]) array-like, read one by one.

    Parameters
    ----------
    array : array-like
        NumPy, dask, zarr; colour channels last.
    view : StackView
    """

    def __init__(self, array: Any, view: StackView) -> None:
        self.array, self.view = array, view
        self.shape = (*view.stack_shape, *array.shape[len(view.shape) :])
        self.dtype = np.dtype(array.dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        frame, *parts = key if isinstance(key, tuple) else (key,)
        index = list(self.view.index(int(frame)))
        for axis, part in zip(self.view.plane, parts, strict=False):
            index[axis] = part
        return np.asarray(self.array[(*index, *parts[2:])])
