"""Objects along the stack in the window: places to check, splitting, giving to another number, filling in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import QFileDialog

from tests.fakes import disc
from tests.session.test_tracks import SHAPE, planes


def switched() -> np.ndarray:
    labels = planes()
    labels[5:] = np.array([0, 2, 1])[labels[5:]]
    return labels


def open_tracks(open_bench: Any, labels: np.ndarray, **add: Any) -> Any:
    bench = open_bench(np.random.default_rng(0).random((8, *SHAPE)), **add)
    layer = bench.viewer.add_labels(labels.copy(), **add)
    bench.controller.choose_output(layer)
    bench.settle()
    return bench


def test_a_switch_is_listed_seen_and_mended(open_bench: Any) -> None:
    bench = open_tracks(open_bench, switched())
    tracks, controller = bench.widget.tracks, bench.controller
    tracks.show_tracks.click()
    wait_for_tracks(bench, lambda drawn: drawn == drawn_of(switched()))
    tracks.check.click()
    bench.settle()
    lines = [tracks.doubts.item(i).text() for i in range(tracks.doubts.count())]
    assert lines[0] == "plane 5: object 1 lies where object 2 was"
    tracks.doubts.setCurrentRow(0)
    bench.settle()
    assert controller.here()[1] == (1, 5)
    tracks.split.click()
    bench.settle()
    assert controller.object_id == 3
    controller.set_object(2)
    tracks.split.click()
    bench.settle()
    assert controller.object_id == 4
    tracks.number.setValue(1)
    tracks.give.click()
    bench.settle()
    controller.set_object(3)
    tracks.number.setValue(2)
    tracks.give.click()
    bench.settle()
    np.testing.assert_array_equal(bench.output, planes())
    wait_for_tracks(bench, lambda drawn: drawn == drawn_of(planes()))
    tracks.check.click()
    bench.settle()
    assert tracks.doubts.count() == 0
    for _ in range(4):
        bench.key("U")
    np.testing.assert_array_equal(bench.output, switched())
    wait_for_tracks(bench, lambda drawn: drawn == drawn_of(switched()))
    # What is painted with napari's own brush counts, too.
    bench.viewer.dims.set_current_step(0, 6)
    bench.controller.output.layer.mode = "paint"
    bench.controller.output.layer.data_setitem((np.array([6]), np.array([35]), np.array([70])), 9)
    wait_for_tracks(bench, lambda drawn: drawn == {**drawn_of(switched()), (9, 6): (35, 70)})
    bench.viewer.layers.remove("Tracks")
    assert not tracks.show_tracks.isChecked()


def drawn_of(labels: np.ndarray) -> dict[tuple[int, int], tuple[int, int]]:
    """(object, frame) -> centroid, rounded."""
    found = {}
    for frame, plane in enumerate(labels):
        for i in np.unique(plane[plane > 0]):
            y, x = np.argwhere(plane == i).mean(axis=0)
            found[int(i), frame] = round(y), round(x)
    return found


def wait_for_tracks(bench: Any, right: Any) -> None:
    def drawn() -> dict[tuple[int, int], tuple[int, int]]:
        layer = bench.controller.track_layer.layer
        rows = [] if layer is None else layer.data
        return {(int(i), int(frame)): (round(y), round(x)) for i, frame, y, x in rows}

    bench.qtbot.waitUntil(lambda: right(drawn()), timeout=10_000)


def test_divisions_are_drawn_and_exported(open_bench: Any, monkeypatch: Any, tmp_path: Path) -> None:
    labels = planes()
    # Object 1 divides into 2, which was below it, and 3.
    labels[4:][labels[4:] == 1] = 3
    labels[:4][labels[:4] == 2] = 0
    bench = open_tracks(open_bench, labels, scale=(4, 0.5, 0.5), translate=(0, 10, 0))
    tracks, controller = bench.widget.tracks, bench.controller
    controller.stacks.use(lambda stack: stack.session.parents.update({(2, 4): 1, (3, 4): 1}))
    bench.settle()
    tracks.show_tracks.click()
    wait_for_tracks(bench, lambda drawn: drawn == drawn_of(labels))
    layer = controller.track_layer.layer
    assert layer.graph == {2: [1], 3: [1]}
    np.testing.assert_allclose(layer.data_to_world((2, 10, 20)), (8, 15, 10))
    assert bench.viewer.layers.selection.active is not layer

    for chosen in ("ctc", "graph"):
        kinds = ["Folder of the Cell Tracking Challenge (*)", "Graph (*.geff)"]
        answer = str(tmp_path / chosen), kinds[chosen == "graph"]
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args, answer=answer: answer)
        tracks.export.click()
        bench.settle()
    assert (tmp_path / "ctc" / "res_track.txt").read_text().split("\n")[:3] == ["1 0 3 0", "2 4 7 1", "3 4 7 1"]
    assert (tmp_path / "graph.geff").is_dir()
    tracks.show_tracks.click()
    assert layer not in bench.viewer.layers


def test_one_plane_has_no_tracks(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(np.random.default_rng(0).random(SHAPE))
    bench.widget.tracks.show_tracks.click()
    bench.qtbot.waitUntil(lambda: bool(warnings_shown), timeout=10_000)
    assert warnings_shown == ["One plane has no tracks; open a stack or a time-lapse to see some."]
    assert not bench.widget.tracks.show_tracks.isChecked()


def test_prompts_go_with_the_number(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_tracks(open_bench, planes() * 0)
    bench.controller.set_object(1)
    bench.viewer.dims.set_current_step(0, 2)
    bench.controller.use_tool("points")
    bench.click(2, 20, 20)
    bench.key("J")
    bench.controller.set_object(1)
    bench.widget.tracks.number.setValue(7)
    bench.widget.tracks.give.click()
    bench.settle()
    assert bench.controller.layers.points.features["object_id"].tolist() == [7]
    assert set(np.unique(bench.output)) == {0, 7}
    bench.key("U")
    assert bench.controller.layers.points.features["object_id"].tolist() == [1]
    bench.controller.set_object(5)
    bench.widget.tracks.give.click()
    bench.settle()
    assert "Object 5 is not on these planes" in warnings_shown[-1]


def test_thin_object_is_filled_in(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_tracks(open_bench, planes() * 0)
    bench.widget.tracks.fill.click()
    bench.settle()
    assert "open labels, first" in warnings_shown[-1]
    bench.controller.set_object(1)
    for frame in (1, 4):
        bench.viewer.dims.set_current_step(0, frame)
        bench.controller.use_tool("points")
        bench.click(frame, 20, 20)
        bench.key("J")
        bench.controller.set_object(1)
    bench.widget.tracks.fill.click()
    bench.settle()
    for frame in (2, 3):
        np.testing.assert_array_equal(bench.output[frame] == 1, disc(SHAPE, (20, 20), 5))
    assert not bench.output[5].any()
