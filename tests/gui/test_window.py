"""The real window on a screen: mouse on the canvas and the buttons, keys, and a picture of it all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from scipy import ndimage

from tests.fakes import disc

SHAPE = (7, 120, 160)
#: Centres of three bright objects on every plane.
CENTRES = [(40, 50), (80, 70), (60, 120)]


@pytest.fixture
def image() -> np.ndarray:
    plane = np.zeros(SHAPE[1:], np.float32)
    for centre in CENTRES:
        plane[disc(plane.shape, centre, 9)] = 200
    noise = np.random.default_rng(0).normal(40, 6, SHAPE)
    return (ndimage.gaussian_filter(plane, 1.5)[None] + noise).astype(np.float32)


def on_canvas(viewer: Any, y: float, x: float) -> QPoint:
    """Where the pixel (y, x) of the image lies on the canvas widget."""
    canvas = viewer.window._qt_viewer.canvas
    layer = viewer.layers["image"]
    first, second = viewer.dims.displayed
    coords = np.zeros(layer.ndim)
    coords[-2:] = y, x
    world = np.asarray(layer.data_to_world(coords))
    mapped = canvas.view.scene.transform.map([world[second], world[first]])[:2]
    return QPoint(round(float(mapped[0])), round(float(mapped[1])))


def canvas_widget(viewer: Any) -> Any:
    return viewer.window._qt_viewer.canvas.native


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=["as stored", "transposed"])
def test_main_job_with_the_mouse(open_bench: Any, qtbot: Any, tmp_path: Path, image: np.ndarray, order: tuple) -> None:
    bench = open_bench(image, show=True, scale=(4, 0.5, 0.5), translate=(0, 10, -30))
    viewer, controls = bench.viewer, bench.widget
    viewer.window.resize(1400, 900)
    viewer.dims.order = order
    viewer.reset_view()
    viewer.dims.set_current_step(0, 3)
    qtbot.wait(200)
    native = canvas_widget(viewer)
    left = Qt.MouseButton.LeftButton

    qtbot.mouseClick(controls.prompts.points, left)
    bench.settle()
    before = viewer.screenshot(flash=False)
    for centre in CENTRES[:2]:
        qtbot.mouseMove(native, on_canvas(viewer, *centre))
        qtbot.mouseClick(native, left, pos=on_canvas(viewer, *centre))
        bench.settle()
        y, x = np.array(ndimage.center_of_mass(bench.preview() == bench.controller.object_id))
        assert np.hypot(y - centre[0], x - centre[1]) < 1, "the preview is where the mouse was"
        qtbot.keyClick(native, Qt.Key.Key_J)
        bench.settle()
    assert set(np.unique(bench.output[3])) == {0, 1, 2}

    qtbot.mouseClick(controls.prompts.boxes, left)
    y, x = CENTRES[2]
    start, end = on_canvas(viewer, y - 10, x - 10), on_canvas(viewer, y + 10, x + 10)
    qtbot.mousePress(native, left, pos=start)
    for point in ((start + end) / 2, end, end):
        qtbot.mouseMove(native, point)
        # Moves that follow one another at once are merged.
        qtbot.wait(30)
    qtbot.mouseRelease(native, left, pos=end)
    bench.settle()
    found = np.argwhere(bench.preview() == 3)
    np.testing.assert_allclose(found.min(axis=0), (y - 10, x - 10), atol=1)
    np.testing.assert_allclose(found.max(axis=0), (y + 10, x + 10), atol=1)

    with qtbot.waitSignal(bench.controller.propagation.running_changed, timeout=10_000):
        qtbot.mouseClick(controls.propagate.run, left)
    bench.settle()
    for plane in bench.output:
        assert set(np.unique(plane)) == {0, 1, 2, 3}
        np.testing.assert_array_equal(plane, bench.output[3])

    viewer.dims.set_current_step(0, 5)
    qtbot.wait(100)
    picture = viewer.screenshot(flash=False)
    assert picture.shape == before.shape
    seen = [on_canvas(viewer, *centre) for centre in CENTRES]
    ratio = picture.shape[1] / native.width()
    for point in seen:
        row, column = round(point.y() * ratio), round(point.x() * ratio)
        assert np.ptp(picture[row, column, :3].astype(int)) > 30, "the labels are seen in colour on the canvas"
    folder = Path(os.environ.get("SEGANY_SCREENSHOTS", tmp_path))
    viewer.screenshot(str(folder / f"window_{order[1]}{order[2]}.png"), canvas_only=False, flash=False)


def drag(bench: Any, *places: tuple[float, float]) -> None:
    """Press the mouse at the first place on the image, move over the others, and let go at the last."""
    qtbot, native, left = bench.qtbot, canvas_widget(bench.viewer), Qt.MouseButton.LeftButton
    first, *further = (on_canvas(bench.viewer, *place) for place in places)
    qtbot.mouseMove(native, first)
    qtbot.mousePress(native, left, pos=first)
    for point in (*further, further[-1]):
        qtbot.mouseMove(native, point)
        # Moves that follow one another at once are merged.
        qtbot.wait(15)
    qtbot.mouseRelease(native, left, pos=further[-1])
    bench.settle()


def test_every_tool_with_the_mouse(open_bench: Any, qtbot: Any, image: np.ndarray) -> None:
    bench = open_bench(image, show=True, scale=(4, 0.5, 0.5))
    viewer, prompts = bench.viewer, bench.widget.prompts
    viewer.window.resize(1400, 900)
    viewer.dims.set_current_step(0, 3)
    qtbot.wait(200)
    native, left = canvas_widget(viewer), Qt.MouseButton.LeftButton

    qtbot.mouseClick(prompts.lasso, left)
    bench.settle()
    y, x = CENTRES[0]
    around = [(y + 9 * np.sin(t), x + 9 * np.cos(t)) for t in np.linspace(0, 6, 40)]
    drag(bench, *around)
    found = bench.preview() == 1
    assert np.count_nonzero(found ^ disc(found.shape, (y, x), 9)) < 0.15 * found.sum(), "the lasso is a mask prompt"
    qtbot.keyClick(native, Qt.Key.Key_J)
    bench.settle()

    qtbot.mouseClick(prompts.scribble, left)
    y, x = CENTRES[1]
    drag(bench, *((y, x + dx) for dx in np.linspace(-8, 8, 17)))
    found = bench.preview() == 2
    assert found[y, x - 6] and found[y, x + 6] and not found[y + 8, x]

    qtbot.mouseClick(prompts.brush, left)
    viewer.layers["Preview"].brush_size = 3
    drag(bench, (y + 10, x), (y + 14, x))
    qtbot.keyClick(native, Qt.Key.Key_J)
    bench.settle()
    assert bench.output[3, y + 12, x] == 2, "the brush is respected"

    prompts.one_each.setChecked(True)
    qtbot.mouseClick(prompts.boxes, left)
    for y, x in ((15, 15), (15, 45), (15, 75)):
        drag(bench, (y - 6, x - 6), (y, x), (y + 6, x + 6))
    assert set(np.unique(bench.preview())) == {0, 3, 4, 5}

    # Move the first box down with the select tool: its mask follows.
    shapes = viewer.layers["Shapes"]
    shapes.mode = "select"
    qtbot.wait(50)
    before = np.argwhere(bench.preview() == 3)
    qtbot.mouseClick(native, left, pos=on_canvas(viewer, 15, 13))
    drag(bench, (15, 13), (20, 13), (25, 13))
    moved = np.argwhere(bench.preview() == 3)
    np.testing.assert_allclose(moved.mean(axis=0) - before.mean(axis=0), (10, 0), atol=1.5)

    shapes.mode = "add_rectangle"
    assert shapes.feature_defaults["object_id"].iloc[0] == 6, "not that of the box that was selected"

    qtbot.keyClick(native, Qt.Key.Key_J, Qt.KeyboardModifier.ShiftModifier)
    bench.settle()
    assert set(np.unique(bench.output[3])) == {0, 1, 2, 3, 4, 5}
    qtbot.keyClick(native, Qt.Key.Key_U)
    bench.settle()
    assert set(np.unique(bench.output[3])) < {0, 1, 2, 3, 4, 5}
    qtbot.keyClick(native, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    bench.settle()
    assert set(np.unique(bench.output[3])) == {0, 1, 2, 3, 4, 5}
