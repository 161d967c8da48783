"""Every object of a concept in depth: where they begin and end, which of several drawings stays, and nano in it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import napari_segany as segany
from napari_segany import Session
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.protocols import ConceptModel, VolumeModel
from napari_segany.core.settings import TrackSettings
from napari_segany.session.carried import Carried
from napari_segany.session.whole_tracking import AHEAD, Whole
from tests.fakes import disc
from tests.session.test_completing import SHAPE
from tests.session.test_finding import Islands

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from quality import average_precision

#: Centre (y, x), radius on the plane in the middle, first and last plane, brightness.
Ball = tuple[float, float, float, int, int, float]


class BrightIslands(Islands):
    """Finds whatever is bright on a plane; an object in depth is what is as bright as what was given of it."""

    volume_window = SHAPE

    def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
        drawn = np.full(pixels.shape, -10.0, dtype=np.float32)
        for one, told, into in zip(pixels, given, drawn, strict=True):
            alike = np.abs(one - np.median(one[told > 0])) < 0.24
            # Without the rims of brighter objects.
            into[ndimage.binary_opening(alike, np.ones((1, 3, 3)))] = 10.0
        return np.where(seen, drawn, np.float32(-10.0))


def stack_of(balls: list[Ball], planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 64, 64) uint8, and which ball is where."""
    pixels, truth = np.zeros((planes, 64, 64), np.uint8), np.zeros((planes, 64, 64), int)
    for number, (y, x, radius, first, last, bright) in enumerate(balls, start=1):
        middle, half = (first + last) / 2, (last - first) / 2 + 0.5
        for z in range(first, last + 1):
            inside = disc((64, 64), (y, x), radius * (1 - 0.3 * abs(z - middle) / half))
            pixels[z][inside], truth[z][inside] = round(255 * bright), number
    return pixels, truth


def tracked(pixels: np.ndarray, depth: bool | None = True, **asked: object) -> np.ndarray:
    session = Session(pixels, model=BrightIslands())
    session.frames.intensity = IntensityRange((0.0,), (255.0,))
    session.settings = replace(session.settings, depth=depth)
    visited = [frame for frame, _ in session.track("island", **asked)]  # type: ignore[arg-type]
    assert visited == list(range(len(pixels)))[asked.get("start") : asked.get("stop")]  # type: ignore[misc]
    return np.asarray(session.labels)


def assert_same_objects(labels: np.ndarray, truth: np.ndarray) -> None:
    assert len(np.unique(labels)) == len(np.unique(truth))
    for number in np.unique(truth)[1:]:
        inside = truth == number
        ids, counts = np.unique(labels[inside], return_counts=True)
        found = labels == ids[counts.argmax()]
        assert ids[counts.argmax()] > 0
        assert (found & inside).sum() > 0.75 * (found | inside).sum()
        assert np.array_equal(found.any(axis=(1, 2)), inside.any(axis=(1, 2)))


def test_the_fake_finds_and_draws() -> None:
    assert isinstance(BrightIslands(), VolumeModel) and isinstance(BrightIslands(), ConceptModel)


def test_of_two_objects_above_each_other_each_has_its_own_planes() -> None:
    pixels, truth = stack_of([(30, 30, 8, 2, 7, 0.5), (31, 30, 8, 8, 14, 1.0)], 18)
    assert_same_objects(tracked(pixels), truth)
    # A memory that links planes goes from one into the other.
    assert len(np.unique(tracked(pixels, depth=False))) == 2


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 30))
def test_objects_anywhere_are_found_to_their_ends(seed: int, planes: int) -> None:
    rng = np.random.default_rng(seed)
    balls = []
    for y in (14, 46):
        for x in (14, 46):
            first = int(rng.integers(0, planes - 2))
            last = int(rng.integers(first + 1, min(planes, first + 12)))
            balls.append((y, x, rng.uniform(5, 10), first, last, rng.uniform(0.4, 1.0)))
    pixels, truth = stack_of(balls, planes)
    assert_same_objects(tracked(pixels), truth)


def test_an_object_deeper_than_any_window_is_one() -> None:
    pixels, truth = stack_of([(30, 30, 9, 1, 38, 0.8)], 40)
    labels = tracked(pixels)
    assert len(np.unique(labels)) == 2
    assert ((labels > 0) == (truth > 0)).mean() > 0.98


