"""Axes of an array by name: which one is propagated along, which ones make a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from napari_segany.core.errors import InvalidImageError

#: Most channels a plane may have.
MAX_CHANNELS = 4


@dataclass(frozen=True)
class PlaneAxes:
    """How planes are cut out of an array.

    Attributes
    ----------
    axes : str
        One letter for each axis of the array, such as "tzyx".
    frame : int or None
        Axis along which masks are propagated; None when the array is one plane.
    rows, columns : int
    channels : int or None
    fixed : dict of axis -> position on it
    """

    axes: str
    frame: int | None
    rows: int
    columns: int
    channels: int | None
    fixed: dict[int, int]


def guess_axes(shape: Sequence[int]) -> str:
    """Name the axes of an array that does not tell: "yx", "yxc", "zyx" or "zyxc".

    Raises
    ------
    InvalidImageError
        Another number of dimensions: the person must name the axes.
    """
    if len(shape) < 2:
        raise InvalidImageError(f"An image needs at least two dimensions, got the shape {tuple(shape)}.")
    colour = len(shape) >= 3 and shape[-1] in (3, 4) and min(shape[-3:-1]) > MAX_CHANNELS
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3:
        return "yxc" if colour else "zyx"
    if len(shape) == 4 and (colour or shape[-1] <= 2):
        return "zyxc"
    raise InvalidImageError(
        f"An array of {len(shape)} dimensions and shape {tuple(shape)} can be cut into planes in several ways: "
        'name its axes, for example axes="tzyx", choose the one to propagate along, axis="z", and give the '
        'position on the others, index={"t": 0}.'
    )


def choose_planes(
    shape: Sequence[int], axes: str, axis: int | str = 0, index: Mapping[str, int] | None = None
) -> PlaneAxes:
    """Decide how to cut planes out of an array.

    Parameters
    ----------
    shape : shape of the array
    axes : one letter per axis; "c" is the channel axis, the last two others are rows and columns
    axis : propagation axis by name, or by position in the array
    index : axis name -> position, for every further axis longer than 1

    Raises
    ------
    InvalidImageError
        An empty array, names that do not fit, an unknown axis, or a further
        axis without a position.
    """
    axes, fixed_names = axes.lower(), {name.lower(): at for name, at in (index or {}).items()}
    if len(axes) != len(shape) or len(set(axes)) != len(axes):
        raise InvalidImageError(
            f'The axes "{axes}" do not name each of the {len(shape)} dimensions {tuple(shape)} once.'
        )
    if 0 in shape:
        raise InvalidImageError(f"The array is empty: its shape is {tuple(shape)}.")
    for name, at in fixed_names.items():
        if name not in axes:
            raise InvalidImageError(f'There is no axis "{name}" in "{axes}".')
        if not 0 <= at < shape[axes.index(name)]:
            raise InvalidImageError(f'Position {at} is not on axis "{name}" of length {shape[axes.index(name)]}.')
    fixed = {axes.index(name): at for name, at in fixed_names.items()}
    channels = axes.index("c") if "c" in axes and "c" not in fixed_names else None
    if channels is not None and shape[channels] > MAX_CHANNELS:
        raise InvalidImageError(
            f'The image has {shape[channels]} channels; choose one of them, for example index={{"c": 0}}.'
        )
    if channels is not None and shape[channels] == 1:
        fixed[channels], channels = 0, None
    free = [i for i in range(len(axes)) if i != channels and i not in fixed]
    if len(free) < 2:
        raise InvalidImageError(
            f'The axes "{axes}" with the positions {fixed_names} leave no plane of rows and columns.'
        )
    named = axis.lower() if isinstance(axis, str) else ""
    # Microscopes write five axes, "tczyx", whether or not there is more than one time: length 1 needs no position.
    single = [i for i in free[:-2] if shape[i] == 1 and axes[i] != named] if len(free) > 3 else []
    fixed |= dict.fromkeys(single, 0)
    free = [i for i in free if i not in single]
    if len(free) == 2:
        return PlaneAxes(axes, None, free[0], free[1], channels, fixed)
    frame = _frame_axis(axes, axis)
    if frame in single and len(free) == 3:
        frame = free[0]
    if frame not in free:
        raise InvalidImageError(f'Axis "{axes[frame]}" cannot be propagated along: it is fixed or holds channels.')
    plane = [i for i in free if i != frame]
    if len(plane) != 2:
        # With several stacking axes, all but the chosen one need a position.
        extra = "".join(axes[i] for i in plane[:-2])
        raise InvalidImageError(
            f'An array with the axes "{axes}" needs a position on "{extra}" to be one stack along "{axes[frame]}": '
            f'pass index={{"{extra[:1]}": 0}}, or choose another axis.'
        )
    return PlaneAxes(axes, frame, plane[0], plane[1], channels, fixed)


def _frame_axis(axes: str, axis: int | str) -> int:
    if isinstance(axis, str):
        if axis.lower() not in axes:
            raise InvalidImageError(f'There is no axis "{axis}" in "{axes}".')
        return axes.index(axis.lower())
    if not -len(axes) <= axis < len(axes):
        raise InvalidImageError(f'Axis {axis} is not one of the {len(axes)} axes "{axes}".')
    return axis % len(axes)
