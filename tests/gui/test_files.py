"""Folders of ours in napari: opened as layers, saved from them, gone on with in the window."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from npe2 import PluginManifest

import napari_segany
from napari_segany import api
from napari_segany.core.errors import SeganyError, StorageError
from napari_segany.gui.files import get_reader
from tests.fakes import DiscModel, disc

PLUGIN = "napari-segany"
STACK = np.random.default_rng(0).integers(0, 200, (4, 40, 60), dtype=np.uint8)


@pytest.fixture(autouse=True)
def plugin(npe2pm: Any) -> None:
    npe2pm.register(PluginManifest.from_file(f"{napari_segany.__path__[0]}/napari.yaml"))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """An OME-Zarr of two levels, away from the origin."""
    path = tmp_path / "image.ome.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    datasets = []
    for level, data in enumerate((STACK, STACK[:, ::2, ::2])):
        root.create_array(str(level), data=data, chunks=(1, 20, 20))
        scale = {"type": "scale", "scale": [3.0, 0.5 * 2**level, 0.5 * 2**level]}
        shift = {"type": "translation", "translation": [6.0, 10.0, -4.0]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale, shift]})
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    root.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return path


def annotate(stack: Any, labels: Path | str, frame: int = 1, **kwargs: Any) -> None:
    """Leave a session with one object on all planes."""
    session = api.Session(stack, model=DiscModel(), labels=labels, **kwargs)
    session.prompt(1, frame, points=[(20, 25)])
    session.accept(1, frame)
    list(session.propagate())
    session.parents.update({(1, 2): 7})
    session.save(labels)
    session.close()


@pytest.mark.parametrize("shape", [(40, 60), (3, 40, 300), (2, 3, 40, 60)])
def test_saved_labels_come_back(make_napari_viewer: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    yaozarrs = pytest.importorskip("yaozarrs", reason="the validator is in the extra 'test'")
    viewer, path, ndim = make_napari_viewer(), tmp_path / "mine.zarr", len(shape)
    data = np.random.default_rng(0).integers(0, 5, shape, dtype=np.int32)
    scale, translate = (2.0, 3.0, 0.5, 0.25)[-ndim:], (7.0, 0.0, -2.0, 1.5)[-ndim:]
    layer = viewer.add_labels(da.from_array(data), scale=scale, translate=translate, axis_labels="tzyx"[-ndim:])
    assert layer.save(str(path), plugin=PLUGIN) == [str(path)]
    yaozarrs.validate_zarr_store(str(path / "labels" / "segany"))

    (opened,) = viewer.open(path, plugin=PLUGIN)
    assert type(opened).__name__ == "Labels" and opened.name == "mine labels"
    np.testing.assert_array_equal(np.asarray(opened.data), data)
    np.testing.assert_allclose(opened.scale, scale)
    np.testing.assert_allclose(opened.translate, translate)
    if ndim > 2:
        assert opened.axis_labels == tuple("tzyx"[-ndim:])
    if ndim < 4:
        opened.data_setitem(tuple(np.array(at) for at in ([0, 0], [5, 6], [7, 7])[-ndim:]), 9)
        assert zarr.open_array(path / "labels" / "segany" / "0", mode="r")[0, 6, 7] == 9
    # Once more, of a part of the viewer's layers, into the same place.
    viewer.layers.selection = {layer}
    assert viewer.layers.save(str(path), selected=True, plugin=PLUGIN) == [str(path)]
    np.testing.assert_array_equal(np.asarray(opened.data), data)


def test_labels_that_cannot_be_saved(make_napari_viewer: Any, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    viewer.add_labels(np.zeros((2, 40, 60), np.int32)).save(str(tmp_path / "a.zarr"), plugin=PLUGIN)
    with pytest.raises(StorageError, match="choose another output"):
        viewer.add_labels(np.zeros((3, 40, 60), np.int32)).save(str(tmp_path / "a.zarr"), plugin=PLUGIN)
    with pytest.raises(StorageError, match="not with the shape"):
        viewer.add_labels(np.zeros((1, 1, 1, 40, 60), np.int32)).save(str(tmp_path / "b.zarr"), plugin=PLUGIN)


def test_image_and_labels_of_a_folder_open_and_the_window_goes_on(open_bench: Any, stored: Path) -> None:
    annotate(stored, stored)
    bench = open_bench()
    image, labels = bench.viewer.open(stored, plugin=PLUGIN)
    assert image.multiscale and isinstance(image.data[0], da.Array)
    np.testing.assert_array_equal(np.asarray(image.data[1]), STACK[:, ::2, ::2])
    for layer in (image, labels):
        np.testing.assert_allclose(layer.data_to_world((1, 2, 4)), (9, 11, -2))
    bench.settle()
    bench.widget.images.image.choose(image)
    bench.viewer.dims.set_current_step(0, 2)
    bench.press("points")
    bench.settle()
    assert bench.controller.output.layer is labels, "no second layer of the same labels"
    bench.click(2, 30, 45)
    bench.key("J")
    on_disk = zarr.open_array(stored / "labels" / "segany" / "0", mode="r")
    np.testing.assert_array_equal(on_disk[2] == 2, disc(STACK.shape[1:], (30, 45), 5))
    np.testing.assert_array_equal(np.asarray(labels.data)[2], on_disk[2])
    (alone,) = bench.viewer.open(stored / "labels" / "segany", plugin=PLUGIN)
    np.testing.assert_array_equal(np.asarray(alone.data[0]), on_disk[0])


def test_saved_session_opens_with_its_image(open_bench: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cells.tif", np.stack([STACK, STACK]), metadata={"axes": "TZYX"}, imagej=True)
    annotate(tmp_path / "cells.tif", tmp_path / "Zellen über Nacht.zarr", axis="z", index={"t": 1})
    bench = open_bench()
    image, labels = bench.viewer.open(tmp_path / "Zellen über Nacht.zarr", plugin=PLUGIN)
    assert isinstance(image.data, da.Array) and image.data.shape == labels.data.shape == STACK.shape
    np.testing.assert_array_equal(np.asarray(image.data), STACK)
    bench.settle()
    bench.widget.images.image.choose(image)
    bench.viewer.dims.set_current_step(0, 2)
    bench.press("points")
    bench.settle()
    assert bench.controller.output.path == tmp_path / "Zellen über Nacht.zarr"
    assert bench.controller.layers.points.data.tolist() == [[1, 20, 25]], "its prompts come back"
    assert bench.controller.here()[0].session.parents == {(1, 2): 7}, "and who came from whom"
    # A new object in the middle, and the others stay.
    bench.click(2, 30, 45)
    bench.widget.propagate.only_current.setChecked(True)
    bench.propagate()
    for plane in np.asarray(labels.data):
        np.testing.assert_array_equal(plane == 1, disc(plane.shape, (20, 25), 5))
        np.testing.assert_array_equal(plane == 2, disc(plane.shape, (30, 45), 5))
    assert "Segmentation" not in bench.viewer.layers, "the labels are there already"

    (tmp_path / "cells.tif").rename(tmp_path / "moved.tif")
    with pytest.warns(UserWarning, match="shown without their image: There is no file"):
        assert len(bench.viewer.open(tmp_path / "Zellen über Nacht.zarr", plugin=PLUGIN)) == 1


def test_single_picture(make_napari_viewer: Any, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 200, (40, 60, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb")
    annotate(tmp_path / "a.tif", tmp_path / "a.segany.zarr", frame=0)
    image, labels = make_napari_viewer().open(tmp_path / "a.segany.zarr", plugin=PLUGIN)
    assert image.rgb and image.ndim == labels.ndim == 2
    assert labels.get_value((20, 25)) == 1


def test_damaged_folders_say_so(make_napari_viewer: Any, stored: Path) -> None:
    annotate(stored, stored)
    description = stored / "labels" / "segany" / "zarr.json"
    whole = json.loads(description.read_text())
    viewer = make_napari_viewer()
    damaged: list[Any] = [{**whole, "attributes": {}}, {}, "no json"]
    scales = json.loads(json.dumps(whole))
    scales["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 1]
    for document in (*damaged, scales):
        description.write_text(json.dumps(document))
        with pytest.raises(SeganyError) as caught:
            viewer.open(stored, plugin=PLUGIN)
        assert "\n" not in str(caught.value) and "labels" in str(caught.value)
    description.write_text(json.dumps(whole))
    (stored / "labels" / "segany" / "0" / "c" / "3" / "0" / "0").write_bytes(b"no shard")
    _, labels = viewer.open(stored, plugin=PLUGIN)
    assert np.asarray(labels.data[2]).any()
    with pytest.raises(StorageError, match="damaged"):
        np.asarray(labels.data[3])


def test_what_is_not_ours_is_left_to_others_at_once(tmp_path: Path, stored: Path) -> None:
    for path in (tmp_path, stored, tmp_path / "none.zarr", "https://host/a.zarr", [str(stored), str(stored)]):
        assert get_reader(path if isinstance(path, list) else str(path)) is None
    code = (
        "import sys; from napari_segany.gui.files import get_reader; get_reader('a.zarr'); "
        "print([m for m in ('torch', 'qtpy', 'napari', 'zarr', 'dask', 'tifffile', 'skimage') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
