"""Axes by name."""

import pytest

from napari_segany.core.axes import choose_planes, guess_axes
from napari_segany.core.errors import InvalidImageError


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((9, 8), "yx"), ((9, 80, 70), "zyx"), ((90, 80, 3), "yxc"), ((9, 80, 70, 3), "zyxc"), ((9, 80, 70, 2), "zyxc")],
)
def test_guesses(shape: tuple[int, ...], axes: str) -> None:
    assert guess_axes(shape) == axes


def test_four_dimensions_need_names() -> None:
    with pytest.raises(InvalidImageError, match="name its axes"):
        guess_axes((5, 9, 80, 70))


@pytest.mark.parametrize(
    ("axis", "frame", "plane"), [("z", 1, (2, 3)), ("y", 2, (1, 3)), (3, 3, (1, 2)), (-3, 1, (2, 3))]
)
def test_any_axis_can_be_propagated_along(axis: int | str, frame: int, plane: tuple[int, int]) -> None:
    planes = choose_planes((5, 9, 80, 70), "tzyx", axis, {"t": 2})
    assert (planes.frame, (planes.rows, planes.columns), planes.fixed) == (frame, plane, {0: 2})


@pytest.mark.parametrize(
    ("shape", "axes", "axis", "index", "words"),
    [
        ((5, 9, 80, 70), "tzyx", "t", {}, 'position on "z"'),
        ((5, 9, 80, 70), "tzyx", "q", {"t": 0}, 'no axis "q"'),
        ((5, 9, 80, 70), "tzyx", "z", {"t": 5}, "Position 5"),
        ((5, 9, 80, 70), "tzyx", "t", {"t": 0}, "cannot be propagated"),
        ((5, 9, 80), "tzyx", "z", {}, "do not name"),
        ((5, 0, 80), "zyx", "z", {}, "empty"),
        ((9, 80, 70, 7), "zyxc", "z", {}, "7 channels"),
    ],
)
def test_what_does_not_fit_is_said(shape, axes, axis, index, words) -> None:
    with pytest.raises(InvalidImageError, match=words):
        choose_planes(shape, axes, axis, index)
