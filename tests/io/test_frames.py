"""Stacks out of arrays and files give the same planes."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from skimage.io import imsave

from napari_segany.core.errors import InvalidImageError, StorageError
from napari_segany.io.frames import open_frames

STACK = np.random.default_rng(0).integers(0, 60000, (7, 30, 40), dtype=np.uint16)


def zarr_array(path: Path) -> Path:
    zarr.create_array(store=path, data=STACK, chunks=(1, 16, 16))
    return path


def ome_zarr(path: Path, version: str) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("0", data=STACK, chunks=(1, 16, 16))
    group.create_array("1", data=STACK[:, ::2, ::2], chunks=(1, 16, 16))
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    scales = [[2.0, 0.5, 0.5], [2.0, 1.0, 1.0]]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": s}]} for i, s in enumerate(scales)
    ]
    document = {"version": version, "multiscales": [{"axes": axes, "datasets": datasets}]}
    group.attrs.update({"ome": document} if version == "0.5" else {"multiscales": document["multiscales"]})
    return path


SOURCES = {
    "numpy": lambda folder: STACK,
    "dask": lambda folder: da.from_array(STACK, chunks=(2, 15, 40)),
    "zarr": lambda folder: zarr.open_array(zarr_array(folder / "a.zarr")),
    "zarr path": lambda folder: zarr_array(folder / "a.zarr"),
    "ome-zarr 0.4": lambda folder: ome_zarr(folder / "a.ome.zarr", "0.4"),
    "ome-zarr 0.5": lambda folder: str(ome_zarr(folder / "a.ome.zarr", "0.5")),
    "tiff": lambda folder: tifffile.imwrite(folder / "a.tif", STACK, metadata={"axes": "ZYX"}) or folder / "a.tif",
    "levels": lambda folder: [STACK, STACK[:, ::2, ::2]],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_planes(kind: str, tmp_path: Path) -> None:
    frames = open_frames(SOURCES[kind](tmp_path))
    assert frames.shape == STACK.shape and frames.dtype == STACK.dtype and len(frames) == 7
    for i in (0, 3, 6):
        np.testing.assert_array_equal(frames[i], STACK[i])
    assert frames.intensity == open_frames(STACK).intensity


def test_planes_are_read_one_at_a_time() -> None:
    asked = []

    class Counting:
        shape, dtype, ndim = (1000, 2000, 2000), np.dtype(np.uint16), 3

        def __getitem__(self, index):
            asked.append(index)
            return np.zeros((2000, 2000), np.uint16)

    frames = open_frames(Counting())
    assert not asked
    frames[500]
    frames.intensity  # noqa: B018
    assert all(isinstance(index[0], int) for index in asked) and len(asked) < 12


def test_scale_and_levels_come_from_the_file(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.ome.zarr", "0.5")
    assert open_frames(path).scale == (2.0, 0.5, 0.5)
    assert open_frames(path, level=1).shape == (7, 15, 20)
    with pytest.raises(InvalidImageError, match="no resolution level 5"):
        open_frames(path, level=5)


def test_axes_by_name_and_further_positions() -> None:
    volume = np.random.default_rng(1).random((3, 4, 20, 30)).astype(np.float32)
    along_t = open_frames(volume, axes="tzyx", axis="t", index={"z": 2})
    np.testing.assert_array_equal(along_t[1], volume[1, 2])
    along_y = open_frames(volume, axes="tzyx", axis="y", index={"t": 0})
    np.testing.assert_array_equal(along_y[5], volume[0, :, 5])
    assert along_y.shape == (20, 4, 30)
    with pytest.raises(InvalidImageError, match="name its axes"):
        open_frames(volume)


def test_channels() -> None:
    stack = np.random.default_rng(2).integers(0, 255, (5, 2, 20, 30), dtype=np.uint8)
    both = open_frames(stack, axes="zcyx", axis="z")
    assert both.shape == (5, 20, 30, 2)
    np.testing.assert_array_equal(both[3], stack[3].transpose(1, 2, 0))
    one = open_frames(stack, axes="zcyx", axis="z", index={"c": 1})
    np.testing.assert_array_equal(one[3], stack[3, 1])


def test_a_2d_image_is_one_frame(tmp_path: Path) -> None:
    colour = np.random.default_rng(3).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    imsave(tmp_path / "a.png", colour)
    frames = open_frames(tmp_path / "a.png")
    assert frames.shape == (1, 20, 30, 3)
    np.testing.assert_array_equal(frames[0], colour)


def test_a_huge_array_opens_but_a_huge_plane_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.zarr"
    zarr.create_array(store=path, shape=(10**9, 10**6, 10**6), dtype="u1", chunks=(1, 1024, 1024))
    frames = open_frames(path)
    assert len(frames) == 10**9
    with pytest.raises(StorageError, match="GB"):
        frames[5]


def test_a_damaged_chunk_names_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(store=path, data=STACK, chunks=(1, 30, 40))
    chunk = path / "c" / "3" / "0" / "0"
    chunk.write_bytes(b"not a chunk")
    frames = open_frames(path)
    np.testing.assert_array_equal(frames[2], STACK[2])
    with pytest.raises(StorageError, match="Frame 3"):
        frames[3]


def test_metadata_may_not_point_outside(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.ome.zarr", "0.5")
    zarr_array(tmp_path / "secret.zarr")
    group = zarr.open_group(path)
    document = group.attrs["ome"]
    document["multiscales"][0]["datasets"][0]["path"] = "../secret.zarr"
    group.attrs["ome"] = document
    with pytest.raises(StorageError, match="outside"):
        open_frames(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.tif", "no file or folder"),
        (lambda folder: (folder / "a.txt").write_text("x") and folder / "a.txt", "unknown kind"),
        (lambda folder: (folder / "a.tif").write_text("x") and folder / "a.tif", "cannot be read"),
        (lambda folder: (folder / "empty").mkdir() or folder / "empty", "not a zarr"),
        (lambda folder: np.zeros((0, 5, 5)), "empty"),
        (lambda folder: np.zeros((3, 5, 5), complex), "real numbers"),
        (lambda folder: object(), "array or a path"),
    ],
)
def test_bad_sources_are_one_sentence(make, words: str, tmp_path: Path) -> None:
    with pytest.raises((StorageError, InvalidImageError), match=words) as caught:
        open_frames(make(tmp_path))
    assert "\n" not in str(caught.value)
