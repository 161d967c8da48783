"""Points and boxes become masks, on every kind of layer and from every side."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import dask.array
import numpy as np
import pytest
from qtpy.QtCore import QTimer

from tests.fakes import RADIUS, disc


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


@dataclass
class Case:
    """An image, how it is looked at, and where one plane of it is clicked."""

    shape: tuple[int, ...]
    plane: tuple[int, int] = (-2, -1)
    order: tuple[int, ...] | None = None
    axis: int | None = None
    at: dict[int, int] = field(default_factory=dict)
    add: dict[str, Any] = field(default_factory=dict)
    rgb: bool = False
    multiscale: bool = False
    dask: bool = False


CASES = {
    "2d": Case((40, 60)),
    "rgb": Case((40, 60, 3), rgb=True),
    "rgb stack": Case((5, 40, 60, 3), at={0: 2}, rgb=True),
    "3d": Case((5, 40, 60), at={0: 3}),
    "anisotropic": Case((5, 40, 60), at={0: 3}, add={"scale": (4, 0.5, 0.25), "translate": (100, -20, 7)}),
    "flipped": Case((5, 40, 60), at={0: 1}, add={"scale": (2, -1, 1)}),
    "rolled": Case((30, 40, 60), plane=(0, 1), order=(2, 0, 1), at={2: 41}),
    "side, scaled": Case((30, 40, 60), plane=(0, 2), order=(1, 0, 2), at={1: 17}, add={"scale": (3, 1, 1)}),
    "transposed": Case((5, 40, 60), order=(0, 2, 1), at={0: 2}),
    "tzyx along z": Case((3, 5, 40, 60), axis=1, at={0: 2, 1: 3}),
    "tzyx along t": Case((3, 5, 40, 60), axis=0, at={0: 2, 1: 3}, add={"axis_labels": ("t", "z", "y", "x")}),
    "multiscale": Case((5, 40, 60), at={0: 2}, multiscale=True),
    "dask": Case((5, 40, 60), at={0: 2}, dask=True),
    "one long axis": Case((1, 5, 40, 60), at={1: 3}),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def open_case(open_bench: Any, case: Case) -> Any:
    image: Any = noise(*case.shape)
    if case.multiscale:
        image = [image, image[:, ::2, ::2]]
    if case.dask:
        image = dask.array.from_array(image, chunks=(1, 20, 20))
    bench = open_bench(image, rgb=case.rgb, **case.add)
    if case.order:
        bench.viewer.dims.order = case.order
    for axis, step in case.at.items():
        bench.viewer.dims.set_current_step(axis, step)
    if case.axis is not None:
        choice = bench.widget.images.axis
        choice.setCurrentIndex(choice.findData(case.axis))
    bench.press("points")
    bench.settle()
    return bench


def coords(case: Case, y: float, x: float) -> list[float]:
    """Data coordinates of a place in the case's plane."""
    full = [0.0] * (len(case.shape) - case.rgb)
    for axis, step in case.at.items():
        full[axis] = step
    full[case.plane[0]], full[case.plane[1]] = y, x
    return full


def plane(case: Case, array: np.ndarray) -> np.ndarray:
    """The case's plane of an array."""
    index: list[Any] = [slice(None)] * array.ndim
    for axis, step in case.at.items():
        index[axis] = step
    return np.squeeze(array[tuple(index)])


def test_click_and_accept(open_bench: Any, case: Case) -> None:
    bench = open_case(open_bench, case)
    bench.click(*coords(case, 20, 25))
    preview = bench.preview()
    expected = disc(preview.shape, (20, 25), RADIUS)
    np.testing.assert_array_equal(preview, expected)
    shown = bench.controller.preview.layer
    np.testing.assert_allclose(
        shown.data_to_world(np.zeros(shown.ndim)), bench.viewer.layers["image"].data_to_world(coords(case, 0, 0))
    )
    bench.press("accept")
    bench.settle()
    np.testing.assert_array_equal(plane(case, bench.output), expected)
    assert bench.output.sum() == expected.sum(), "other planes were written"
    assert bench.widget.prompts.object_id.value() == 2
    assert not bench.preview().any()


