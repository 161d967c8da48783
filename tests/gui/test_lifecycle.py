"""Layers and windows go away at any moment; bad input gets one sentence; the window opens without heavy imports."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManifest

import napari_segany
from napari_segany import api
from tests.fakes import RADIUS, DiscEmbedding, DiscModel, disc


@pytest.fixture
def gate(model: DiscModel, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes encoding wait until it is opened; `waiting` says that it has begun to."""

    class Gate:
        def __init__(self) -> None:
            self.open, self.waiting = threading.Event(), threading.Event()
            self.open.set()

        @contextmanager
        def closed(self) -> Iterator[None]:
            self.open.clear()
            self.waiting.clear()
            try:
                yield
            finally:
                self.open.set()

    gate, embed = Gate(), model.embed

    def slow(*args: Any) -> Any:
        gate.waiting.set()
        assert gate.open.wait(20)
        return embed(*args)

    monkeypatch.setattr(model, "embed", slow)
    return gate


def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, 40, 60)).astype(np.uint8)


def running(open_bench: Any, gate: Any, qtbot: Any) -> Any:
    """A propagation that has written its first planes and waits in the middle of one."""
    bench = open_bench(stack())
    bench.viewer.dims.set_current_step(0, 0)
    bench.press("points")
    bench.settle()
    bench.click(0, 20, 25)
    gate.open.clear()
    gate.waiting.clear()
    bench.press("run")
    qtbot.waitUntil(gate.waiting.is_set)
    qtbot.waitUntil(lambda: bool(bench.output[0].any()))
    return bench


def finish(bench: Any, gate: Any) -> None:
    """Let the worker end and its late answers arrive."""
    from superqt.utils._qthreading import WorkerBase

    gate.open.set()
    bench.qtbot.waitUntil(lambda: not WorkerBase._worker_set, timeout=10_000)
    bench.qtbot.wait(50)


def test_cancel_keeps_finished_planes(open_bench: Any, gate: Any, qtbot: Any) -> None:
    bench = running(open_bench, gate, qtbot)
    assert bench.widget.propagate.cancel.isEnabled()
    assert bench.widget.propagate.progress.maximum() == 6
    bench.press("cancel")
    assert bench.widget.propagate.run.isEnabled()
    finish(bench, gate)
    done = bench.output.any(axis=(1, 2))
    assert done[0] and not done[-1]
    bench.key("U")
    assert not bench.output.any(), "the planes of a cancelled run are one step of the history"


@pytest.mark.parametrize("name", ["image", "Segmentation", "Prompts", "Shapes", "Preview"])
def test_deleting_a_layer_in_the_middle(open_bench: Any, gate: Any, qtbot: Any, name: str) -> None:
    bench = running(open_bench, gate, qtbot)
    bench.viewer.layers.remove(name)
    finish(bench, gate)
    if name == "image":
        bench.viewer.add_image(stack(), name="image")
    bench.viewer.dims.set_current_step(0, 3)
    bench.press("points")
    bench.settle()
    bench.press("next_object")
    bench.click(3, 20, 45)
    assert (bench.preview() == bench.controller.object_id).sum() == disc((40, 60), (20, 45), RADIUS).sum()
    bench.press("accept")
    bench.settle()
    assert bench.output[3].any()


@pytest.mark.parametrize("name", ["image", "Segmentation"])
def test_replacing_the_data_in_the_middle(open_bench: Any, gate: Any, qtbot: Any, name: str) -> None:
    bench = running(open_bench, gate, qtbot)
    layer = bench.viewer.layers[name]
    layer.data = np.zeros((4, 50, 50), layer.data.dtype) + (name == "image")
    finish(bench, gate)
    bench.viewer.dims.set_current_step(0, 0)
    bench.press("points")
    bench.settle()
    assert bench.preview().any(), "the prompt was sent again"
    assert bench.controller.output.layer.data.shape == bench.viewer.layers["image"].data.shape


def test_closing_the_widget_in_the_middle(open_bench: Any, gate: Any, qtbot: Any) -> None:
    bench = running(open_bench, gate, qtbot)
    keys = set(bench.viewer.keymap)
    bench.viewer.window.remove_dock_widget(bench.widget)
    assert "Preview" not in bench.viewer.layers
    assert keys - set(bench.viewer.keymap), "the keys were not given back"
    finish(bench, gate)
    assert bench.output[0].any() and not bench.output[5].any()
    bench.viewer.layers.clear()


def test_closing_the_viewer_in_the_middle(open_bench: Any, gate: Any, qtbot: Any) -> None:
    bench = running(open_bench, gate, qtbot)
    bench.viewer.close()
    finish(bench, gate)


