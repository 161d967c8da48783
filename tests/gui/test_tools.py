"""Outlines, scribbles, labels and the brush as prompts; many objects at once; candidates; steps back and forth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_segany.gui import open_stack
from tests.fakes import RADIUS, disc

SHAPE = (40, 60)
SQUARE = np.array([(9.5, 4.5), (9.5, 14.5), (19.5, 14.5), (19.5, 4.5)])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def square(y: int, x: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[y : y + 10, x : x + 10] = True
    return mask


def draw(bench: Any, kind: str, corners: Any) -> None:
    bench.controller.layers.shapes.add(np.array(corners, dtype=float), shape_type=kind)
    bench.settle()


def session(bench: Any) -> Any:
    return bench.controller.here()[0].session


# -- every prompt -------------------------------------------------------------------------------------


def test_lasso_is_a_mask_prompt_and_comes_back_from_undo(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.press("lasso")
    assert str(bench.controller.layers.shapes.mode) == "add_polygon_lasso"
    draw(bench, "polygon", SQUARE)
    np.testing.assert_array_equal(bench.preview(), square(10, 5))
    assert session(bench).prompts[1, 0].mask is not None
    bench.controller.layers.shapes.remove([0])
    bench.settle()
    assert not bench.preview().any()
    bench.key("U")
    np.testing.assert_allclose(bench.controller.layers.shapes.data[0], SQUARE)
    np.testing.assert_array_equal(bench.preview(), square(10, 5))


def test_scribbles_of_both_signs(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.press("scribble")
    assert str(bench.controller.layers.shapes.mode) == "add_path"
    draw(bench, "path", [(20, 10), (20, 30)])
    whole = bench.preview()
    assert whole[20, 15] and whole[20, 25] and not whole[30, 20]
    bench.key("N")
    draw(bench, "path", [(20, 28), (28, 28)])
    assert not bench.preview()[22, 28]
    assert bench.controller.layers.shapes.features["sign"].tolist() == ["positive", "negative"]
    bench.key("U")
    np.testing.assert_array_equal(bench.preview(), whole)
    assert bench.controller.layers.shapes.shape_type == ["path"]


def test_moved_shape_moves_the_mask(open_bench: Any) -> None:
    bench = open_bench(noise(3, *SHAPE))
    bench.viewer.dims.set_current_step(0, 1)
    bench.press("boxes")
    bench.box(*((1, *corner) for corner in SQUARE))
    np.testing.assert_array_equal(bench.preview(), square(10, 5))
    shapes = bench.controller.layers.shapes
    shapes.data = [shapes.data[0] + (0, 5, 20)]
    bench.settle()
    np.testing.assert_array_equal(bench.preview(), square(15, 25))
    assert shapes.features["frame"].tolist() == [1]


def test_label_of_another_layer_is_mended(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    theirs = bench.viewer.add_labels(square(10, 5).astype(np.uint16) * 3, name="theirs")
    bench.press("points")
    theirs.selected_label = 3
    bench.viewer.layers.selection.active = theirs
    bench.press("label")
    bench.settle()
    assert np.count_nonzero(bench.preview() != square(10, 5)) <= 4
    assert (session(bench).prompts[1, 0].mask > 0).sum() > 90
    bench.key("N")
    bench.click(12, 12)
    assert not bench.preview()[12, 12]


@pytest.mark.parametrize("kind", ["points", "image", "other shape", "none"])
def test_labels_are_not_taken_from_a_layer_of_another_kind(
    open_bench: Any, kind: str, warnings_shown: list[str]
) -> None:
    bench = open_bench(noise(*SHAPE))
    viewer = bench.viewer
    viewer.layers.selection.active = {
        "points": lambda: viewer.add_points([(5, 5)]),
        "image": lambda: viewer.layers["image"],
        "other shape": lambda: viewer.add_labels(np.ones((9, 9), int)),
        "none": lambda: None,
    }[kind]()
    bench.press("label")
    bench.settle()
    assert "Select a labels layer of the image's shape" in warnings_shown[-1]
    assert bench.controller.layers.shapes is None or not len(bench.controller.layers.shapes.data)


def test_selected_label_brings_its_prompts_back_for_correction(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.press("points")
    bench.click(20, 15)
    bench.key("J")
    bench.click(20, 40)
    bench.key("J")
    points = bench.controller.layers.points
    assert points.shown.tolist() == [False, False], "accepted objects do not clutter"
    bench.controller.output.layer.selected_label = 1
    bench.settle()
    assert bench.widget.prompts.object_id.value() == 1
    assert points.shown.tolist() == [True, False]
    assert not bench.preview().any(), "nothing waits yet"
    bench.click(20, 21)
    corrected = disc(SHAPE, (20, 15), RADIUS) | disc(SHAPE, (20, 21), RADIUS)
    np.testing.assert_array_equal(bench.preview() == 1, corrected)
    bench.key("J")
    np.testing.assert_array_equal(bench.output == 1, corrected)
    assert not bench.preview().any()


# -- many objects at once -----------------------------------------------------------------------------


def test_one_object_for_each_box(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.widget.prompts.one_each.setChecked(True)
    bench.press("boxes")
    bench.settle()
    draw(bench, "rectangle", SQUARE)
    draw(bench, "rectangle", np.add(SQUARE, (0, 20)))
    # Several in one go, as when they are pasted.
    further = [np.add(SQUARE, (0, 40)), np.add(SQUARE, (15, 0))]
    bench.controller.layers.shapes.add(further, shape_type="rectangle")
    bench.settle()
    assert sorted(bench.controller.layers.shapes.features["object_id"]) == [1, 2, 3, 4]
    assert set(np.unique(bench.preview())) == {0, 1, 2, 3, 4}
    bench.key("Shift-J")
    for object_id, (y, x) in {1: (10, 5), 2: (10, 25), 3: (10, 45), 4: (25, 5)}.items():
        assert bench.output[y + 5, x + 5] in (object_id, 7 - object_id), "the order of pasted ones is free"
        assert (bench.output[square(y, x)] > 0).all()
    assert not bench.preview().any()
    assert bench.widget.prompts.object_id.value() == 5


def test_batch_of_points_is_a_batch_of_objects(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.widget.prompts.one_each.setChecked(True)
    bench.press("points")
    for x in (10, 30, 50):
        bench.click(20, x)
    assert [bench.preview()[20, x] for x in (10, 30, 50)] == [1, 2, 3]
    bench.press("accept_all")
    bench.settle()
    assert [bench.output[20, x] for x in (10, 30, 50)] == [1, 2, 3]


# -- candidates ---------------------------------------------------------------------------------------


def test_candidates_are_listed_and_chosen(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.press("points")
    bench.click(20, 25)
    rows = bench.widget.prompts.candidates
    assert [rows.item(i).text() for i in range(rows.count())] == ["0.90", "0.80", "0.70"]
    rows.setCurrentRow(2)
    np.testing.assert_array_equal(bench.preview(), disc(SHAPE, (20, 25), RADIUS / 2))
    bench.key("H")
    assert rows.currentRow() == 0


def test_strategy_chooses_until_the_person_does(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.press("points")
    bench.click(20, 25)
    bench.widget.prompts.strategy.setCurrentText("largest")
    np.testing.assert_array_equal(bench.preview(), disc(SHAPE, (20, 25), 2 * RADIUS))
    bench.widget.prompts.strategy.setCurrentText("smallest")
    bench.key("J")
    np.testing.assert_array_equal(bench.output, disc(SHAPE, (20, 25), RADIUS / 2))


def test_uncertainty_is_shown_over_the_plane(open_bench: Any) -> None:
    bench = open_bench(noise(3, *SHAPE), scale=(5, 2, 2))
    bench.viewer.dims.set_current_step(0, 1)
    bench.press("points")
    bench.click(1, 20, 25)
    bench.widget.prompts.uncertainty.setChecked(True)
    overlay = bench.viewer.layers["Uncertainty"]
    plane = np.squeeze(overlay.data)
    assert plane[20, 33] > 0.3 > plane[20, 25], "the three masks differ around the smallest of them"
    np.testing.assert_allclose(overlay.data_to_world((0, 0, 0)), (5, 0, 0))
    assert bench.widget.images.image.layer.name == "image"
    bench.widget.prompts.uncertainty.setChecked(False)
    assert "Uncertainty" not in bench.viewer.layers


def test_brush_on_the_preview_is_accepted_and_a_later_prompt_replaces_it(open_bench: Any) -> None:
    bench = open_bench(noise(3, *SHAPE))
    bench.viewer.dims.set_current_step(0, 1)
    bench.press("points")
    bench.click(1, 20, 25)
    bench.press("brush")
    layer = bench.controller.preview.layer
    assert bench.viewer.layers.selection.active is layer and layer.mode == "paint" and layer.selected_label == 1
    layer.brush_size = 3
    layer.paint((0, 30, 50), 1)
    layer.fill((0, 20, 25), 0)
    painted = layer.data[0] == 1
    assert painted[30, 50] and not painted[20, 25]
    bench.viewer.dims.set_current_step(0, 2)
    bench.settle()
    assert not bench.preview().any()
    bench.viewer.dims.set_current_step(0, 1)
    bench.settle()
    np.testing.assert_array_equal(bench.preview() == 1, painted)
    assert bench.widget.prompts.answer.text() == "mask changed with the brush"
    bench.key("J")
    np.testing.assert_array_equal(bench.output[1] == 1, painted)
    assert not bench.preview().any()
    bench.key("U")
    np.testing.assert_array_equal(bench.preview() == 1, painted)
    bench.click(1, 20, 26)
    np.testing.assert_array_equal(bench.preview() == 1, disc(SHAPE, (20, 25), RADIUS) | disc(SHAPE, (20, 26), RADIUS))


def test_mask_painted_from_nothing(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    bench.press("points")
    bench.settle()
    bench.press("brush")
    bench.controller.preview.layer.paint((20, 25), 1)
    bench.key("J")
    assert bench.output[20, 25] == 1


# -- accepting ----------------------------------------------------------------------------------------


def test_other_objects_are_protected_unless_asked(open_bench: Any) -> None:
    bench = open_bench(noise(*SHAPE))
    mine = np.where(square(10, 5), 7, 0).astype(np.uint16)
    bench.widget.images.output.choose(bench.viewer.add_labels(mine.copy(), name="mine"))
    bench.press("points")
    bench.click(15, 14)
    bench.key("J")
    np.testing.assert_array_equal(bench.output == 7, mine == 7)
    bench.key("U")
    np.testing.assert_array_equal(bench.output, mine)
    bench.widget.prompts.overwrite.setChecked(True)
    bench.key("J")
    np.testing.assert_array_equal(bench.output == 8, disc(SHAPE, (15, 14), RADIUS))


def test_zarr_labels_are_written_into(open_bench: Any) -> None:
    import zarr

    bench = open_bench(noise(3, *SHAPE))
    stored = zarr.create_array({}, shape=(3, *SHAPE), chunks=(1, 20, 20), dtype=np.uint16)
    stored[0, :5] = 4
    stored[2, :5] = 9
    bench.widget.images.output.choose(bench.viewer.add_labels(stored, name="stored"))
    bench.settle()
    bench.viewer.dims.set_current_step(0, 1)
    bench.press("points")
    bench.click(1, 20, 25)
    bench.press("accept")
    bench.settle()
    bench.propagate()
    np.testing.assert_array_equal(stored[:, 2, 0], [4, 0, 9])
    assert np.unique(stored[:]).tolist() == [0, 4, 9, 10], "ids go on after the largest on any plane"
    np.testing.assert_array_equal(stored[2] == 10, disc(SHAPE, (20, 25), RADIUS))


# -- steps and intensities ------------------------------------------------------------------------------


def test_redo_after_undo(open_bench: Any) -> None:
    bench = open_bench(noise(3, *SHAPE))
    bench.viewer.dims.set_current_step(0, 0)
    bench.press("points")
    bench.click(0, 20, 25)
    bench.key("J")
    bench.propagate()
    final = bench.output.copy()
    assert final.any(axis=(1, 2)).all()
    for _ in range(3):
        bench.press("undo")
        bench.settle()
    assert not bench.output.any() and len(bench.controller.layers.points.data) == 0
    bench.press("redo")
    bench.settle()
    np.testing.assert_allclose(bench.controller.layers.points.data, [[0, 20, 25]])
    assert bench.preview().any()
    bench.key("Shift-U")
    assert not bench.preview().any()
    bench.key("Shift-U")
    np.testing.assert_array_equal(bench.output, final)
    bench.key("Shift-U")
    np.testing.assert_array_equal(bench.output, final)


def test_percentiles_are_shown_and_change_what_the_model_sees(open_bench: Any, model: Any, monkeypatch: Any) -> None:
    seen: list[Any] = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda image, intensity: seen.append(intensity) or embed(image, intensity))
    image = np.tile(np.arange(1000, dtype=np.uint16).reshape(1, 25, 40), (3, 1, 1))
    bench = open_bench(image)
    bench.press("points")
    bench.click(1, 12, 20)
    assert (round(seen[0].low[0]), round(seen[0].high[0])) == (1, 998)
    bench.widget.images.low.setValue(10)
    bench.settle()
    bench.widget.images.high.setValue(90)
    bench.settle()
    assert (round(seen[-1].low[0]), round(seen[-1].high[0])) == (100, 899)
    assert bench.widget.images.intensity.text() == "black to white: 99.9 to 899.1"
    assert bench.preview().any(), "the prompt was asked again"
    before = len(seen)
    bench.widget.images.low.setValue(95)
    assert len(seen) == before, "an empty range changes nothing"


def test_answers_that_are_settled_are_let_go_and_come_back_with_their_plane(
    open_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_stack, "SETTLED_KEPT", 2)
    bench = open_bench(noise(6, *SHAPE))
    bench.press("points")
    for frame in range(6):
        bench.viewer.dims.set_current_step(0, frame)
        bench.settle()
        bench.click(frame, 20, 30)
        bench.press("accept")
        bench.settle()
    stack = bench.controller.here()[0]
    assert (1, 0) not in stack.answers and (6, 5) in stack.answers and len(stack.answers) <= 4
    bench.viewer.dims.set_current_step(0, 0)
    bench.settle()
    assert stack.answers[1, 0] is not None and not stack.is_open((1, 0))
    assert len(session(bench).prompts) == 6 and (bench.output == np.arange(1, 7)[:, None, None]).any(axis=(1, 2)).all()