def test_box(open_bench: Any, case: Case) -> None:
    bench = open_case(open_bench, case)
    bench.press("boxes")
    bench.box(*(coords(case, y, x) for y, x in [(9.5, 4.5), (9.5, 14.5), (19.5, 14.5), (19.5, 4.5)]))
    found = np.argwhere(bench.preview())
    assert found.min(axis=0).tolist() == [10, 5]
    assert found.max(axis=0).tolist() == [19, 14]
    assert len(found) == 100


def test_propagate_fills_the_stack(open_bench: Any, case: Case) -> None:
    bench = open_case(open_bench, case)
    bench.click(*coords(case, 20, 25))
    axis = case.axis if case.axis is not None else next(iter(case.at), None)
    assert bench.widget.propagate.run.isEnabled() == (axis is not None), "a single plane leads nowhere"
    if axis is None:
        return
    bench.propagate()
    expected = disc(bench.preview().shape, (20, 25), RADIUS)
    others = {other: step for other, step in case.at.items() if other != axis}
    written = np.moveaxis(bench.output, [axis, *others], range(len(case.at)))
    planes = np.squeeze(written[(slice(None), *others.values())])
    assert planes.shape[0] == case.shape[axis]
    for one in planes:
        np.testing.assert_array_equal(one, expected)
    assert bench.output.sum() == expected.sum() * len(planes)


def test_negative_point_moved_and_deleted(open_bench: Any) -> None:
    bench = open_bench(noise(40, 60))
    bench.press("points")
    bench.click(20, 25)
    bench.key("N")
    assert bench.widget.prompts.sign.isChecked()
    bench.click(20, 30)
    points = bench.controller.layers.points
    assert points.features["sign"].tolist() == ["positive", "negative"]
    assert not np.array_equal(points.face_color[0], points.face_color[1])
    first = disc((40, 60), (20, 25), RADIUS)
    np.testing.assert_array_equal(bench.preview(), first & ~disc((40, 60), (20, 30), RADIUS))
    points.data = np.array([[20, 25], [30, 50]])
    bench.settle()
    np.testing.assert_array_equal(bench.preview(), first)
    points.remove([0, 1])
    bench.settle()
    assert not bench.preview().any()
    assert not bench.controller.stacks.get(bench.controller.view()).session.prompts


def test_candidates_are_cycled_and_the_chosen_one_accepted(open_bench: Any) -> None:
    bench = open_bench(noise(40, 60))
    bench.press("points")
    bench.click(20, 25)
    assert bench.widget.prompts.answer.text() == "mask 1 of 3, predicted IoU 0.90"
    bench.key("H")
    assert "mask 2 of 3" in bench.widget.prompts.answer.text()
    bench.key("J")
    np.testing.assert_array_equal(bench.output, disc((40, 60), (20, 25), 2 * RADIUS))


@pytest.mark.parametrize(
    "add", [{}, {"scale": (3, 0.37, 0.41), "translate": (0.1, 7.7, -3.3)}], ids=["plain", "scaled"]
)
def test_undo_takes_back_each_step_and_the_layers_follow(open_bench: Any, add: dict[str, Any]) -> None:
    bench = open_bench(noise(5, 40, 60), **add)
    bench.press("points")
    bench.click(2, 20, 25)
    bench.click(2, 20, 40)
    bench.key("J")
    bench.propagate()
    assert bench.output.any(axis=(1, 2)).all()
    bench.key("U")
    assert bench.output.any(axis=(1, 2)).tolist() == [False, False, True, False, False]
    bench.key("U")
    assert not bench.output.any()
    assert bench.controller.object_id == 1
    two = bench.preview()
    bench.key("U")
    np.testing.assert_allclose(bench.controller.layers.points.data, [[2, 20, 25]])
    np.testing.assert_array_equal(bench.preview(), disc((40, 60), (20, 25), RADIUS))
    assert bench.preview().sum() < two.sum()
    bench.key("U")
    assert len(bench.controller.layers.points.data) == 0
    assert not bench.preview().any()
    bench.key("U")
    bench.click(2, 20, 25)
    np.testing.assert_array_equal(bench.preview(), disc((40, 60), (20, 25), RADIUS))


