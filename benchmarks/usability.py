"""Clicks and seconds in the real window: 20 nuclei of an image, and 10 cells through 50 planes.

``python benchmarks/usability.py [--data FOLDER] [--objects 20] [--planes 50]`` drives the window with mouse and keys
and prints the table of docs/usability.md. Needs a screen, or ``xvfb-run -a -s "-screen 0 1600x1200x24"`` before it.
FOLDER holds the image ``dsb_28d33efef218.png`` and its ``_labels.png``; without it a generated image is used.

A simulated person sees the truth. They click into the middle of each object, and while the preview overlaps it with
an IoU below 0.8 they click into the middle of the largest error, twice at most.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QScrollArea
from skimage.measure import perimeter

import napari_segany as segany
from napari_segany.core.masks import interior_point, mask_iou
from napari_segany.gui.widget import SegmentWidget
from napari_segany.training.generate.stacks import cells_timelapse

GOOD, MOST_CORRECTIONS = 0.8, 2
#: Uncertain planes that are looked at after a propagation.
LOOKS = 10
LEFT = Qt.MouseButton.LeftButton


@dataclass
class Row:
    """What one way of working cost; `computed` are seconds of processor time."""

    way: str
    clicks: int
    keys: int
    seconds: float | None = None
    computed: float | None = None
    iou: float | None = None
    drawn: int = 0

    def __str__(self) -> str:
        seconds, computed = ("" if one is None else f"{one:.0f}" for one in (self.seconds, self.computed))
        iou = "" if self.iou is None else f"{self.iou:.2f}"
        return f"| {self.way} | {self.clicks} | {self.keys} | {self.drawn or ''} | {seconds} | {computed} | {iou} |"


class Person:
    """Mouse and keys on a window, counted.

    Attributes
    ----------
    opened_in : float
        Seconds until the widget was there.
    """

    def __init__(self, image: np.ndarray, frame: int | None = None) -> None:
        self.viewer = napari.Viewer(show=True, show_welcome_screen=False)
        self.viewer.window.resize(1500, 1100)
        self.layer = self.viewer.add_image(image, name="image")
        if frame is not None:
            self.viewer.dims.set_current_step(0, frame)
        QApplication.processEvents()
        start = time.perf_counter()
        self.widget = SegmentWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="Segment")
        QApplication.processEvents()
        self.opened_in = time.perf_counter() - start
        self.controller = self.widget.controller
        self.controller.use_tool("points")
        self.wait()
        self.viewer.reset_view()
        QTest.qWait(300)
        self.clicks = self.keys = 0

    def wait(self) -> None:
        """Until everything is answered and written."""
        quiet, end = time.monotonic() + 0.06, time.monotonic() + 3600
        controller = self.controller
        while not (controller.jobs.idle and not controller.propagation.running and time.monotonic() > quiet):
            assert time.monotonic() < end, "the window did not finish"
            QApplication.processEvents()
            time.sleep(0.002)

    def click(self, y: float, x: float) -> None:
        """Click on a pixel of the plane shown."""
        canvas = self.viewer.window._qt_viewer.canvas
        coords = np.array(self.viewer.dims.point)
        coords[-2:] = self.layer.data_to_world(np.array([*coords[:-2], y, x]))[-2:]
        place = canvas.view.scene.transform.map([coords[-1], coords[-2]])[:2]
        point = QPoint(round(float(place[0])), round(float(place[1])))
        QTest.mouseMove(canvas.native, point)
        QTest.mouseClick(canvas.native, LEFT, Qt.KeyboardModifier.NoModifier, point)
        self.clicks += 1
        self.wait()

    def press(self, button: QAbstractButton) -> None:
        """Click on a button, or a box to tick, of the widget."""
        self.widget.findChild(QScrollArea).ensureWidgetVisible(button)
        QTest.qWait(30)
        QTest.mouseClick(button, LEFT, Qt.KeyboardModifier.NoModifier, QPoint(8, button.height() // 2))
        self.clicks += 1
        self.wait()

    def key(self, key: Qt.Key, shift: bool = False) -> None:
        """Press a key over the canvas."""
        modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        QTest.keyClick(self.viewer.window._qt_viewer.canvas.native, key, modifier)
        self.keys += 1
        self.wait()

    def preview(self, shape: tuple[int, int]) -> np.ndarray:
        """(H, W) object ids that wait to be accepted."""
        layer = self.controller.preview.layer
        return np.zeros(shape, int) if layer is None else np.asarray(layer.data).reshape(shape)

    def labels(self) -> np.ndarray:
        """What was accepted."""
        return np.asarray(self.controller.output.layer.data)


def correct(person: Person, truth: np.ndarray) -> None:
    """Click where the preview of the current object is wrong, until it is good."""
    for _ in range(MOST_CORRECTIONS):
        now = person.preview(truth.shape) == person.controller.object_id
        if mask_iou(now, truth) >= GOOD:
            return
        missing, surplus = truth & ~now, now & ~truth
        negative = surplus.sum() > missing.sum()
        if negative:
            person.key(Qt.Key.Key_N)
        person.click(*interior_point(surplus if negative else missing))
        if negative:
            person.key(Qt.Key.Key_N)


def measure(way: str, person: Person, work: Callable[[], None], score: Callable[[np.ndarray], float]) -> Row:
    start, computed = time.perf_counter(), time.process_time()
    work()
    seconds, computed = time.perf_counter() - start, time.process_time() - computed
    row = Row(way, person.clicks, person.keys, seconds, computed, score(person.labels()))
    person.viewer.close()
    return row


def best_iou(labels: np.ndarray, truth: np.ndarray, ids: np.ndarray) -> float:
    """Mean over objects of the IoU with the label that overlaps each most."""
    found = []
    for i in ids:
        inside = labels[truth == i]
        most = np.bincount(inside[inside > 0]).argmax() if inside.any() else -1
        found.append(mask_iou(labels == most, truth == i))
    return float(np.mean(found))


def nuclei(image: np.ndarray, truth: np.ndarray, ids: np.ndarray) -> list[Row]:
    """Annotate some nuclei of one image in three ways."""

    def one_by_one() -> None:
        for i in ids:
            person.click(*interior_point(truth == i))
            correct(person, truth == i)
            person.key(Qt.Key.Key_J)

    def all_at_once() -> None:
        person.press(person.widget.prompts.one_each)
        for i in ids:
            person.click(*interior_point(truth == i))
        person.key(Qt.Key.Key_J, shift=True)

    def by_word() -> None:
        person.widget.concepts.text.setEditText("nucleus")
        person.press(person.widget.concepts.run)
        person.press(person.widget.concepts.accept)

    rows = []
    ways = (("click, correct, accept", one_by_one), ("one object each, accept all", all_at_once), ("find", by_word))
    for way, work in ways:
        person = Person(image)
        rows.append(measure(way, person, work, lambda labels: best_iou(labels, truth, ids)))
        print(rows[-1], flush=True)
    return rows


def planes(stack: np.ndarray, truth: np.ndarray, ids: np.ndarray, frame: int) -> list[Row]:
    """Click on some cells of one plane, carry them through the stack, and look at what the window doubts most."""

    def click_and_propagate() -> None:
        person.press(person.widget.prompts.one_each)
        for i in ids:
            person.click(*interior_point(truth[frame] == i))
        person.key(Qt.Key.Key_J, shift=True)
        person.press(person.widget.propagate.run)

    def and_correct() -> None:
        click_and_propagate()
        person.press(person.widget.prompts.one_each)
        at = {int(np.bincount(person.labels()[frame][truth[frame] == i]).argmax()): i for i in ids}
        for _ in range(LOOKS):
            person.key(Qt.Key.Key_W)
            object_id, here = person.controller.here()[1]
            mask = truth[here] == at.get(object_id, -1)
            if mask_iou(person.labels()[here] == object_id, mask) >= GOOD:
                # Said to be right, so that the next look is at another plane.
                person.press(person.widget.prompts.label)
                person.key(Qt.Key.Key_J)
                continue
            if not mask.any():
                return
            person.click(*interior_point(mask))
            correct(person, mask)
            person.key(Qt.Key.Key_J)
            person.press(person.widget.propagate.update_labels)

    rows = []
    ways = (
        ("one object each, accept all, propagate", click_and_propagate),
        (f"the same, and {LOOKS} looks where it is least sure", and_correct),
    )
    for way, work in ways:
        person = Person(stack, frame)
        rows.append(measure(way, person, work, lambda labels: best_iou(labels, truth, ids)))
        print(rows[-1], f"(the widget was there after {person.opened_in:.2f} s)", flush=True)
    return rows


def by_hand(truth: np.ndarray, ids: np.ndarray) -> Row:
    """Outline each object on each plane with the brush and fill it: two clicks, a key for the next label."""
    outlines = [plane == i for plane in truth for i in ids if (plane == i).any()]
    length = round(sum(perimeter(mask, 8) for mask in outlines))
    return Row("painting by hand", 2 * len(outlines), len(ids), drawn=length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--planes", type=int, default=50)
    options = parser.parse_args()
    import torch

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; {load:.1f} others wanted a core before")
    titles = ("way", "clicks", "keys", "pixels drawn", "seconds of the window", "of these computing", "mean IoU")
    print("| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|", sep="\n")
    stack, truth = cells_timelapse(np.random.default_rng(3), (options.planes, 160, 160))
    frame = len(stack) // 2
    lasting = [i for i in np.unique(truth[frame])[1:] if (truth == i).any(axis=(1, 2)).all()]
    ids = np.array(lasting[: options.objects // 2])
    print(f"{len(ids)} cells through {len(stack)} planes")
    planes(stack, truth, ids, frame)
    # A point, S, Shift-S and C for each object, one object at a time.
    print(Row("micro-sam's steps", len(ids) + 1, 3 * len(ids)), by_hand(truth, ids), sep="\n")
    if options.data is None:
        image, truth = segany.samples.image("nuclei", seed=1, shape=(360, 360))
    else:
        from skimage.io import imread

        image, truth = (imread(options.data / f"dsb_28d33efef218{end}.png") for end in ("", "_labels"))
    ids = np.random.default_rng(0).permutation(np.unique(truth[truth > 0]))[: options.objects]
    nuclei(image, truth, ids)
    # Per object a point, S and C; in batches S and C once. One click computes the embedding.
    count = len(ids)
    print(Row("micro-sam's steps, one by one", count + 1, 2 * count), Row("batched", count + 1, 2), sep="\n")
    print(by_hand(truth[None], ids), flush=True)


if __name__ == "__main__":
    main()
