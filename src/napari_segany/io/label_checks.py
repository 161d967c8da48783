"""What may be written into labels: whole frames of integers that the dtype can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidLabelsError


def check_label_dtype(dtype: Any) -> np.dtype:
    """Return an integer dtype, or say that labels need one."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu":
        raise InvalidLabelsError(f"Labels must be integers, got dtype {dtype}; convert them, for example to int32.")
    return dtype


def check_fit(labels: Any, dtype: np.dtype) -> None:
    """Refuse ids that an integer dtype would wrap around or cut.

    Raises
    ------
    InvalidLabelsError
    """
    labels = np.asarray(labels)
    if labels.dtype != bool:
        check_label_dtype(labels.dtype)
    if labels.size and not np.can_cast(labels.dtype, dtype):
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < np.iinfo(dtype).min or highest > np.iinfo(dtype).max:
            worst = lowest if lowest < np.iinfo(dtype).min else highest
            raise InvalidLabelsError(f"Object id {worst} does not fit into labels of dtype {dtype}; use a wider dtype.")


def check_frame(frame: int, labels: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse to write a frame that does not fit a label stack.

    Raises
    ------
    InvalidLabelsError
        No such frame, another shape, or ids that `dtype` cannot hold.
    """
    if not 0 <= frame < shape[0]:
        raise InvalidLabelsError(f"Frame {frame} is not in these labels of {shape[0]} frames.")
    if np.shape(labels) != shape[1:]:
        raise InvalidLabelsError(f"A frame of these labels has the shape {shape[1:]}, got {np.shape(labels)}.")
    check_fit(labels, dtype)