def test_undone_box_comes_back_and_is_read_the_same(open_bench: Any) -> None:
    bench = open_bench(noise(40, 60))
    bench.press("boxes")
    bench.box((9.5, 4.5), (9.5, 14.5), (19.5, 14.5), (19.5, 4.5))
    first = bench.preview()
    bench.box((0, 0), (0, 30), (30, 30), (30, 0))
    assert len(bench.controller.layers.shapes.data) == 1, "the later box replaces the earlier one"
    bench.key("U")
    np.testing.assert_array_equal(bench.preview(), first)
    corners = [(9.5, 4.5), (9.5, 14.5), (19.5, 14.5), (19.5, 4.5)]
    np.testing.assert_allclose(bench.controller.layers.shapes.data[0], corners)


def test_several_objects_are_prompted_then_propagated_together(open_bench: Any) -> None:
    bench = open_bench(noise(5, 40, 60))
    bench.press("points")
    bench.click(2, 20, 12)
    bench.key("K")
    bench.click(2, 20, 45)
    assert set(np.unique(bench.preview())) == {0, 1, 2}
    points = bench.controller.layers.points
    assert points.shown.tolist() == [True, True]
    for colour, object_id in zip(points.border_color, (1, 2), strict=True):
        np.testing.assert_allclose(colour, bench.controller.preview.layer.get_color(object_id))
    bench.propagate()
    for one in bench.output:
        assert set(np.unique(one)) == {0, 1, 2}


def test_range_direction_and_only_this_object(open_bench: Any) -> None:
    bench = open_bench(noise(100, 20, 40))
    controls = bench.widget.propagate
    assert (controls.first.value(), controls.last.value()) == (0, 99)
    bench.viewer.dims.set_current_step(0, 50)
    bench.press("points")
    bench.click(50, 10, 10)
    bench.key("K")
    bench.click(50, 10, 30)
    # What a person paints with napari's own brush is theirs, on the planes of the run and on others.
    theirs = bench.controller.output.layer
    theirs.brush_size = 1
    for frame in (10, 51):
        theirs.paint((frame, 1, 1), 9)
    controls.first.setValue(48)
    controls.last.setValue(52)
    controls.direction.setCurrentText("forward")
    controls.only_current.setChecked(True)
    bench.propagate()
    assert np.flatnonzero((bench.output == 2).any(axis=(1, 2))).tolist() == [50, 51, 52]
    assert np.argwhere(bench.output == 9).tolist() == [[10, 1, 1], [51, 1, 1]]
    assert set(np.unique(bench.output)) == {0, 2, 9}
    bench.viewer.dims.ndisplay = 3
    bench.viewer.dims.ndisplay = 2
    assert controls.last.value() == 52, "the chosen range is kept"


def test_channels_are_layers_of_their_own(open_bench: Any, model: Any) -> None:
    bench, data = open_bench(), noise(2, 5, 40, 60)
    walls = bench.viewer.add_image(data, channel_axis=0, name=["nuclei", "walls"])[1]
    bench.viewer.add_points(np.zeros((1, 3)))
    choice = bench.widget.images.image
    assert [choice.itemText(i) for i in range(choice.count())] == ["nuclei", "walls"], "and nothing but images"
    choice.choose(walls)
    bench.viewer.dims.set_current_step(0, 3)
    bench.press("points")
    bench.settle()
    bench.click(3, 20, 25)
    bench.key("J")
    np.testing.assert_array_equal(model.embedded[-1], data[1, 3])
    np.testing.assert_array_equal(bench.output[3], disc((40, 60), (20, 25), RADIUS))
    # The other channel, into the same labels.
    choice.choose(bench.viewer.layers["nuclei"])
    bench.widget.images.output.choose(bench.viewer.layers["Segmentation"])
    bench.press("points")
    bench.settle()
    bench.click(3, 20, 45)
    bench.key("J")
    np.testing.assert_array_equal(model.embedded[-1], data[0, 3])
    assert set(np.unique(bench.viewer.layers["Segmentation"].data[3])) == {0, 1, 2}


