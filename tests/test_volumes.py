"""Volumes over time from end to end: generated nuclei that wander and divide, found by nano, exported and read back."""

import json
import subprocess
import sys
from pathlib import Path

import geff
import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter
from tifffile import imread, imwrite

import napari_segany as segany
from napari_segany.core.errors import InvalidImageError, InvalidLabelsError

TIMES, SHAPE = 3, (4, 100, 100)
#: Centre (z, y, x) and radius at the first time, and how far it goes until the next.
WANDERING = {1: ((2, 26, 28), 13, (0, 2, 1)), 2: ((1, 30, 74), 12, (0, 0, -3))}


def nuclei() -> tuple[np.ndarray, np.ndarray]:
    """A stack (T, Z, Y, X) uint8 and its truth; nucleus 3 divides into 4 and 5 at the third time."""
    rng = np.random.default_rng(3)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    truth = np.zeros((TIMES, *SHAPE), dtype=np.int32)

    def draw(time: int, label: int, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> None:
        inside = sum(((axis - at) / r) ** 2 for axis, at, r in zip((z, y, x), centre, radii, strict=True))
        truth[time][inside < 1] = label

    for time in range(TIMES):
        for label, (start, radius, step) in WANDERING.items():
            centre = tuple(a + time * b for a, b in zip(start, step, strict=True))
            draw(time, label, centre, (2.2, radius, radius))  # type: ignore[arg-type]
        if time < 2:
            draw(time, 3, (2, 74, 50), (2.2, 12, 21))
        else:
            draw(time, 4, (2, 74, 38), (2.2, 11, 10))
            draw(time, 5, (2, 74, 62), (2.2, 11, 10))
    image = gaussian_filter((truth > 0).astype(np.float32), (0, 0.4, 1.0, 1.0)) + 0.08
    image += 0.04 * rng.standard_normal(image.shape)
    return (np.clip(image, 0, 1.2) * 200).astype(np.uint8), truth


def test_track_volumes_on_the_command_line(tmp_path: Path) -> None:
    image, truth = nuclei()
    imwrite(tmp_path / "s.tif", image, metadata={"axes": "TZYX"})
    command = ["track", tmp_path / "s.tif", "--text", "nucleus", "--divisions", "-o", tmp_path / "o.zarr", "--json"]
    answer = subprocess.run(
        [sys.executable, "-m", "napari_segany.cli", *map(str, command)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    tracks = {one["object"]: one for one in json.loads(answer.stdout)["tracks"]}
    labels = np.asarray(zarr.open_array(tmp_path / "o.zarr/labels/segany/0"))
    assert labels.shape == truth.shape
    named = {}
    for object_id in range(1, 6):
        where = truth == object_id
        there = [time for time in range(TIMES) if where[time].any()]
        ids = [int(np.bincount(labels[time][where[time]]).argmax()) for time in there]
        assert len(set(ids)) == 1 and ids[0] > 0, (object_id, ids)
        named[object_id] = ids[0]
        for time in there:
            found = labels[time] == ids[0]
            assert (found & where[time]).sum() > 0.6 * (found | where[time]).sum()
    assert len(set(named.values())) == len(named) == len(tracks)
    assert {tracks[named[daughter]]["parent"] for daughter in (4, 5)} == {named[3]}
    assert all(tracks[named[one]]["parent"] == 0 for one in (1, 2, 3))
    # Divisions are known where the labels are.
    assert segany.export_tracks(tmp_path / "o.zarr", tmp_path / "tracks.geff") == 5
    graph, described = geff.read(tmp_path / "tracks.geff")
    assert [axis.name for axis in described.axes] == ["t", "z", "y", "x"]
    assert sorted(dict(graph.out_degree()).values())[-1] == 2
    segany.export_tracks(tmp_path / "o.zarr", tmp_path / "01_RES")
    assert imread(tmp_path / "01_RES" / "mask002.tif").shape == SHAPE


def test_stacks_that_are_no_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match='need the axes "t" and "z"'):
        segany.VolumeSession(np.zeros((3, 9, 9)))
    session = segany.VolumeSession(np.zeros((2, 3, 9, 9), np.uint8), labels=tmp_path / "o.zarr")
    session.close()
    with pytest.raises(InvalidLabelsError, match="choose another output"):
        segany.VolumeSession(np.zeros((2, 4, 9, 9), np.uint8), labels=tmp_path / "o.zarr")
