"""Runs along the stack that wait, stop and go on; where to look; rotated layers; labels beside the image on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers._source import layer_source
from qtpy.QtCore import QPoint, Qt

from tests.fakes import RADIUS, disc

SHAPE = (40, 60)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def prompted(open_bench: Any, count: int = 8, frame: int = 0, **add: Any) -> Any:
    bench = open_bench(noise(count, *SHAPE), **add)
    bench.viewer.dims.set_current_step(0, frame)
    bench.press("points")
    bench.click(frame, 20, 25)
    return bench


class Steps:
    """Lets a propagation write one plane after another."""

    def __init__(self, bench: Any, monkeypatch: Any) -> None:
        import threading

        self.bench, self.may = bench, threading.Semaphore(0)
        session = bench.controller.here()[0].session
        propagate = session.propagate

        def slow(*args: Any) -> Any:
            for visit in propagate(*args):
                yield visit
                assert self.may.acquire(timeout=20)

        monkeypatch.setattr(session, "propagate", slow)

    def wait_for(self, planes: int) -> None:
        self.bench.qtbot.waitUntil(lambda: int(self.bench.output.any(axis=(1, 2)).sum()) == planes)


def test_pause_and_go_on(open_bench: Any, monkeypatch: Any) -> None:
    bench = prompted(open_bench)
    steps, controls = Steps(bench, monkeypatch), bench.widget.propagate
    bench.press("run")
    steps.wait_for(1)
    bench.press("pause")
    assert bench.controller.propagation.paused and controls.pause.isChecked()
    for _ in range(8):
        steps.may.release()
    steps.wait_for(2)
    bench.qtbot.wait(150)
    assert bench.output.any(axis=(1, 2)).sum() == 2, "it waits after the plane that was in work"
    bench.viewer.dims.set_current_step(0, 3)
    bench.press("pause")
    bench.settle()
    assert bench.output.any(axis=(1, 2)).all()
    assert not controls.pause.isChecked() and not controls.pause.isEnabled()


def test_cancel_while_paused_then_resume(open_bench: Any, monkeypatch: Any, model: Any) -> None:
    bench = prompted(open_bench)
    steps = Steps(bench, monkeypatch)
    bench.press("run")
    steps.wait_for(1)
    steps.may.release()
    steps.wait_for(2)
    bench.press("pause")
    bench.press("cancel")
    for _ in range(20):
        steps.may.release()
    bench.settle()
    bench.qtbot.wait(100)
    # The cancel may come just before the third plane is begun.
    assert bench.output.any(axis=(1, 2)).sum() in (2, 3)
    before = len(model.embedded)
    bench.press("resume")
    bench.settle()
    assert bench.output.any(axis=(1, 2)).all()
    assert len(model.embedded) - before <= 6, "what was finished is not done again"


def test_resume_without_a_cancelled_run(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = prompted(open_bench)
    bench.press("resume")
    bench.settle()
    assert warnings_shown == ["There is no cancelled propagation to go on with here."]


def test_accepted_planes_stay_when_the_rest_is_updated(open_bench: Any) -> None:
    bench = prompted(open_bench, frame=2)
    bench.press("accept")
    bench.settle()
    bench.propagate()
    pinned = bench.output[2].copy()
    bench.viewer.dims.set_current_step(0, 5)
    bench.controller.output.layer.selected_label = 1
    bench.click(5, 20, 25)
    bench.click(5, 20, 33)
    bench.press("accept")
    bench.settle()
    bench.press("update_labels")
    bench.settle()
    wide = disc(SHAPE, (20, 25), RADIUS) | disc(SHAPE, (20, 33), RADIUS)
    np.testing.assert_array_equal(bench.output[5] == 1, wide)
    np.testing.assert_array_equal(bench.output[7] == 1, wide)
    np.testing.assert_array_equal(bench.output[2], pinned)


def test_jump_to_the_most_uncertain_plane(open_bench: Any) -> None:
    bench = prompted(open_bench, scale=(3, 0.5, 0.5), translate=(10, 0, 0))
    bench.propagate()
    bench.controller.here()[0].session.scores[1, 6] = 0.31
    bench.press("next_object")
    bench.key("W")
    assert bench.controller.here()[1] == (1, 6)


def test_timeline_shows_the_object_and_a_click_goes_there(open_bench: Any) -> None:
    bench = prompted(open_bench, frame=2)
    bench.press("accept")
    bench.settle()
    bench.propagate()
    bench.controller.set_object(1)
    bench.settle()
    timeline = bench.widget.propagate.timeline
    course = timeline.course
    area = int(disc(SHAPE, (20, 25), RADIUS).sum())
    assert course.count == 8
    assert course.areas == dict.fromkeys(range(8), area)
    assert course.scores[2] == pytest.approx(0.9) and set(course.scores) == set(range(8))
    assert (course.pinned, course.prompted) == ({2}, {2})
    x = round(timeline.position_of(6))
    bench.qtbot.mouseClick(timeline, Qt.MouseButton.LeftButton, pos=QPoint(x, 20))
    assert bench.viewer.dims.current_step[0] == 6
    bench.settle()
    assert timeline.frame == 6
    timeline.resize(300, 72)
    picture = timeline.grab().toImage()
    colours = {picture.pixelColor(xx, 70 - 8 - 6).name() for xx in range(0, 300, 3)}
    assert len(colours) > 2, "bars of accepted and other planes are seen"
    bench.key("U")
    bench.settle()
    assert timeline.course.areas == {2: area}


# -- transforms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("add", [{"rotate": 30}, {"shear": [0.4]}, {"affine": [[0, 1, 5], [-1, 0, 2], [0, 0, 1]]}])
def test_rotation_and_shear_in_the_plane(open_bench: Any, add: dict[str, Any]) -> None:
    bench = open_bench(noise(*SHAPE), **add)
    image = bench.viewer.layers["image"]
    bench.press("points")
    bench.settle()
    points, shown = bench.controller.layers.points, disc(SHAPE, (20, 25), RADIUS)
    points.add(points.world_to_data(image.data_to_world((20, 25))))
    bench.settle()
    np.testing.assert_array_equal(bench.preview(), shown)
    bench.key("J")
    np.testing.assert_array_equal(bench.output, shown)
    for layer in (bench.controller.preview.layer, bench.controller.output.layer):
        np.testing.assert_allclose(layer.data_to_world((3, 4)), image.data_to_world((3, 4)))


# -- on disk --------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """An OME-Zarr of four planes."""
    import zarr

    path = tmp_path / "image.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    array = root.create_array("0", shape=(4, *SHAPE), chunks=(1, *SHAPE), dtype=np.uint8, dimension_names=list("zyx"))
    array[:] = noise(4, *SHAPE)
    root.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": "image",
                "axes": [{"name": name, "type": "space"} for name in "zyx"],
                "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [3.0, 0.5, 0.5]}]}],
            }
        ],
    }
    return path


def open_stored(open_bench: Any, path: Path) -> Any:
    import zarr

    bench = open_bench()
    with layer_source(path=str(path)):
        bench.viewer.add_image(zarr.open_array(path / "0", mode="r"), name="image", scale=(3, 0.5, 0.5))
    bench.viewer.dims.set_current_step(0, 1)
    bench.press("points")
    bench.settle()
    return bench


def test_labels_lie_beside_an_ome_zarr_and_the_session_comes_back(open_bench: Any, stored: Path) -> None:
    import zarr

    bench = open_stored(open_bench, stored)
    bench.click(1, 20, 25)
    bench.key("J")
    bench.propagate()
    bench.click(1, 30, 45)
    on_disk = zarr.open_array(stored / "labels" / "segany" / "0", mode="r")
    one = disc(SHAPE, (20, 25), RADIUS)
    for plane in on_disk[:]:
        np.testing.assert_array_equal(plane == 1, one)
    assert bench.widget.images.status.text().endswith("everything is saved in image.ome.zarr")
    assert bench.widget.images.output.layer is bench.viewer.layers["Segmentation"]
    bench.viewer.window.remove_dock_widget(bench.widget)
    bench.viewer.layers.clear()

    again = open_stored(open_bench, stored)
    np.testing.assert_array_equal(np.asarray(again.output)[2] == 1, one)
    points = again.controller.layers.points
    np.testing.assert_allclose(points.data, [[1, 20, 25], [1, 30, 45]])
    assert points.features["object_id"].tolist() == [1, 2]
    np.testing.assert_array_equal(again.preview() == 2, disc(SHAPE, (30, 45), RADIUS))
    assert not (again.preview() == 1).any(), "object 1 is accepted"
    assert again.widget.prompts.object_id.value() == 3
    again.key("U")
    assert np.asarray(again.output).any(), "what was done before the restart stays"


def test_killed_window_loses_nothing(open_bench: Any, stored: Path) -> None:
    code = f"""
