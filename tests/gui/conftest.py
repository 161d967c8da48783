"""A viewer with the widget open, and a model without a network behind it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_segany import api
from napari_segany.core.protocols import ModelInfo
from tests.fakes import DiscModel


@pytest.fixture(autouse=True, scope="module")
def what_is_there_is_not_searched_for_garbage() -> None:
    """napari collects garbage whenever a layer goes, which takes a second each time with all libraries loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def garbage_is_collected_by_this_thread_alone() -> Iterator[None]:
    """Qt hangs for good when another thread, of a Dask cluster for instance, happens to collect what was a widget."""
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in place of the person's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SEGANY_CACHE", str(folder))
    return folder


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> DiscModel:
    """The model that the widget loads whatever name it asks for."""
    disc = DiscModel()

    def load(name: str = "disc", device: str = "auto", dtype: str = "auto") -> DiscModel:
        return disc if name == "disc" else DiscModel(name)

    infos = [
        ModelInfo(name, "fake", DiscModel.capabilities, 0, "BSD-3-Clause", True, False) for name in ("disc", "other")
    ]
    monkeypatch.setattr(api, "load_model", load)
    monkeypatch.setattr(api, "list_models", lambda: infos)
    return disc


@pytest.fixture
def warnings_shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sentences shown to the person as warnings."""
    from napari.utils.notifications import notification_manager

    shown: list[str] = []
    monkeypatch.setattr(notification_manager, "dispatch", lambda notification: shown.append(str(notification.message)))
    return shown


class Bench:
    """A viewer with one image and the widget, and the gestures of a person."""

    def __init__(self, viewer: Any, widget: Any, qtbot: Any) -> None:
        self.viewer, self.widget, self.qtbot = viewer, widget, qtbot
        self.controller = widget.controller

    @property
    def output(self) -> np.ndarray:
        layer = self.controller.output.layer
        return self.viewer.layers["Segmentation"].data if layer is None else layer.data

    def press(self, button: str) -> None:
        section = next(s for s in (self.widget.prompts, self.widget.propagate) if hasattr(s, button))
        getattr(section, button).click()

    def click(self, *coords: float) -> None:
        """Add a point at data coordinates of the image, as a click there would, and wait for the answer."""
        self.controller.layers.points.add(np.array(coords, dtype=float))
        self.settle()

    def box(self, *corners: tuple[float, ...]) -> None:
        """Draw a rectangle with these four corners in data coordinates, and wait for the answer."""
        self.controller.layers.shapes.add(np.array(corners, dtype=float), shape_type="rectangle")
        self.settle()

    def key(self, letter: str) -> None:
        """Press a key while the canvas has the focus."""
        from napari.utils.key_bindings import coerce_keybinding

        self.viewer.keymap[coerce_keybinding(letter)](self.viewer)
        self.settle()

    def settle(self) -> None:
        """Wait until everything drawn is answered, written and shown."""
        controller = self.controller
        timers = (controller._sync_soon, controller._redraw_soon, controller._course_soon)
        self.qtbot.waitUntil(
            lambda: (
                controller.jobs.idle and not controller.propagation.running and not any(t.isActive() for t in timers)
            ),
            timeout=60_000,
        )

    def preview(self) -> np.ndarray:
        """The plane of the preview; a single False without one."""
        layer = self.controller.preview.layer
        return np.zeros(1, bool) if layer is None else np.squeeze(layer.data)

    def propagate(self) -> None:
        self.press("run")
        self.settle()


@pytest.fixture
def open_bench(make_napari_viewer: Any, qtbot: Any, model: DiscModel) -> Callable[..., Bench]:
    """Open a viewer on an image and dock the widget."""
    from napari_segany.gui.widget import SegmentWidget

    def build(image: np.ndarray | None = None, show: bool = False, **kwargs: Any) -> Bench:
        viewer = make_napari_viewer(show=show)
        if image is not None:
            viewer.add_image(image, name="image", **kwargs)
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Segment")
        bench = Bench(viewer, widget, qtbot)
        bench.settle()
        return bench

    return build
