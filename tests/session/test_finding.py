"""Concepts in images larger than a tile: no seams, no doubles, no ids lost."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_segany.core.concepts import Examples
from napari_segany.core.errors import InvalidPromptError, UnsupportedError
from napari_segany.core.instances import Instances, best_of_overlapping
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.settings import FindSettings
from napari_segany.session.finding import find
from napari_segany.session.tiling import tiles
from tests.fakes import DiscEmbedding, DiscModel

NONE = np.zeros((0, 4))
RANGE = IntensityRange((0.0,), (255.0,))


@dataclass(frozen=True)
class IslandEmbedding(DiscEmbedding):
    image: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))


class Islands(DiscModel):
    """Finds every bright island, as far as the image it is shown reaches."""

    words = ("island",)

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Examples] = []
        self.seen: list[tuple[int, int]] = []

    def embed(self, image, intensity=None):  # type: ignore[no-untyped-def]
        self.seen.append(image.shape[:2])
        embedding = super().embed(image, intensity)
        return IslandEmbedding(embedding.image_shape, self.name, np.asarray(image))

    def describe(self, text, examples):  # type: ignore[no-untyped-def]
        self.shown = list(examples)
        return text

    def find(self, embedding, described, settings):  # type: ignore[no-untyped-def]
        labels, count = ndimage.label(embedding.image > 0)
        found = [
            ((rows.start, cols.start, rows.stop, cols.stop), labels[rows, cols] == i + 1)
            for i, (rows, cols) in enumerate(ndimage.find_objects(labels))
        ]
        # What is cut off at an edge is seen less surely.
        return Instances.from_patches(embedding.image_shape, found, np.linspace(0.9, 0.6, count))


def islands(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Bars and blobs, some longer than a tile."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, dtype=np.uint8)
    for _ in range(12):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        height, width = rng.integers(2, 14, 2)
        if rng.random() < 0.3:
            height, width = (70, 4) if rng.random() < 0.5 else (4, 70)
        image[y : y + height, x : x + width] = 200
    return image


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(60, 150), st.integers(60, 150), st.integers(32, 80))
def test_tiles_find_what_the_whole_image_shows(seed: int, height: int, width: int, tile: int) -> None:
    image = islands(seed, (height, width))
    choice = FindSettings(tile=tile, tile_overlap=16)
    whole = find(Islands(), image, "island", NONE, NONE, FindSettings(tile=1000), RANGE)
    tiled = find(Islands(), image, "island", NONE, NONE, choice, RANGE)
    truth = {whole.mask(i).tobytes() for i in range(len(whole))}
    assert len(tiled) == len(whole)
    assert {tiled.mask(i).tobytes() for i in range(len(tiled))} == truth


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(64, 1024), st.integers(0, 63))
def test_tiles_cover_the_image_and_overlap(height: int, width: int, side: int, overlap: int) -> None:
    windows = list(tiles((height, width), side, overlap))
    for axis, extent in ((0, height), (1, width)):
        spans = sorted({(window[axis], window[axis + 2]) for window in windows})
        assert spans[0][0] == 0 and spans[-1][1] == extent
        assert all(stop - start == min(side, extent) for start, stop in spans)
        assert all(a[1] - b[0] >= overlap for a, b in pairwise(spans))


def test_only_tiles_are_read_of_a_large_image() -> None:
    model = Islands()
    find(model, islands(3, (300, 200)), "island", NONE, NONE, FindSettings(tile=64, tile_overlap=16), RANGE)
    assert set(model.seen) == {(64, 64)} and len(model.seen) > 20


def test_examples_are_shown_in_the_middle_of_their_surroundings() -> None:
    model = Islands()
    boxes = np.array([[100.0, 150.0, 110.0, 165.0]])
    others = np.array([[2.0, 3.0, 12.0, 13.0]])
    find(model, islands(3, (300, 200)), None, boxes, others, FindSettings(tile=64, tile_overlap=16), RANGE)
    first, second = model.shown
    assert first.boxes[0].tolist() == [27, 24, 37, 39] and len(first.negatives) == 0
    assert second.negatives[0].tolist() == [2, 3, 12, 13] and len(second.boxes) == 0


def test_an_example_larger_than_a_tile_is_refused() -> None:
    with pytest.raises(InvalidPromptError, match="larger than a tile of 64"):
        find(Islands(), islands(0, (300, 200)), None, np.array([[0.0, 0, 100, 20]]), NONE, FindSettings(tile=64), RANGE)


def test_something_must_be_looked_for() -> None:
    with pytest.raises(InvalidPromptError, match="Say what to look for"):
        find(Islands(), islands(0, (30, 20)), None, NONE, NONE, FindSettings(), RANGE)


def test_models_without_concepts_say_so() -> None:
    with pytest.raises(UnsupportedError, match="does not find concepts"):
        find(DiscModel(), islands(0, (30, 20)), "island", NONE, NONE, FindSettings(), RANGE)


def test_small_objects_can_be_left_out() -> None:
    image = np.zeros((40, 40), dtype=np.uint8)
    image[2:4, 2:4] = image[10:20, 10:20] = 1
    found = find(Islands(), image, "island", NONE, NONE, FindSettings(min_area=10), RANGE)
    assert found.boxes.tolist() == [[10, 10, 20, 20]]


def test_of_overlapping_masks_the_best_stays() -> None:
    square = np.ones((10, 10), dtype=bool)
    found = [((0, 0, 10, 10), square), ((1, 1, 11, 11), square), ((30, 30, 40, 40), square)]
    assert best_of_overlapping(found, np.array([0.5, 0.9, 0.4]), 0.5) == [1, 2]
    assert best_of_overlapping(found, np.array([0.5, 0.9, 0.4]), 0.95) == [1, 0, 2]


def test_of_a_mask_in_another_the_better_stays_when_asked_for() -> None:
    whole, part = np.ones((10, 10), dtype=bool), np.ones((4, 4), dtype=bool)
    found = [((0, 0, 10, 10), whole), ((2, 2, 6, 6), part)]
    assert best_of_overlapping(found, np.array([0.9, 0.5]), 0.5) == [0, 1]
    assert best_of_overlapping(found, np.array([0.9, 0.5]), 0.5, contained=0.6) == [0]
    assert best_of_overlapping(found, np.array([0.5, 0.9]), 0.5, contained=0.6) == [1]