import os, sys
import numpy as np, napari
from napari.layers._source import layer_source
import zarr
from qtpy.QtWidgets import QApplication
from napari_segany import api
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.fakes import DiscModel
api.load_model = lambda *args, **kwargs: DiscModel()
from napari_segany.gui.widget import SegmentWidget
viewer = napari.Viewer(show=False)
path = {str(stored)!r}
with layer_source(path=path):
    viewer.add_image(zarr.open_array(path + "/0", mode="r"), name="image")
viewer.dims.set_current_step(0, 1)
widget = SegmentWidget(viewer)
viewer.window.add_dock_widget(widget)
controller = widget.controller
def settle():
    for _ in range(30):
        QApplication.processEvents(); __import__("time").sleep(0.01)
    while not controller.jobs.idle: QApplication.processEvents()
controller.use_tool("points"); settle()
controller.layers.points.add([1, 20, 25]); settle()
controller.masks.accept(); settle()
controller.layers.points.add([1, 30, 45]); settle()
print("done", flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "done" in done.stdout, done.stdout + done.stderr[-2000:]
    bench = open_stored(open_bench, stored)
    np.testing.assert_array_equal(np.asarray(bench.output)[1], disc(SHAPE, (20, 25), RADIUS))
    assert bench.controller.layers.points.features["object_id"].tolist() == [1, 2]
    np.testing.assert_array_equal(bench.preview() == 2, disc(SHAPE, (30, 45), RADIUS))


def test_file_that_is_open_in_another_window(open_bench: Any, stored: Path, warnings_shown: list[str]) -> None:
    first = open_stored(open_bench, stored)
    first.click(1, 20, 25)
    second = open_stored(open_bench, stored)
    assert warnings_shown == [
        "image.ome.zarr is open in another window; choose a labels layer of its own for this one."
    ]
    first.viewer.window.remove_dock_widget(first.widget)
    second.press("points")
    second.settle()
    np.testing.assert_array_equal(second.preview(), disc(SHAPE, (20, 25), RADIUS))


def test_image_left_while_its_session_opens(open_bench: Any, stored: Path, model: Any) -> None:
    bench = open_bench()
    import zarr

    for name in ("first", "second"):
        with layer_source(path=str(stored)):
            bench.viewer.add_image(zarr.open_array(stored / "0", mode="r"), name=name)
    model.delay = 0.3
    bench.press("points")
    bench.widget.images.image.choose(bench.viewer.layers["first"])
    bench.settle()
    bench.press("points")
    bench.settle()
    assert bench.controller.here()[0] is not None, "the session that nobody waited for was closed"


def test_layer_that_shows_something_else_than_its_file(
    open_bench: Any, stored: Path, warnings_shown: list[str]
) -> None:
    bench = open_bench()
    with layer_source(path=str(stored)):
        bench.viewer.add_image(255 - noise(4, *SHAPE), name="image")
    bench.press("points")
    bench.settle()
    assert "does not show what is stored in" in warnings_shown[-1]
    bench.viewer.add_labels(np.zeros((4, *SHAPE), int), name="mine")
    bench.widget.images.output.choose(bench.viewer.layers["mine"])
    bench.viewer.dims.set_current_step(0, 1)
    bench.press("points")
    bench.click(1, 20, 25)
    bench.key("J")
    np.testing.assert_array_equal(bench.output[1], disc(SHAPE, (20, 25), RADIUS))


def test_read_only_ome_zarr_gets_labels_in_memory(open_bench: Any, stored: Path, monkeypatch: Any) -> None:
    import os

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    bench = open_stored(open_bench, stored)
    bench.click(1, 20, 25)
    bench.key("J")
    assert isinstance(bench.controller.output.layer.data, np.ndarray)
    assert not (stored / "labels").exists()


@pytest.mark.parametrize("shape", [SHAPE, (4, *SHAPE), (*SHAPE, 3)], ids=["2d", "stack", "rgb"])
def test_labels_of_another_file_lie_beside_it(open_bench: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    image, file = noise(*shape), tmp_path / "my image.ome.tif"
    file.write_bytes(b"the layer holds what was read")
    place = (1, 20, 25) if shape[0] == 4 else (20, 25)
    for opened in range(2):
        bench = open_bench()
        with layer_source(path=str(file)):
            bench.viewer.add_image(image, name="image", rgb=shape[-1] == 3)
        bench.viewer.dims.set_current_step(0, 1)
        bench.press("points")
        bench.settle()
        if not opened:
            bench.click(*place)
            bench.key("J")
        labels = np.asarray(bench.output)
        assert labels.shape == (shape if shape[-1] != 3 else shape[:2])
        plane = labels[1] if shape[0] == 4 else labels
        np.testing.assert_array_equal(plane, disc(SHAPE, (20, 25), RADIUS))
        assert not bench.preview().any()
        layer = bench.controller.output.layer
        layer.paint((1, 5, 50) if layer.ndim == 3 else (5, 50), 9)
        layer.paint((1, 5, 50) if layer.ndim == 3 else (5, 50), 0)
        bench.viewer.window.remove_dock_widget(bench.widget)
        bench.viewer.layers.clear()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["my image.ome.tif", "my image.segany.zarr"]


def test_nothing_is_written_without_autosave(open_bench: Any, tmp_path: Path) -> None:
    file = tmp_path / "image.tif"
    file.write_bytes(b"")
    bench = open_bench()
    with layer_source(path=str(file)):
        bench.viewer.add_image(noise(*SHAPE), name="image")
    bench.widget.images.autosave.setChecked(False)
    bench.press("points")
    bench.click(20, 25)
    bench.key("J")
    assert bench.output.any()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("name", "depth"), [("t", False), ("z", True), ("-3", None)])
def test_a_stack_is_of_depth_or_time_as_its_layer_says(open_bench: Any, name: str, depth: bool | None) -> None:
    bench = prompted(open_bench, axis_labels=(name, "y", "x"))
    assert bench.controller.here()[0].session.settings.depth is depth
