"""Everything in tiles, planes of any size, lower resolutions: what comes out is what the whole image shows."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_segany.api import everything, find
from napari_segany.core.errors import StorageError, UnsupportedError
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.masks import Candidates, LogitsGrid, bounding_box, mask_iou
from napari_segany.core.settings import EverythingSettings, FindSettings
from napari_segany.io.frames import open_frames
from napari_segany.io.labels import ZarrLabels
from napari_segany.session.everything import EverythingSearch
from napari_segany.session.planes import PlaneSearch, enlarged, label_planes
from napari_segany.session.tiling import search
from tests.fakes import DiscModel
from tests.session.test_finding import IslandEmbedding, Islands, islands

RANGE = IntensityRange((0.0,), (255.0,))


class BoxedIslands(DiscModel):
    """Proposes a box around every bright island it is shown, and answers with the island inside."""

    def __init__(self, tile: int, overlap: int = 16) -> None:
        super().__init__("islands")
        self.everything_settings = EverythingSettings(
            overlap_threshold=0.5, max_share=1.0, tile=tile, tile_overlap=overlap
        )
        self.seen: list[tuple[int, ...]] = []

    def embed(self, image, intensity=None):
        self.seen.append(image.shape)
        return IslandEmbedding(image.shape[:2], self.name, np.asarray(image))

    def propose_boxes(self, embedding) -> np.ndarray:
        labels, _ = ndimage.label(embedding.image > 0)
        boxes = [(r.start, c.start, r.stop, c.stop) for r, c in ndimage.find_objects(labels)]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)

    def predict(self, embedding, prompts, multimask="auto"):
        labels, _ = ndimage.label(embedding.image > 0)
        answers = []
        for prompt in prompts:
            y0, x0, y1, x1 = prompt.box.astype(int)
            inside = labels[y0:y1, x0:x1]
            # The island that the box is tight around, not its neighbours.
            own = next(
                i for i in np.unique(inside[inside > 0]) if bounding_box(inside == i) == (0, 0, y1 - y0, x1 - x0)
            )
            logits = np.where(inside == own, 8.0, -8.0).astype(np.float32)[None]
            rows, cols = (np.eye(extent, dtype=np.float32) for extent in inside.shape)
            answers.append(
                Candidates(
                    logits, np.ones(1, np.float32) * 0.9, LogitsGrid(embedding.image_shape, (y0, x0), rows, cols)
                )
            )
        return answers


def masks(found: Instances) -> set[bytes]:
    return {found.mask(i).tobytes() for i in range(len(found))}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(60, 150), st.integers(60, 150), st.integers(32, 80))
def test_everything_in_tiles_is_everything_in_the_whole(seed: int, height: int, width: int, tile: int) -> None:
    image = islands(seed, (height, width))
    whole = search(BoxedIslands(1000), image, EverythingSearch(), RANGE)
    tiled = search(BoxedIslands(tile), image, EverythingSearch(), RANGE)
    assert len(tiled) == len(whole) == ndimage.label(image)[1]
    assert masks(tiled) == masks(whole)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(0, 120)] * 4), st.integers(32, 80), st.booleans())
def test_a_region_shows_what_the_part_cut_out_shows(
    seed: int, corners: tuple[int, int, int, int], tile: int, concept: bool
) -> None:
    image = islands(seed, (110, 130))
    (y0, y1), (x0, x1) = sorted(corners[:2]), sorted(corners[2:])
    region = min(y0, 109), x0, y1 + 1, x1 + 1
    if concept:
        how = FindSettings(tile=tile, tile_overlap=16)
        model, ask = Islands(), lambda pixels, **where: find(pixels, "island", settings=how, **where)
    else:
        model, ask = BoxedIslands(tile), everything
    found = ask(image, model=model, intensity=RANGE, region=region)
    y0, x0, y1, x1 = region
    part = ask(image[y0:y1, x0:x1], model=model, intensity=RANGE)
    inside = np.zeros_like(image)
    inside[y0:y1, x0:x1] = image[y0:y1, x0:x1]
    assert len(found) == len(part) == ndimage.label(inside)[1]
    np.testing.assert_array_equal(found.labels[y0:y1, x0:x1], part.labels)
    np.testing.assert_array_equal(found.labels > 0, inside > 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 100), st.integers(0, 100), st.integers(1, 60), st.integers(1, 60))
def test_labels_of_a_window_are_a_window_of_the_labels(seed: int, y: int, x: int, height: int, width: int) -> None:
    found = search(BoxedIslands(1000), islands(seed, (100, 100)), EverythingSearch(), RANGE)
    window = (y, x, min(y + height, 100), min(x + width, 100))
    np.testing.assert_array_equal(found.labels_in(window), found.labels[y : y + height, x : x + width])


def stack_of_islands(folder: Path, shape: tuple[int, ...], chunk: int) -> Path:
    path = folder / "stack.zarr"
    array = zarr.create_array(path, shape=shape, chunks=(1, chunk, chunk), dtype=np.uint8)
    for frame in range(shape[0]):
        for y in range(0, shape[1], chunk):
            # Written by rows of chunks, for the whole is never in memory.
            array[frame, y : y + chunk] = islands(frame + y, (chunk, shape[2]))
    return path


def test_a_plane_larger_than_its_share_of_memory_is_labelled_tile_by_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, tile = 1536, 256
    path = stack_of_islands(tmp_path, (1, side, side), tile)
    monkeypatch.setattr("napari_segany.io.frames.free_memory", lambda: 2 * side * side)
    monkeypatch.setattr("napari_segany.io.ngff.SHARD", 512)
    monkeypatch.setattr("napari_segany.io.frames.LARGE_PLANE", 1 << 20)
    model = BoxedIslands(tile, 64)
    frames = open_frames(path)
    with pytest.raises(StorageError, match="One plane of 1536 x 1536"):
        frames[0]
    store = ZarrLabels(tmp_path / "out.zarr", (1, side, side))
    plane = PlaneSearch(model, frames, EverythingSearch())
    tracemalloc.start()
    done = list(label_planes(plane, range(1), store.write_blocks, (side, side)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * side * side, "less than half of the labels of one plane"
    assert set(model.seen) == {(tile, tile)}
    store.finish()
    store.close()
    for frame, result in enumerate(done):
        truth, count = ndimage.label(np.asarray(zarr.open_array(path)[frame]))
        labels = np.asarray(store.read(frame))
        assert result.frame == frame and result.objects == count == len(np.unique(labels)) - 1
        # The same partition: every island has one id, every id one island.
        assert len(np.unique(truth.astype(np.int64) * 10**6 + labels)) == count + 1
    pyramid = zarr.open_array(tmp_path / "out.zarr" / "labels" / "segany" / "2")
    np.testing.assert_array_equal(pyramid[0], store.read(0)[::4, ::4])


def test_tiles_that_consist_of_overlap_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="Tiles of 32 pixels cannot overlap by 32"):
        search(BoxedIslands(32, 32), islands(0, (60, 60)), EverythingSearch(), RANGE)


def test_a_damaged_plane_is_left_out_and_named(tmp_path: Path) -> None:
    path = stack_of_islands(tmp_path, (3, 64, 64), 64)
    chunk = path / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    frames = open_frames(path)
    frames.intensity = RANGE
    written = []
    plane = PlaneSearch(BoxedIslands(64), frames, EverythingSearch())
    done = list(label_planes(plane, range(3), lambda frame, labels: written.append(frame), (64, 64)))
    assert written == [0, 2] and [bool(one.damage) for one in done] == [False, True, False]
    assert "Frame 1 cannot be read" in done[1].damage


def test_what_is_found_at_a_lower_resolution_is_written_at_full(tmp_path: Path) -> None:
    full = np.kron(islands(5, (50, 70)), np.ones((4, 4), np.uint8))
    small = search(BoxedIslands(1000), full[::4, ::4], EverythingSearch(), RANGE)
    labels_in = enlarged(small, (200, 280))
    whole = labels_in((0, 0, 200, 280))
    truth = search(BoxedIslands(1000), full, EverythingSearch(), RANGE)
    assert len(truth) == len(small)
    for i in range(len(truth)):
        assert max(mask_iou(whole == k + 1, truth.mask(i)) for k in range(len(small))) == 1.0
    np.testing.assert_array_equal(labels_in((13, 50, 90, 201)), whole[13:90, 50:201])
    # A plane whose sides are not multiples of the level's.
    assert enlarged(small, (199, 277))((0, 0, 199, 277)).shape == (199, 277)