def test_widget_opened_again_takes_up_prompts_and_encoded_planes(
    open_bench: Any, qtbot: Any, model: DiscModel, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    from napari_segany.gui.widget import SegmentWidget

    monkeypatch.setattr(DiscModel, "fingerprint", "disc", raising=False)
    monkeypatch.setattr(DiscModel, "pack", lambda self, embedding: {"a": np.ones(9, np.float16)}, raising=False)
    monkeypatch.setattr(
        DiscModel, "unpack", lambda self, arrays, image, _=None: DiscEmbedding(image.shape, self.name), raising=False
    )
    bench = open_bench(stack())
    bench.viewer.dims.set_current_step(0, 2)
    bench.press("points")
    bench.click(2, 20, 25)
    bench.viewer.window.remove_dock_widget(bench.widget)
    again = type(bench)(bench.viewer, SegmentWidget(bench.viewer), qtbot)
    bench.viewer.window.add_dock_widget(again.widget)
    again.settle()
    np.testing.assert_array_equal(again.preview(), disc((40, 60), (20, 25), RADIUS))
    assert [layer.name for layer in bench.viewer.layers].count("Prompts") == 1
    assert len(model.embedded) == 1 and [path.name for path in (cache / "embeddings").glob("disc-*")] == ["disc-disc"]


def test_answer_to_an_earlier_prompt_is_dropped(open_bench: Any) -> None:
    bench = open_bench(stack()[0])
    bench.press("points")
    bench.settle()
    shown: list[str] = []
    bench.controller.answer_changed.connect(shown.append)
    for x in (10, 20, 30):
        bench.controller.layers.points.add([20, x])
        bench.controller.sync()
    bench.settle()
    # The first answer would have been one of three masks; two later requests had left before it came.
    assert {text for text in shown if text} == {"mask 1 of 1, predicted IoU 0.90"}
    expected = np.logical_or.reduce([disc((40, 60), (20, x), RADIUS) for x in (10, 20, 30)])
    np.testing.assert_array_equal(bench.preview(), expected)


# -- bad input --------------------------------------------------------------------------------------


def test_no_image(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench()
    for button in ("points", "accept", "run", "undo", "other", "next_object"):
        bench.press(button)
    bench.settle()
    assert warnings_shown[0] == "Open or choose an image layer first."


def test_empty_layer(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench()
    bench.viewer.add_image(np.ones((4, 40, 60)), name="image")
    bench.viewer.layers["image"].data = np.ones((0, 40, 60))
    bench.press("points")
    assert "is empty" in warnings_shown[-1]


def test_four_dimensions_need_a_choice(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(np.zeros((2, 3, 40, 60), np.uint8))
    assert not bench.widget.images.axis.isHidden()
    bench.press("points")
    assert "choose the one to propagate along" in warnings_shown[-1]
    assert "Prompts" not in bench.viewer.layers


def test_point_outside(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(stack()[0])
    bench.press("points")
    bench.click(20, 25)
    before = bench.preview()
    bench.click(-5, 25)
    assert warnings_shown == ["The point at (y=-5.0, x=25.0) lies outside the image and is not used."]
    np.testing.assert_array_equal(bench.preview(), before)
    bench.click(20, 70)
    assert len(warnings_shown) == 2, "the first one is not told again"


def test_outline_beside_the_image(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(stack()[0])
    bench.press("lasso")
    bench.controller.layers.shapes.add([[50, 5], [50, 15], [55, 15]], shape_type="polygon")
    bench.settle()
    assert warnings_shown == ["An outline that is drawn covers no pixel of the image."]
    assert not bench.preview().any()


def test_three_dimensional_display(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(stack())
    bench.press("points")
    bench.click(3, 20, 25)
    bench.viewer.dims.ndisplay = 3
    bench.settle()
    assert str(bench.controller.layers.points.mode) == "pan_zoom"
    bench.press("points")
    assert "switch off 3D display" in warnings_shown[-1]
    bench.viewer.dims.ndisplay = 2
    bench.settle()
    assert bench.preview().any() or bench.controller.here()[1][1] != 3


def test_layer_rotated_out_of_the_plane(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(stack(), rotate=(0, 30, 0))
    bench.press("points")
    assert "rotated or sheared out of the plane" in warnings_shown[-1]


def test_labels_too_narrow_for_the_ids(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(stack()[0])
    narrow = np.zeros((40, 60), np.uint8)
    narrow[0, 0] = 255
    bench.widget.images.output.choose(bench.viewer.add_labels(narrow, name="narrow"))
    bench.press("points")
    bench.click(20, 25)
    assert "Object id 256 does not fit into labels of dtype uint8; use a wider dtype." in warnings_shown
    bench.widget.prompts.object_id.setValue(254)
    bench.click(20, 40)
    bench.press("accept")
    bench.settle()
    assert set(np.unique(bench.output)) == {0, 254, 255}


@pytest.mark.parametrize("kind", ["dask", "read-only"])
def test_labels_that_cannot_be_written(open_bench: Any, warnings_shown: list[str], kind: str) -> None:
    import dask.array

    bench = open_bench(stack())
    data: Any = np.zeros((6, 40, 60), int)
    layer = bench.viewer.add_labels(dask.array.from_array(data) if kind == "dask" else data, name="theirs")
    if kind == "read-only":
        layer.data.flags.writeable = False
    bench.widget.images.output.choose(layer)
    assert 'The labels "theirs" cannot be written into' in warnings_shown[-1]
    assert bench.widget.images.output.layer is None


def test_two_viewers_at_once(open_bench: Any) -> None:
    first, second = open_bench(stack()[0]), open_bench(stack()[1])
    for bench, x in ((first, 15), (second, 45)):
        bench.press("points")
        bench.click(20, x)
    for bench, x in ((first, 15), (second, 45)):
        np.testing.assert_array_equal(bench.preview(), disc((40, 60), (20, x), RADIUS))
        bench.key("J")
        np.testing.assert_array_equal(bench.output, disc((40, 60), (20, x), RADIUS))


@pytest.mark.parametrize("shape", [(6, 40, 61), (40, 60)])
def test_labels_of_the_wrong_shape(open_bench: Any, warnings_shown: list[str], shape: tuple[int, ...]) -> None:
    bench = open_bench(stack())
    wrong = bench.viewer.add_labels(np.zeros(shape, int), name="wrong")
    bench.widget.images.output.choose(wrong)
    assert "choose labels of the same shape" in warnings_shown[-1]
    assert bench.widget.images.output.layer is None, "the combo box says a new layer is used"


def test_model_that_cannot_be_loaded(open_bench: Any, warnings_shown: list[str], monkeypatch: Any) -> None:
    from napari_segany.core.errors import CheckpointError

    def broken(*args: Any, **kwargs: Any) -> None:
        raise CheckpointError("The file disc.pt is damaged.")

    bench = open_bench(stack()[0])
    monkeypatch.setattr(api, "load_model", broken)
    bench.press("points")
    bench.settle()
    assert warnings_shown == ["The file disc.pt is damaged."]
    monkeypatch.undo()
    monkeypatch.setattr(api, "load_model", lambda *args, **kwargs: DiscModel())
    bench.click(20, 25)
    assert bench.preview().any(), "it can be tried again"


def test_accept_and_propagate_without_a_mask(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(stack())
    bench.press("points")
    bench.settle()
    bench.press("accept")
    assert "has no mask here yet" in warnings_shown[-1]
    bench.propagate()
    assert "nothing to propagate" in warnings_shown[-1]


def test_taken_key_is_left_alone(make_napari_viewer: Any, model: DiscModel, warnings_shown: list[str]) -> None:
    from napari_segany.gui.widget import SegmentWidget

    viewer = make_napari_viewer()
    mine = lambda viewer: None  # noqa: E731
    viewer.bind_key("J", mine)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    assert 'The key J is taken by something else; use the button "accept".' in warnings_shown
    viewer.window.remove_dock_widget(widget)
    assert list(viewer.keymap.values()) == [mine]


# -- the package ------------------------------------------------------------------------------------


def test_manifest_is_valid_and_its_names_resolve() -> None:
    manifest = PluginManifest.from_file(f"{napari_segany.__path__[0]}/napari.yaml")
    manifest.validate_imports()
    assert manifest.display_name == "Segany: Segment Anything"
    entries = {menu: [item.command for item in items] for menu, items in manifest.contributions.menus.items()}
    assert entries["napari/layers/segment"] == entries["napari/layers/annotate"] == ["napari-segany.segment"]


def test_plugin_offers_widget_and_samples(make_napari_viewer: Any, npe2pm: Any, model: DiscModel) -> None:
    npe2pm.register(PluginManifest.from_file(f"{napari_segany.__path__[0]}/napari.yaml"))
    from napari._app_model import get_app_model

    viewer = make_napari_viewer()
    for key, axis in [("nuclei-3d", "z"), ("cells-timelapse", "t"), ("membranes-3d", "z")]:
        (layer,) = viewer.open_sample("napari-segany", key)
        assert layer.ndim == 3
        assert layer.axis_labels[0] == axis
    _, widget = viewer.window.add_plugin_dock_widget("napari-segany", "Segment")
    assert widget.images.image.layer is viewer.layers["membranes-3d"]
    assert widget.propagate.last.value() == 23
    for entry, section in (("follow", widget.tracks), ("models", widget.models)):
        assert section.body.isHidden()
        get_app_model().commands.execute_command(f"napari-segany.{entry}").result()
        assert not section.body.isHidden()


def test_link_at_the_top_is_the_manifest() -> None:
    inside = Path(napari_segany.__path__[0]) / "napari.yaml"
    link = Path(__file__).parents[2] / "napari.yaml"
    assert link.resolve() == inside.resolve()


def test_opening_the_widget_imports_nothing_heavy() -> None:
    code = """
import sys, napari, numpy
viewer = napari.Viewer(show=False)
viewer.add_image(numpy.zeros((5, 40, 60)))
before = set(sys.modules)
from napari_segany.gui.widget import SegmentWidget
viewer.window.add_dock_widget(SegmentWidget(viewer))
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print("heavy:", sorted(new & {"torch", "transformers", "safetensors", "zarr", "tifffile", "skimage"}))
viewer.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr[-2000:]