def test_other_orientation_keeps_its_own_prompts(open_bench: Any) -> None:
    bench = open_bench(noise(30, 40, 60))
    bench.viewer.dims.set_current_step(0, 15)
    bench.press("points")
    bench.click(15, 20, 25)
    bench.viewer.dims.order = (1, 0, 2)
    bench.viewer.dims.set_current_step(1, 20)
    bench.press("points")
    bench.settle()
    assert not bench.preview().any(), "a point of the other planes is no prompt here"
    bench.key("K")
    bench.click(15, 20, 25)
    np.testing.assert_array_equal(bench.preview() > 0, disc((30, 60), (15, 25), RADIUS))
    bench.viewer.dims.order = (0, 1, 2)
    bench.settle()
    np.testing.assert_array_equal(bench.preview() == 1, disc((40, 60), (20, 25), RADIUS))


def test_existing_labels_are_kept_and_ids_go_on(open_bench: Any) -> None:
    bench = open_bench(noise(40, 60))
    mine = np.zeros((40, 60), dtype=np.uint16)
    mine[:25] = 7
    bench.viewer.add_labels(mine.copy(), name="mine")
    choice = bench.widget.images.output
    choice.choose(bench.viewer.layers["mine"])
    bench.press("points")
    bench.click(25, 25)
    bench.key("J")
    labels = bench.viewer.layers["mine"].data
    np.testing.assert_array_equal(labels[:25], 7)
    np.testing.assert_array_equal(labels[25:] == 8, disc((40, 60), (25, 25), RADIUS)[25:])
    assert "Segmentation" not in bench.viewer.layers


def test_other_model_answers_without_losing_prompts_or_labels(open_bench: Any) -> None:
    bench = open_bench(noise(40, 60))
    bench.press("points")
    bench.click(20, 12)
    bench.key("J")
    bench.click(20, 45)
    before = bench.output.copy()
    assert bench.widget.images.status.text() == "disc on auto, plane 0 is encoded"
    bench.widget.images.model.setCurrentText("other")
    bench.settle()
    np.testing.assert_array_equal(bench.output, before)
    assert bench.preview().any()
    assert bench.widget.images.status.text() == "other on auto, plane 0 is encoded"


def test_plane_is_encoded_once_and_ahead_of_the_click(open_bench: Any, model: Any, qtbot: Any) -> None:
    bench = open_bench(noise(5, 40, 60))
    bench.press("points")
    bench.settle()
    assert len(model.embedded) == 1
    bench.click(2, 20, 25)
    bench.click(2, 22, 25)
    assert len(model.embedded) == 1
    bench.viewer.dims.set_current_step(0, 4)
    qtbot.waitUntil(lambda: len(model.embedded) == 2)
    # The window answers while a plane is encoded, however long that takes.
    model.delay, ticks, timer = 1.0, [time.monotonic()], QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    timer.start(10)
    bench.viewer.dims.set_current_step(0, 0)
    qtbot.waitUntil(lambda: len(model.embedded) == 3, timeout=10_000)
    timer.stop()
    assert np.diff(ticks).max() < 0.9


def test_plane_below_a_stack(open_bench: Any) -> None:
    bench = open_bench(noise(40, 60))
    bench.viewer.add_image(noise(5, 40, 60), name="stack")
    assert bench.widget.images.image.layer.name == "image"
    bench.press("points")
    bench.click(20, 25)
    bench.key("J")
    np.testing.assert_array_equal(bench.output, disc((40, 60), (20, 25), RADIUS))
