"""Between the array of a labels layer and the labels (N, H, W) of a session."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_segany.gui.stack_view import PlaneStack, StackView


class PlaneLabels:
    """The planes of a view of an array, read and written one by one; implements `core.protocols.LabelStore`.

    Parameters
    ----------
    array : array-like
        NumPy, or anything else of whole numbers that can be written into.
    view : StackView
    """

    def __init__(self, array: Any, view: StackView) -> None:
        self._array, self._view = array, view

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return self._view.stack_shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the labels."""
        return np.dtype(self._array.dtype)

    def read(self, frame: int) -> np.ndarray:
        """Copy one frame, (H, W)."""
        return np.array(self._array[self._view.index(frame)])

    def write(self, frame: int, labels: np.ndarray) -> None:
        """Replace one frame."""
        self._array[self._view.index(frame)] = labels

    def array(self) -> PlaneStack:
        """The labels as one array-like (N, H, W)."""
        return PlaneStack(self._array, self._view)


class PlaneOnly:
    """The only plane of labels (1, H, W) as an array-like (H, W), to be shown and painted on.

    Parameters
    ----------
    stack : array-like
    """

    ndim = 2

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self.shape, self.dtype = tuple(stack.shape[1:]), stack.dtype
        self.size = self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self._stack[self._in_stack(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._stack[self._in_stack(index)] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._stack[0], dtype=dtype)

    @staticmethod
    def _in_stack(index: Any) -> tuple[Any, ...]:
        parts = index if isinstance(index, tuple) else (index,)
        # Lists of places, one for each axis, need one for the first axis too.
        fancy = bool(parts) and all(isinstance(part, np.ndarray) for part in parts)
        return (np.zeros_like(parts[0]) if fancy else 0, *parts)
