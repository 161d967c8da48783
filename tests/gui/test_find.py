"""Concepts in the window: words, examples, the threshold, accepting, and tracking through a stack."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import zarr
from qtpy.QtCore import QItemSelectionModel
from scipy import ndimage

from napari_segany import api
from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.instances import Instances
from napari_segany.gui import controller
from tests.session.test_finding import Islands


class Seen(Islands):
    """Islands of an image, brighter ones with higher scores."""

    words = ("island", "lake")

    def find(self, embedding, described, settings):  # type: ignore[no-untyped-def]
        found = super().find(embedding, described, settings)
        scores = [float(embedding.image[y0:y1, x0:x1].max()) / 255 for y0, x0, y1, x1 in found.boxes]
        keep = [i for i, score in enumerate(scores) if score > settings.threshold]
        objects = found.found()
        return Instances.from_patches(found.shape, [objects[i] for i in keep], [scores[i] for i in keep])


@pytest.fixture
def seen(model: Any, monkeypatch: pytest.MonkeyPatch) -> Seen:
    islands = Seen()
    monkeypatch.setattr(api, "load_model", lambda *args, **kwargs: islands)
    return islands


def islands(frames: int = 0) -> np.ndarray:
    image = np.zeros((40, 60), dtype=np.uint8)
    image[4:12, 5:13], image[20:30, 30:45], image[33:37, 3:9] = 250, 200, 60
    return image if not frames else np.stack([np.roll(image, 2 * t, axis=1) for t in range(frames)])


def find(bench: Any, text: str = "island") -> None:
    bench.widget.concepts.text.setEditText(text)
    bench.widget.concepts.run.click()
    bench.settle()


def test_objects_of_a_word_are_shown_and_accepted(open_bench: Any, seen: Seen) -> None:
    bench = open_bench(islands())
    find(bench)
    concepts = bench.widget.concepts
    assert [concepts.text.itemText(i) for i in range(concepts.text.count())] == ["island", "lake"]
    assert concepts.table.rowCount() == 2 and concepts.head.text() == "Find: 2 objects"
    shown = bench.viewer.layers["Found"].data
    assert np.array_equal(shown > 0, islands() > 100)
    concepts.accept.click()
    bench.settle()
    assert set(np.unique(bench.output)) == {0, 1, 2}
    assert not bench.viewer.layers["Found"].data.any()
    bench.key("U")
    assert not np.asarray(bench.output).any()


def test_the_threshold_sifts_without_asking_again(open_bench: Any, seen: Seen) -> None:
    bench = open_bench(islands())
    find(bench)
    encoded = len(seen.seen)
    bench.widget.concepts.threshold.setValue(0.1)
    assert bench.widget.concepts.table.rowCount() == 3
    bench.widget.concepts.threshold.setValue(0.9)
    assert bench.widget.concepts.table.rowCount() == 1
    assert len(seen.seen) == encoded
    assert (bench.viewer.layers["Found"].data > 0).sum() == 64


def test_some_of_the_objects_can_be_accepted(open_bench: Any, seen: Seen, warnings_shown: list[str]) -> None:
    bench = open_bench(islands())
    find(bench)
    table = bench.widget.concepts.table
    table.clearSelection()
    bench.widget.concepts.accept_selected.click()
    assert any("Select objects" in sentence for sentence in warnings_shown)
    # Not by `selectRow`, which heeds keys and buttons that other tests have pressed.
    chosen = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
    table.selectionModel().select(table.model().index(1, 0), chosen)
    bench.widget.concepts.accept_selected.click()
    bench.settle()
    assert np.array_equal(np.asarray(bench.output) > 0, islands() == 200)
    assert bench.widget.concepts.table.rowCount() == 1


def test_examples_are_drawn_on_layers_of_their_own(open_bench: Any, seen: Seen) -> None:
    bench = open_bench(islands(), scale=(2.0, 2.0), translate=(7.0, 5.0))
    concepts = bench.widget.concepts
    concepts.example.click()
    layer = bench.viewer.layers["Examples"]
    assert str(layer.mode) == "add_rectangle" and bench.viewer.layers.selection.active is layer
    layer.add(np.array([(3.5, 4.5), (3.5, 12.5), (11.5, 12.5), (11.5, 4.5)]), shape_type="rectangle")
    concepts.counter.click()
    other = np.array([(19.5, 29.5), (19.5, 44.5), (29.5, 44.5), (29.5, 29.5)])
    bench.viewer.layers["Counter-examples"].add(other, shape_type="rectangle")
    find(bench, "")
    assert seen.shown[0].boxes.tolist() == [[4, 5, 12, 13]] and seen.shown[0].negatives.tolist() == [[20, 30, 30, 45]]
    bench.viewer.layers.remove("Examples")
    find(bench, "island")
    assert len(seen.shown[0].boxes) == 0


def test_only_what_is_seen_is_looked_at(
    open_bench: Any, seen: Seen, warnings_shown: list[str], tmp_path: Any, monkeypatch: Any
) -> None:
    # The plane would be encoded as a whole, for clicks, when the view rests on it.
    monkeypatch.setattr(controller, "PREFETCH_DELAY", 1_000_000)
    # Three islands a cell of 100 pixels, nine cells; the canvas shows the one in the middle, turned round.
    stack = np.zeros((2, 300, 300), dtype=np.uint8)
    for y in range(0, 300, 100):
        for x in range(0, 300, 100):
            stack[1, y + 30 : y + 70, x + 30 : x + 90] = islands()
    array = zarr.create_array(tmp_path / "stack.zarr", data=stack, chunks=(1, 100, 100))
    bench = open_bench(array, scale=(3.0, 0.5, 0.5), translate=(0.0, 40.0, -20.0))
    viewer, concepts = bench.viewer, bench.widget.concepts
    viewer.dims.set_point(0, 3.0)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
    size = viewer.canvas.size if hasattr(viewer, "canvas") else viewer._canvas_size
    camera.center, camera.zoom = (0.0, 40.0 + 0.5 * 149.5, -20.0 + 0.5 * 149.5), min(size) / 50.0
    low, high = (np.array(bench.controller.location.seen(bench.controller.view())).reshape(2, 2) - 150).tolist()
    assert min(high) == 50 and max(low) == -50 and low == [-value for value in high]
    concepts.only_seen.setChecked(True)
    find(bench)
    truth = np.zeros_like(stack[0])
    rows, cols = (slice(max(150 + a, 0), 150 + b) for a, b in zip(low, high, strict=True))
    truth[rows, cols] = np.where(stack[1] > 100, 1, 0)[rows, cols]
    np.testing.assert_array_equal(np.squeeze(viewer.layers["Found"].data) > 0, truth)
    assert seen.seen == [truth[rows, cols].shape], "nothing else was read or encoded"
    concepts.accept.click()
    bench.settle()
    camera.center = (0.0, 40.0 + 0.5 * 49.5, -20.0 + 0.5 * 49.5)
    concepts.rest.click()
    bench.settle()
    concepts.accept.click()
    bench.settle()
    labels, count = np.asarray(bench.output[1]), ndimage.label(truth)[1]
    np.testing.assert_array_equal((labels > 0) & (labels <= count), truth)
    assert len(np.unique(labels)) - 1 == ndimage.label(labels)[1] > count, "every island has an id of its own"
    assert not np.asarray(bench.output[0]).any()
    camera.center = (0.0, 900.0, 900.0)
    concepts.run.click()
    assert any("Nothing of the image is on the canvas" in sentence for sentence in warnings_shown)


def test_a_search_of_many_tiles_tells_how_far_it_is_and_can_be_stopped(
    open_bench: Any, seen: Seen, monkeypatch: Any
) -> None:
    image = np.zeros((1100, 1100), dtype=np.uint8)
    image[:40, :60] = image[-40:, -60:] = islands()
    bench, go_on = open_bench(image), threading.Event()
    concepts, once = bench.widget.concepts, Seen.find
    looked: list[Any] = []

    def waiting(*args: Any) -> Instances:
        looked.append(args)
        assert len(looked) == 1 or go_on.wait(10)
        return once(seen, *args)

    monkeypatch.setattr(seen, "find", waiting)
    assert not concepts.stop.isEnabled()
    concepts.text.setEditText("island")
    concepts.run.click()
    bench.qtbot.waitUntil(lambda: concepts.head.text() == "Find: 1 of 4 tiles" and len(looked) == 2)
    concepts.stop.click()
    go_on.set()
    bench.settle()
    # The tile in hand was finished, the two others were not begun.
    assert len(looked) == 2 and concepts.head.text() == "Find: 2 objects" and not concepts.stop.isEnabled()
    assert not np.squeeze(bench.viewer.layers["Found"].data)[-40:, -60:].any()


def test_nothing_to_look_for_is_one_sentence(open_bench: Any, seen: Seen, warnings_shown: list[str]) -> None:
    bench = open_bench(islands())
    find(bench, " ")
    assert any("Say what to look for" in sentence for sentence in warnings_shown)
    bench.widget.concepts.accept.click()
    assert any("nothing to accept" in sentence for sentence in warnings_shown)


def test_nothing_found_says_so(open_bench: Any, seen: Seen, warnings_shown: list[str]) -> None:
    bench = open_bench(np.zeros((40, 60), dtype=np.uint8))
    find(bench)
    assert any("Nothing was found" in sentence for sentence in warnings_shown)


def test_what_lies_below_the_threshold_is_told(open_bench: Any, seen: Seen, warnings_shown: list[str]) -> None:
    bench = open_bench(np.where(islands() == 60, np.uint8(60), np.uint8(0)))
    find(bench)
    assert any("scores 0.24: lower the threshold" in sentence for sentence in warnings_shown)
    assert bench.widget.concepts.table.rowCount() == 0


def test_words_and_boxes_that_cannot_be_used_are_told(
    open_bench: Any, seen: Seen, warnings_shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def describe(text: str, examples: Any) -> str:
        raise InvalidPromptError(f'islands does not know "{text}", it knows: island.')

    bench = open_bench(islands())
    bench.widget.concepts.example.click()
    beside = np.array([(50.0, 70.0), (50.0, 80.0), (60.0, 80.0), (60.0, 70.0)])
    bench.viewer.layers["Examples"].add(beside, shape_type="rectangle")
    find(bench)
    assert any("covers no pixel of the image" in sentence for sentence in warnings_shown)
    assert bench.widget.concepts.table.rowCount() == 2
    monkeypatch.setattr(seen, "describe", describe)
    find(bench, "giraffe")
    assert any('does not know "giraffe"' in sentence for sentence in warnings_shown)


def test_tracking_that_finds_nothing_says_so(open_bench: Any, seen: Seen, warnings_shown: list[str]) -> None:
    bench = open_bench(np.zeros((3, 40, 60), dtype=np.uint8))
    bench.widget.concepts.text.setEditText("island")
    bench.widget.concepts.track.click()
    bench.settle()
    assert any("Nothing was found in these planes" in sentence for sentence in warnings_shown)


def test_models_without_concepts_say_so(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(islands())
    find(bench)
    assert any("does not find concepts" in sentence for sentence in warnings_shown)


def test_objects_are_tracked_through_the_stack(open_bench: Any, seen: Seen) -> None:
    bench = open_bench(islands(5))
    bench.widget.concepts.text.setEditText("island")
    bench.widget.concepts.track.click()
    bench.settle()
    labels = np.asarray(bench.output)
    assert np.array_equal(labels > 0, islands(5) > 100)
    assert all(set(np.unique(frame)) == {0, 1, 2} for frame in labels)
    # An example and a counter-example on one plane are shown once and hold for the whole run.
    bench.widget.prompts.undo.click()
    bench.settle()
    seen.shown.clear()
    for button, name, corner in (("example", "Examples", (3.5, 4.5)), ("counter", "Counter-examples", (19.5, 29.5))):
        getattr(bench.widget.concepts, button).click()
        (y, x), frame = corner, bench.controller.here()[1][1]
        box = [(frame, y, x), (frame, y, x + 8), (frame, y + 8, x + 8), (frame, y + 8, x)]
        bench.viewer.layers[name].add(np.array(box), shape_type="rectangle")
    bench.widget.concepts.track.click()
    bench.settle()
    (described,) = seen.shown
    assert (len(described.boxes), len(described.negatives)) == (1, 1)
    assert np.asarray(bench.output).any(axis=(1, 2)).all()


@pytest.mark.parametrize("by", ["cancel", "stop"])
def test_tracking_can_be_cancelled_before_any_plane_is_certain(
    open_bench: Any, seen: Seen, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    bench = open_bench(islands(8))
    shown: list[tuple[int, int]] = []
    bench.controller.propagation.progressed.connect(lambda *progress: shown.append(progress))
    looked, go_on, find = [], threading.Event(), Seen.find

    def waiting(self: Seen, *asked: Any) -> Any:
        looked.append(1)
        assert len(looked) < 3 or go_on.wait(10)
        return find(self, *asked)

    monkeypatch.setattr(Seen, "find", waiting)
    bench.widget.concepts.text.setEditText("island")
    bench.widget.concepts.track.click()
    bench.qtbot.waitUntil(lambda: (2, 8) in shown, timeout=10_000)
    assert not np.asarray(bench.output).any()
    concepts, propagate = bench.widget.concepts, bench.widget.propagate
    assert concepts.head.text() == "Find: 2 of 8 planes" and concepts.stop.isEnabled()
    (propagate.cancel if by == "cancel" else concepts.stop).click()
    go_on.set()
    bench.qtbot.waitUntil(lambda: bool(np.asarray(bench.output)[2].any()), timeout=10_000)
    bench.settle()
    assert np.asarray(bench.output).any(axis=(1, 2)).tolist() == [True] * 3 + [False] * 5
    assert not concepts.stop.isEnabled() and not propagate.cancel.isEnabled()


def test_found_objects_go_with_their_image(open_bench: Any, seen: Seen) -> None:
    bench = open_bench(islands())
    find(bench)
    bench.viewer.layers.remove("image")
    bench.settle()
    assert "Found" not in bench.viewer.layers and bench.widget.controller.concepts.result is None
