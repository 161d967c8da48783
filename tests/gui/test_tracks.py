"""Objects along the stack in the window: places to check, splitting, giving to another number, filling in."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fakes import disc
from tests.session.test_tracks import SHAPE, planes


def switched() -> np.ndarray:
    labels = planes()
    labels[5:] = np.array([0, 2, 1])[labels[5:]]
    return labels


def open_tracks(open_bench: Any, labels: np.ndarray) -> Any:
    bench = open_bench(np.random.default_rng(0).random((8, *SHAPE)))
    layer = bench.viewer.add_labels(labels.copy())
    bench.controller.choose_output(layer)
    bench.settle()
    return bench


def test_a_switch_is_listed_seen_and_mended(open_bench: Any) -> None:
    bench = open_tracks(open_bench, switched())
    tracks, controller = bench.widget.tracks, bench.controller
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
    tracks.check.click()
    bench.settle()
    assert tracks.doubts.count() == 0
    for _ in range(4):
        bench.key("U")
    np.testing.assert_array_equal(bench.output, switched())


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
