"""Stacks out of arrays and files give the same planes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from skimage.io import imsave

from napari_segany.core.errors import InvalidImageError, StorageError
from napari_segany.core.intensity import IntensityRange
from napari_segany.io.frames import open_frames

STACK = np.random.default_rng(0).integers(0, 60000, (7, 30, 40), dtype=np.uint16)


def zarr_array(path: Path) -> Path:
    zarr.create_array(store=path, data=STACK, chunks=(1, 16, 16))
    return path


def ome_zarr(path: Path, version: str, scale_of_all: list[float] | None = None) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("0", data=STACK, chunks=(1, 16, 16))
    group.create_array("1", data=STACK[:, ::2, ::2], chunks=(1, 16, 16))
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    scales = [[2.0, 0.5, 0.5], [2.0, 1.0, 1.0]]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": s}]} for i, s in enumerate(scales)
    ]
    document = {"version": version, "multiscales": [{"axes": axes, "datasets": datasets}]}
    if scale_of_all:
        document["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": scale_of_all}]
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


def test_a_scale_common_to_all_levels_is_applied(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.ome.zarr", "0.4", scale_of_all=[3.0, 1.0, 10.0])
    assert open_frames(path).scale == (6.0, 0.5, 5.0)
    assert open_frames(path).source.units == dict.fromkeys("zyx", "micrometer")


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
        (lambda folder: np.zeros((3, 0, 5)), "empty"),
        (lambda folder: np.zeros(7), "two dimensions"),
        (lambda folder: [[1, 2], [3]], "not an array"),
        (lambda folder: ["a.tif", "b.tif"], "real numbers"),
        (lambda folder: np.array([["a", "b"]]), "real numbers"),
        (lambda folder: object(), "array or a path"),
        (lambda folder: Path(str(zarr.open_group(folder / "group", mode="w").store.root)), "no multiscales"),
        (lambda folder: (folder / "a.png").write_bytes(b"\x89PNG") and folder / "a.png", "cannot be read"),
    ],
)
def test_bad_sources_are_one_sentence(make, words: str, tmp_path: Path) -> None:
    with pytest.raises((StorageError, InvalidImageError), match=words) as caught:
        open_frames(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "<u2", ">u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", ">f4", "f8"]
)
def test_every_real_dtype(dtype: str, tmp_path: Path) -> None:
    stack = np.random.default_rng(4).integers(0, 100, (3, 20, 30)).astype(dtype)
    zarr.create_array(store=tmp_path / "a.zarr", data=stack, chunks=(1, 20, 30))
    # TIFF calls bits what others call bool.
    written = stack.view("u1") if dtype == "?" else stack
    tifffile.imwrite(tmp_path / "a.tif", written, photometric="minisblack", metadata={"axes": "ZYX"})
    for source in (stack, tmp_path / "a.zarr", tmp_path / "a.tif"):
        frames = open_frames(source)
        np.testing.assert_array_equal(frames[1], stack[1])
        assert frames.intensity == open_frames(stack).intensity


def test_five_axes_of_which_two_are_used(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w")
    group.create_array("0", data=STACK[None, None], chunks=(1, 1, 1, 16, 16))
    axes = [{"name": name} for name in "tczyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 0.5, 0.5]}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    frames = open_frames(tmp_path / "a.ome.zarr")
    assert frames.shape == STACK.shape and frames.scale == (2.0, 0.5, 0.5) and frames.axis_names == "zyx"
    np.testing.assert_array_equal(frames[4], STACK[4])
    reference = frames.reference()
    again = open_frames(reference.path, reference.axis or 0, reference.axes, reference.index)
    np.testing.assert_array_equal(again[4], STACK[4])


def test_pixel_sizes_of_imagej(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "spacing": 3.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(2.0, 4.0), metadata=metadata)
    frames = open_frames(tmp_path / "a.tif")
    assert frames.scale == (3.0, 0.25, 0.5) and frames.source.units["x"] == "um"
    np.testing.assert_array_equal(frames[6], STACK[6])


def test_pixel_sizes_of_ome_tiff(tmp_path: Path) -> None:
    metadata = {"axes": "TYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2, "TimeIncrement": 60.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata)
    frames = open_frames(tmp_path / "a.ome.tif")
    assert frames.scale == (60.0, 0.2, 0.1) and frames.axis_names == "tyx"
    assert frames.source.units == {"y": "µm", "x": "µm", "t": "s"}


def test_resolution_for_printing_is_no_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, resolution=(72, 72), resolutionunit="inch")
    assert open_frames(tmp_path / "a.tif").scale == (1.0, 1.0, 1.0)


def test_levels_of_a_tiff(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(STACK[0], subifds=1, metadata=metadata)
        tiff.write(STACK[0, ::2, ::2], subfiletype=1)
    small = open_frames(tmp_path / "a.ome.tif", level=1)
    assert small.scale == (1.0, 0.2, 0.2)
    np.testing.assert_array_equal(small[0], STACK[0, ::2, ::2])
    with pytest.raises(InvalidImageError, match="no resolution level 2"):
        open_frames(tmp_path / "a.ome.tif", level=2)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_was_cut_off_says_so(compression: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression=compression, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames = open_frames(path)
    np.testing.assert_array_equal(frames[1], STACK[1])
    with pytest.raises(StorageError, match="Frame 6"):
        frames[6]
    assert len(frames.intensity.low) == 1


def test_an_imagej_tiff_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(StorageError, match="should hold 7 planes"):
        open_frames(path)


def test_black_and_white_come_from_the_planes_that_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(store=path, data=STACK, chunks=(1, 30, 40))
    (path / "c" / "0" / "0" / "0").write_bytes(b"not a chunk")
    assert open_frames(path).intensity == open_frames(STACK[1:]).intensity
    for frame in range(7):
        (path / "c" / str(frame) / "0" / "0").write_bytes(b"not a chunk")
    with pytest.raises(StorageError, match="damaged"):
        open_frames(path).intensity  # noqa: B018


@pytest.mark.parametrize("mode", ["LA", "RGB", "L", "1"])
def test_pictures_are_never_taken_for_stacks(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (30, 4)).save(tmp_path / "a.png")
    frames = open_frames(tmp_path / "a.png")
    assert frames.shape[:3] == (1, 4, 30) and frames[0].shape[:2] == (4, 30)


def test_a_picture_that_unpacks_to_a_huge_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(StorageError, match="exceeds limit"):
        open_frames(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["tiff", "zarr"])
def test_a_stack_that_changes_under_the_run_says_so(kind: str, tmp_path: Path) -> None:
    stack = np.zeros((4, 30, 40), np.uint8)
    path = tmp_path / f"stack.{kind.replace('tiff', 'tif')}"

    def write(values: np.ndarray) -> None:
        if kind == "tiff":
            tifffile.imwrite(path, values, metadata={"axes": "ZYX"})
        else:
            zarr.create_array(path, data=values, chunks=(1, 30, 40), overwrite=True)

    write(stack)
    frames = open_frames(path)
    assert frames[1].shape == (30, 40)
    time.sleep(0.02)
    write(np.zeros((5, 30, 44), np.uint8))
    with pytest.raises(StorageError, match="has changed or gone since it was opened"):
        frames[1]


def test_closed_frames_say_so(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    with open_frames(tmp_path / "a.tif") as frames:
        np.testing.assert_array_equal(frames[2], STACK[2])
    with pytest.raises(StorageError, match="Frame 2"):
        frames[2]


def test_a_chosen_range_stays() -> None:
    frames = open_frames(STACK)
    frames.intensity = IntensityRange((5.0,), (9.0,))
    assert frames.intensity.high == (9.0,) and frames.reference().intensity.low == (5.0,)


@pytest.mark.parametrize("name", ["worm_nuclei_3d", "plant_ovule", "cancer_migration_timelapse"])
def test_real_stacks(name: str, shared_data: Path) -> None:
    paths = [path for path in sorted((shared_data / "dev").rglob("*.tif")) if name in str(path)]
    assert paths, f"no stack of {name}"
    for path in paths:
        whole = tifffile.imread(path)
        with open_frames(path) as frames:
            assert len(frames) == len(whole)
            np.testing.assert_array_equal(frames[len(frames) // 2], whole[len(whole) // 2])
            assert frames.intensity.low < frames.intensity.high


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, json, napari_segany.io.frames, napari_segany.io.labels, napari_segany.io.session_store; "
        "print(json.dumps([m for m in ('torch', 'qtpy', 'PySide6', 'napari', 'zarr', 'dask') if m in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []
