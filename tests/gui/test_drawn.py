"""Outlines and strokes become masks and points, and back."""

from __future__ import annotations

import numpy as np
import pytest

from napari_segany.core.errors import InvalidPromptError
from napari_segany.gui.drawn import Drawn, Line, ellipse, fill, outlines
from tests.fakes import disc

SHAPE = (40, 60)
SQUARE = ((9.5, 4.5), (9.5, 14.5), (19.5, 14.5), (19.5, 4.5))


def test_outline_becomes_mask_and_its_box() -> None:
    found = Drawn(lines=(Line(SQUARE, True, True),)).arguments(SHAPE)
    assert found["box"] == (10, 5, 20, 15)
    assert np.argwhere(found["mask"]).min(axis=0).tolist() == [10, 5]
    assert found["mask"].sum() == 100
    assert found["points"] is None


def test_negative_outline_is_cut_out_or_becomes_a_point() -> None:
    hole = Line(((11.5, 6.5), (11.5, 9.5), (14.5, 9.5), (14.5, 6.5)), False, True)
    found = Drawn(lines=(Line(SQUARE, True, True), hole)).arguments(SHAPE)
    assert found["mask"].sum() == 91
    alone = Drawn(points=((20.0, 20.0),), labels=(1,), lines=(hole,)).arguments(SHAPE)
    assert alone["mask"] is None
    assert alone["points"] == [(20.0, 20.0), (13, 8)]
    assert alone["labels"] == [1, 0]


def test_box_drawn_wins_over_that_of_an_outline() -> None:
    assert Drawn(box=(0, 0, 30, 30), lines=(Line(SQUARE, True, True),)).arguments(SHAPE)["box"] == (0, 0, 30, 30)


def test_stroke_becomes_points_along_it() -> None:
    stroke = Line(((10.0, 10.0), (10.0, 30.0), (20.0, 30.0)), False, False)
    found = Drawn(lines=(stroke,)).arguments(SHAPE)
    assert found["labels"] == [0] * 7
    assert all(y == 10 or x == 30 for y, x in found["points"])
    lengths = [(x - 10) + (y - 10) for y, x in found["points"]]
    np.testing.assert_allclose(np.diff(lengths), 30 / 7)
    beside = Line(((10.0, 50.0), (10.0, 90.0)), True, False)
    assert all(x < 59.5 for _, x in Drawn(lines=(beside,)).arguments(SHAPE)["points"])


def test_outline_beside_the_plane_is_refused() -> None:
    with pytest.raises(InvalidPromptError, match="covers no pixel"):
        Drawn(lines=(Line(((50.0, 5.0), (50.0, 15.0), (55.0, 9.0)), True, True),)).arguments(SHAPE)


def test_outline_that_crosses_itself_is_filled_on_both_sides() -> None:
    tie = Line(((5.0, 5.0), (25.0, 45.0), (5.0, 45.0), (25.0, 5.0)), True, True)
    mask = Drawn(lines=(tie,)).arguments(SHAPE)["mask"]
    assert mask[15, 6] or mask[6, 25], "something is inside"
    assert mask.sum() < 20 * 40 and not mask[30:].any()


@pytest.mark.parametrize("kind", ["disc", "ring", "two parts", "at the edge"])
def test_outlines_of_a_mask_fill_it_again(kind: str) -> None:
    mask = disc(SHAPE, (20, 20), 12)
    if kind == "ring":
        mask &= ~disc(SHAPE, (20, 20), 5)
    elif kind == "two parts":
        mask |= disc(SHAPE, (20, 50), 6)
    elif kind == "at the edge":
        mask = disc(SHAPE, (0, 0), 12)
    lines = outlines(mask)
    again = Drawn(lines=lines).arguments(SHAPE)["mask"]
    assert np.count_nonzero(again != mask) <= 4
    assert sum(not line.inside for line in lines) == (kind == "ring")


def test_ellipse_fills_its_rectangle() -> None:
    area = fill([(y, x) for y, x in ellipse(np.array([(10, 10), (10, 30), (20, 30), (20, 10)]))], SHAPE)
    assert np.argwhere(area).min(axis=0).tolist() == [10, 10] or np.argwhere(area).min(axis=0).tolist() == [11, 11]
    assert abs(area.sum() - np.pi * 5 * 10) < 12
