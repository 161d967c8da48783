"""Axes by name."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

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
        ((9, 80, 70), "zyx", "z", {"z": 0, "y": 1}, "leave no plane"),
        ((9, 80, 70), "zyx", 3, {}, "Axis 3"),
        ((9, 80, 70), "zyz", "z", {}, "do not name"),
    ],
)
def test_what_does_not_fit_is_said(shape, axes, axis, index, words) -> None:
    with pytest.raises(InvalidImageError, match=words):
        choose_planes(shape, axes, axis, index)


@pytest.mark.parametrize("shape", [(), (7,)])
def test_less_than_a_plane_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImageError, match="at least two dimensions"):
        guess_axes(shape)


@pytest.mark.parametrize(
    ("shape", "axes", "axis", "frame", "fixed"),
    [
        ((1, 1, 9, 80, 70), "tczyx", 0, 2, {0: 0, 1: 0}),
        ((6, 1, 1, 80, 70), "tczyx", 0, 0, {1: 0, 2: 0}),
        ((1, 9, 80, 70), "tzyx", "t", None, None),
        ((1, 1, 1, 80, 70), "tczyx", 0, None, {0: 0, 1: 0, 2: 0}),
        ((1, 80, 70), "zyx", 0, 0, {}),
        ((9, 80, 70, 1), "zyxc", 0, 0, {3: 0}),
    ],
)
def test_axes_of_length_one_need_no_position(shape, axes, axis, frame, fixed) -> None:
    if fixed is None:
        with pytest.raises(InvalidImageError, match='position on "z"'):
            choose_planes(shape, axes, axis)
        return
    planes = choose_planes(shape, axes, axis)
    assert (planes.frame, planes.fixed) == (frame, fixed) and planes.channels is None


@given(st.permutations("tczyx"), st.integers(2, 5), st.data())
def test_every_axis_has_one_role(letters: list[str], count: int, data: st.DataObject) -> None:
    axes = "".join(letters[:count])
    stacking = [name for name in axes if name != "c"]
    assume(len(stacking) >= 3)
    axis = data.draw(st.sampled_from(stacking))
    index = {name: 1 for name in stacking if name != axis}
    for name in data.draw(st.permutations(sorted(index)))[:2]:
        del index[name]
    planes = choose_planes((4,) * count, axes, axis, index)
    roles = [planes.frame, planes.rows, planes.columns, *planes.fixed]
    roles += [] if planes.channels is None else [planes.channels]
    assert sorted(roles) == list(range(count)) and planes.rows < planes.columns
    assert axes[planes.frame] == axis and planes.fixed == {axes.index(name): 1 for name in index}
