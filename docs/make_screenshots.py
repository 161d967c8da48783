"""Make the pictures of the documentation.

``python docs/make_screenshots.py [--model nano] [--theme dark] [--out docs/images]``. Needs a screen, or
``xvfb-run -a -s "-screen 0 1600x1200x24"`` before it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_segany import samples
from napari_segany.gui.widget import SegmentWidget

#: Enough to show a curve.
ADAPT_STEPS = 12
#: Frames in which cells are followed.
FOLLOWED = 12


def wait(finished: Callable[[], bool], seconds: float = 300.0) -> None:
    """Let the window work until something is true."""
    end = time.monotonic() + seconds
    while not finished():
        if time.monotonic() > end:
            raise TimeoutError("The window did not finish in time.")
        QApplication.processEvents()
        time.sleep(0.01)


def settle(widget: SegmentWidget) -> None:
    controller = widget.controller
    quiet = time.monotonic() + 0.5

    def is_quiet() -> bool:
        busy = not controller.jobs.idle or controller.propagation.running or controller._course_soon.isActive()
        return not busy and time.monotonic() > quiet

    wait(is_quiet)


def centres(truth: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Centres of the largest objects of a plane."""
    ids, areas = np.unique(truth[truth > 0], return_counts=True)
    largest = ids[np.argsort(-areas)[:count]]
    return [ndimage.center_of_mass(truth == one) for one in largest]


class Pictures:
    """A window on a generated stack, and pictures of what is done in it."""

    def __init__(self, model: str, out: Path, theme: str, sample: str = "nuclei-3d") -> None:
        self.out = out
        self.stack, self.truth = samples.stack(sample, seed=0)
        self.middle = len(self.stack) // 2
        self.viewer = napari.Viewer(show=True, show_welcome_screen=False)
        self.viewer.theme = theme
        self.viewer.window.resize(1400, 1000)
        name, _, kind = sample.partition("-")
        self.viewer.add_image(self.stack, name=name, axis_labels=("t" if kind == "timelapse" else "z", "y", "x"))
        self.viewer.dims.set_current_step(0, self.middle)
        self.widget = SegmentWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="Segment")
        self.controller = self.widget.controller
        self.controller.stacks.choose_model(model)
        self.controller.use_tool("points")
        settle(self.widget)
        # The dock has made the canvas narrower.
        self.viewer.reset_view()

    def take(self, name: str, *opened: str) -> None:
        """Save a picture with some of the sections open, the first one in view."""
        for section in ("prompts", "concepts", "propagate", "tracks", "models", "adapt"):
            getattr(self.widget, section).head.setChecked(section in opened)
        self.widget.reveal(getattr(self.widget, opened[0]))
        settle(self.widget)
        self.viewer.screenshot(str(self.out / f"{name}.png"), canvas_only=False, flash=False)
        print(name, flush=True)

    def accept(self, places: list[tuple[float, float]]) -> None:
        """Click on some objects and accept them."""
        for y, x in places:
            self.controller.layers.points.add([self.middle, y, x])
            settle(self.widget)
            self.controller.masks.accept()
            settle(self.widget)

    def prompt(self) -> None:
        *places, last = centres(self.truth[self.middle], 6)
        self.accept(places)
        self.controller.layers.points.add([self.middle, *last])
        settle(self.widget)
        self.take("prompt", "prompts")
        self.controller.masks.accept()
        settle(self.widget)

    def adapt(self) -> None:
        section = self.widget.adapt
        section.name.setText("screenshot")
        section.steps.setValue(ADAPT_STEPS)
        section.run.click()
        wait(lambda: bool(section.plot.losses), 600)
        wait(lambda: not self.controller.adapting.learning.running, 1200)
        self.take("adapt", "adapt", "concepts")

    def find(self) -> None:
        self.controller.concepts.propose()
        self.take("find", "concepts", "prompts")

    def models(self) -> None:
        self.widget.models.table.selectRow(next(i for i, m in enumerate(self.widget.models.infos) if m.gated))
        self.take("models", "models")

    def propagate(self) -> None:
        self.controller.stack.propagate(self.middle - 4, self.middle + 5, "both", only_current=False)
        settle(self.widget)
        self.viewer.dims.set_current_step(0, self.middle + 2)
        self.controller.set_object(1)
        self.take("propagated", "prompts", "propagate")

    def tracks(self) -> None:
        self.accept(centres(self.truth[self.middle], 8))
        self.controller.stack.propagate(self.middle, self.middle + FOLLOWED, "forward", only_current=False)
        settle(self.widget)
        self.viewer.dims.set_current_step(0, self.middle + FOLLOWED - 1)
        self.controller.set_object(1)
        self.widget.tracks.show_tracks.setChecked(True)
        self.controller.tracks.check()
        wait(lambda: self.controller.track_layer.layer is not None)
        self.take("tracks", "tracks", "propagate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        # What is taught for a picture is not kept.
        os.environ["SEGANY_CACHE"] = cache
        pictures = Pictures(options.model, options.out, options.theme)
        for part in (pictures.prompt, pictures.find, pictures.models, pictures.propagate, pictures.adapt):
            part()
        pictures.viewer.close()
        pictures = Pictures(options.model, options.out, options.theme, "cells-timelapse")
        pictures.tracks()
        pictures.viewer.close()


if __name__ == "__main__":
    main()