def test_a_run_tells_of_planes_while_an_object_is_open_and_ends_when_told_to() -> None:
    pixels, _ = stack_of([(30, 30, 9, 0, 29, 0.8)], 30)
    session = Session(pixels, model=BrightIslands())
    session.settings = replace(session.settings, depth=True)
    told: list[tuple[int, int]] = []
    seen_before = 0

    def look(done: int, total: int) -> bool:
        told.append((done, total))
        return done < 9

    for count, (frame, _labels) in enumerate(session.track("island", progress=look)):
        assert frame == count
        seen_before = seen_before or len(told)
    assert told == [(number, 30) for number in range(1, 10)] and seen_before == 9
    # What was looked at is kept, as one step.
    labels = np.asarray(session.labels)
    assert labels[:9].any(axis=(1, 2)).all() and not labels[9:].any()
    session.undo()
    assert not np.asarray(session.labels).any()


def test_what_is_on_one_plane_alone_never_was_unless_there_is_no_other() -> None:
    pixels, _ = stack_of([(30, 30, 8, 5, 5, 1.0)], 12)
    assert not tracked(pixels).any()
    assert len(np.unique(tracked(pixels[5:6]))) == 2


def test_planes_that_were_not_asked_for_stay_as_they_are() -> None:
    pixels, truth = stack_of([(30, 30, 8, 2, 9, 1.0)], 12)
    labels = tracked(pixels, start=4, stop=8)
    assert not labels[:4].any() and not labels[8:].any()
    assert ((labels[4:8] > 0) == (truth[4:8] > 0)).mean() > 0.97


def test_planes_are_given_out_before_the_whole_stack_has_been_searched() -> None:
    pixels, _ = stack_of([(20, 20, 8, 2, 6, 1.0), (44, 44, 8, 30, 36, 0.7)], 40)
    session = Session(pixels, model=BrightIslands())
    session.settings = replace(session.settings, depth=True)
    run = session.track("island")
    assert next(run)[0] == 0
    assert len(session.model.seen) <= AHEAD + 2  # type: ignore[attr-defined]


def test_all_of_it_is_one_step_to_undo() -> None:
    pixels, _ = stack_of([(30, 30, 8, 2, 7, 0.5), (12, 50, 6, 3, 9, 1.0)], 12)
    session = Session(pixels, model=BrightIslands())
    session.settings = replace(session.settings, depth=True)
    list(session.track("island"))
    assert np.asarray(session.labels).any()
    session.undo()
    assert not np.asarray(session.labels).any()


def test_divisions_are_of_time_so_they_keep_to_the_memory() -> None:
    pixels, _ = stack_of([(30, 30, 8, 2, 7, 0.5), (31, 30, 8, 8, 14, 1.0)], 18)
    assert len(np.unique(tracked(pixels, settings=TrackSettings(divisions=True)))) == 2


def test_of_drawings_of_the_same_object_much_of_the_smaller_lies_in_the_other() -> None:
    def whole(first: int, last: int, x: int) -> Whole:
        mask = disc((64, 64), (30, x), 6)
        return Whole(first, {z: Carried.from_mask(mask) for z in range(first, last)})

    assert whole(2, 9, 20).covers(whole(5, 12, 20)) and whole(2, 30, 20).covers(whole(4, 6, 20))
    assert not whole(2, 9, 20).covers(whole(8, 20, 20))
    assert not whole(2, 9, 20).covers(whole(2, 9, 40))


@pytest.fixture(scope="module")
def nano() -> object:
    return segany.load_model("nano")


def found(pixels: np.ndarray, model: object, word: str, depth: bool | None) -> tuple[np.ndarray, bool | None]:
    session = Session(pixels, model=model)
    session.settings = replace(session.settings, depth=depth)
    list(session.track(word))
    return np.asarray(session.labels), session.settings.depth


def test_nano_finds_nuclei_in_depth(nano: object) -> None:
    pixels, truth = segany.samples.stack("nuclei-3d", seed=7)
    labels, _ = found(pixels, nano, "nucleus", True)
    assert average_precision(labels, truth) > 0.9


def test_nano_sees_depth_and_does_better_than_by_linking_planes_on_real_nuclei(nano: object, shared_data: Path) -> None:
    from skimage.io import imread

    pixels, truth = (imread(shared_data / "dev" / f"worm_nuclei_3d{part}.tif") for part in ("", "_labels"))
    whole, depth = found(pixels, nano, "nucleus", None)
    assert depth
    linked, _ = found(pixels, nano, "nucleus", False)
    assert average_precision(whole, truth, 0.3) > 0.5
    assert average_precision(whole, truth, 0.3) > average_precision(linked, truth, 0.3) + 0.1
