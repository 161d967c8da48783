"""Whole objects drawn around the planes they are known on, by a model that takes what is bright for the object."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_segany import Session
from napari_segany.core import volume_windows
from napari_segany.core.errors import UnreadableError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.masks import bounding_box, mask_iou, paste
from napari_segany.core.protocols import VolumeModel
from napari_segany.core.settings import PropagationSettings
from napari_segany.core.volume_windows import VolumeWindow, WindowShape, read_windows
from napari_segany.session.completing import GAP, CompletingTracker, expected_iou
from tests.fakes import DiscModel, disc

SHAPE = WindowShape(reach=4, side=32, object_size=12.0)


class BrightModel(DiscModel):
    """Implements `VolumeModel`: inside is what is brighter than the middle.

    Attributes
    ----------
    told : list of (P, depth, side, side)
        What `complete` was told of objects.
    """

    volume_window = SHAPE

    def __init__(self) -> None:
        super().__init__()
        self.told: list[np.ndarray] = []

    def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
        self.told.append(given)
        return np.where(seen, 20 * (pixels - 0.5), -10.0).astype(np.float32)


class Planes:
    """A `FrameSource` of an array, some planes of which cannot be read."""

    def __init__(self, stack: np.ndarray, damaged: tuple[int, ...] = ()) -> None:
        self.stack, self.damaged = stack, damaged
        self.shape, self.dtype, self.intensity = stack.shape, stack.dtype, IntensityRange((0.0,), (1.0,))

    def __len__(self) -> int:
        return len(self.stack)

    def __getitem__(self, frame: int) -> np.ndarray:
        return self.plane(frame)

    def plane(self, frame: int) -> np.ndarray:
        if frame in self.damaged:
            raise UnreadableError(f"Frame {frame} cannot be read.")
        return self.stack[frame]


def stack_of(discs: list[tuple[float, float, float] | None], shape: tuple[int, int] = (96, 96)) -> np.ndarray:
    """Planes (N, H, W) float32 with a disc (y, x, radius) each, or none."""
    planes = [np.zeros(shape) if one is None else disc(shape, one[:2], one[2]) for one in discs]
    return np.stack(planes).astype(np.float32)


def followed(stack: np.ndarray, start: int, model: BrightModel | None = None) -> np.ndarray:
    session = Session(stack, model=model or BrightModel(), axes="zyx")
    session.frames.intensity = IntensityRange((0.0,), (1.0,))
    session.accept(1, start, mask=stack[start] > 0.5)
    list(session.propagate())
    return np.asarray(session.labels) == 1


def assert_drawn(found: np.ndarray, stack: np.ndarray) -> None:
    for plane, (mask, truth) in enumerate(zip(found, stack > 0.5, strict=True)):
        assert mask_iou(mask, truth) > 0.85, f"plane {plane}"


def test_the_fake_is_a_volume_model() -> None:
    assert isinstance(BrightModel(), VolumeModel) and not isinstance(DiscModel(), VolumeModel)


@pytest.mark.parametrize("radius", [4.0, 9.0, 30.0])
def test_an_object_of_any_size_is_drawn_to_its_ends(radius: float) -> None:
    sizes = [0, 0, 0.6, 0.9, 1, 0.9, 0.6, 0, 0]
    stack = stack_of([(47.3, 45.0, radius * s) if s else None for s in sizes])
    assert_drawn(followed(stack, 4), stack)


def test_an_object_deeper_than_a_window_is_followed_from_window_to_window() -> None:
    stack = stack_of([(30 + 0.8 * z, 40.0, 9.0) if 3 <= z < 37 else None for z in range(40)])
    assert_drawn(followed(stack, 12), stack)


def test_an_object_that_leaves_its_window_is_looked_for_where_it_was_last() -> None:
    stack = stack_of([(48.0, 15 + 5.0 * z, 8.0) for z in range(14)])
    assert_drawn(followed(stack, 6), stack)


@pytest.mark.parametrize("radius", [7.0, 11.5, 16.0])
@pytest.mark.parametrize("place", [(47, 46), (0, 46), (95, 0)])
def test_an_outline_lies_between_cells_where_logits_cross_zero(radius: float, place: tuple[int, int]) -> None:
    """In the middle of an image and where its edge cuts the object."""

    class Slope(BrightModel):
        def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
            # An edge as flat as those of trained models: some cells beyond it are but barely outside.
            return super().complete(pixels, given, seen) / 8

    y, x = np.mgrid[:96, :96]
    plane = np.clip((radius - np.hypot(y - place[0], x - place[1])) / radius + 0.5, 0, 1).astype(np.float32)
    found = followed(np.stack([plane] * 5), 2, Slope())
    areas = [np.count_nonzero(found[z]) for z in (1, 3)]
    assert areas == pytest.approx([np.count_nonzero(plane > 0.5)] * 2, rel=0.03)


def test_an_image_narrower_than_a_cell_keeps_what_is_given() -> None:
    found = followed(np.ones((5, 2, 300), dtype=np.float32), 2)
    assert found[2].all()


def test_what_is_not_connected_to_the_object_is_another() -> None:
    stack = stack_of([(48.0, 40.0, 9.0) if z not in (5, 6) else None for z in range(10)])
    found = followed(stack, 3)
    assert not found[5:].any()
    assert_drawn(found[:5], stack[:5])


def test_nothing_is_encoded_but_the_planes_it_is_given_on() -> None:
    model = BrightModel()
    stack = stack_of([(48.0, 48.0, 9.0)] * 12)
    followed(stack, 4, model)
    assert len(model.embedded) == 1


def test_all_planes_on_which_it_is_known_are_told_and_a_mask_that_was_found_counts_half() -> None:
    model = BrightModel()
    session = Session(stack_of([(48.0, 48.0, 9.0)] * 16), model=model, axes="zyx")
    for frame in (2, 5):
        session.accept(1, frame, mask=disc((96, 96), (48, 48), 9))
    list(session.propagate(direction="forward"))
    around_2, around_5, farther = (np.unique(told[0][told[0] != 0]) for told in model.told[:3])
    assert [np.count_nonzero(told[0].any(axis=(1, 2))) for told in model.told[:3]] == [2, 2, 2]
    assert np.array_equal(around_2, [-1, 1]) and np.array_equal(around_5, [-1, 1])
    assert np.array_equal(farther, [-1, -0.5, 0.5, 1]), "the last plane found, and the nearest given"


def test_a_time_lapse_is_left_to_a_memory() -> None:
    model = BrightModel()
    session = Session(stack_of([(48.0, 48.0, 9.0)] * 4), model=model, axes="tyx")
    assert not session.settings.depth
    session.accept(1, 0, mask=disc((96, 96), (48, 48), 9))
    list(session.propagate())
    assert not model.told and len(model.embedded) == 4
    session.settings = PropagationSettings(motion=True)
    list(session.propagate())
    assert not model.told, "what moves is in time"


def test_a_damaged_plane_stops_the_run_where_it_is_and_not_before() -> None:
    stack = stack_of([(48.0, 48.0, 9.0)] * 8)
    tracker = CompletingTracker(BrightModel(), Planes(stack, damaged=(3,)))
    tracker.remind(0, None, {1: stack[0] > 0.5})
    for frame in (1, 2):
        assert mask_iou(tracker.follow(frame, None, [1])[1].best, stack[frame] > 0.5) > 0.9
    with pytest.raises(UnreadableError, match="Frame 3"):
        tracker.follow(3, None, [1])


def test_an_object_is_given_up_after_a_gap_and_can_be_forgotten() -> None:
    stack = stack_of([(48.0, 48.0, 9.0)] * 20)
    tracker = CompletingTracker(BrightModel(), Planes(stack))
    tracker.remind(0, None, {1: stack[0] > 0.5})
    assert tracker.follow(GAP, None, [1]) and not tracker.follow(2 * GAP + 1, None, [1])
    tracker.forget(1)
    assert not tracker.follow(GAP + 1, None, [1])


def test_windows_far_behind_are_dropped() -> None:
    stack = stack_of([(48.0, 48.0, 9.0)] * 60)
    tracker = CompletingTracker(BrightModel(), Planes(stack))
    tracker.remind(0, None, {1: stack[0] > 0.5})
    kept = []
    for frame in range(1, 60):
        assert tracker.follow(frame, None, [1])
        kept.append(len(tracker.drawn[1]))
    assert max(kept) <= 3


def windows() -> Iterator[VolumeWindow]:
    for y, x, radius in ((10, 12, 5), (70, 60, 20), (50, 90, 9)):
        mask = disc((96, 96), (y, x), radius)
        box = bounding_box(mask)
        yield VolumeWindow.around(box, mask[box[0] : box[2], box[1] : box[3]], 2, (96, 96), SHAPE)


def test_windows_read_together_show_what_each_shows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = Planes(np.random.default_rng(0).random((5, 96, 96)).astype(np.float32), damaged=(4,))
    together = read_windows(planes, list(windows()))
    monkeypatch.setattr(volume_windows, "READ_TOGETHER", 0)
    alone = read_windows(planes, list(windows()))
    assert np.array_equal(together.pixels, alone.pixels) and np.array_equal(together.seen, alone.seen)
    assert list(together.damaged) == [4]
    # The stack begins two planes after the window, and ends with the plane that is damaged.
    assert together.seen.any(axis=(0, 2, 3)).tolist() == [False, False, True, True, True, True, False, False, False]


@settings(max_examples=60, deadline=None)
@given(y=st.floats(0, 95), x=st.floats(0, 70), radius=st.floats(3, 40))
def test_a_mask_comes_back_from_the_cells_where_it_was(y: float, x: float, radius: float) -> None:
    mask = disc((96, 71), (y, x), radius)
    box = bounding_box(mask)
    if (box[2] - box[0]) * (box[3] - box[1]) < 25:
        return
    patch = mask[box[0] : box[2], box[1] : box[3]]
    window = VolumeWindow.around(box, patch, 0, (96, 71), SHAPE)
    cells = window.mask_cells(box, patch)
    back, found = window.grid.logits_patch(np.where(cells, 1.0, -1.0).astype(np.float32))
    assert mask_iou(paste((96, 71), back, found > 0), mask) > 0.75


def test_the_score_is_the_iou_to_be_expected() -> None:
    logits = np.full((8, 8), -20.0)
    logits[2:6, 2:6] = 20.0
    assert expected_iou(logits) == pytest.approx(1.0, abs=1e-6)
    logits[2:6, 2:6] = np.log(3.0)
    assert expected_iou(logits) == pytest.approx(0.75, abs=1e-3)
    assert expected_iou(np.full((8, 8), -20.0)) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("depth", [True, False])
def test_whether_a_stack_is_of_depth_or_time_is_found_out_where_nobody_said(depth: bool) -> None:
    class Sure(BrightModel):
        """Draws whole objects surely in depth alone."""

        def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
            return super().complete(pixels, given, seen) * (1.0 if depth else 0.02)

    session = Session(stack_of([(48.0, 48.0, 9.0)] * 12), model=Sure())
    session.frames.intensity = IntensityRange((0.0,), (1.0,))
    assert session.settings.depth is None
    session.accept(1, 5, mask=disc((96, 96), (48, 48), 9))
    list(session.propagate())
    assert session.settings.depth == depth
