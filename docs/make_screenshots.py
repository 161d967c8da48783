"""Make the pictures of the documentation: python docs/make_screenshots.py [--model nano] [--out docs/images].

Needs a screen, or ``xvfb-run -a -s "-screen 0 1600x1200x24"`` before it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_segany import samples
from napari_segany.gui.widget import SegmentWidget


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
    wait(lambda: controller.jobs.idle and not controller.propagation.running and time.monotonic() > quiet)


def centres(truth: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Centres of the largest objects of a plane."""
    ids, areas = np.unique(truth[truth > 0], return_counts=True)
    largest = ids[np.argsort(-areas)[:count]]
    return [ndimage.center_of_mass(truth == one) for one in largest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    stack, truth = samples.stack("nuclei-3d", seed=0)
    middle = len(stack) // 2
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window.resize(1400, 900)
    viewer.add_image(stack, name="nuclei", axis_labels=("z", "y", "x"))
    viewer.dims.set_current_step(0, middle)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment")
    controller = widget.controller
    controller.choose_model(options.model, "auto")
    controller.use_tool("points")
    settle(widget)

    places = centres(truth[middle], 6)
    for y, x in places[:-1]:
        controller.layers.points.add([middle, y, x])
        settle(widget)
        controller.masks.accept()
        settle(widget)
    controller.layers.points.add([middle, *places[-1]])
    settle(widget)
    viewer.screenshot(str(options.out / "prompt.png"), canvas_only=False, flash=False)

    controller.masks.accept()
    controller.stack.propagate(0, len(stack), "both", only_current=False)
    settle(widget)
    viewer.dims.set_current_step(0, middle + 2)
    settle(widget)
    viewer.screenshot(str(options.out / "propagated.png"), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
