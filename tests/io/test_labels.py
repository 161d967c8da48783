"""Labels in OME-Zarr: what is written can be read by others, survives a kill, and has one writer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_segany.core.errors import InvalidLabelsError, StorageError
from napari_segany.io.journal import Journal, read_journal
from napari_segany.io.labels import MemoryLabels, ZarrLabels, open_labels, write_image

SHAPE = (4, 300, 520)


@pytest.fixture
def labels(tmp_path: Path):
    store = ZarrLabels(tmp_path / "out.zarr", SHAPE, scale=(2.0, 0.5, 0.5))
    yield store
    store.close()


def plane(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, SHAPE[1:]).astype(np.int32)


def test_frames_come_back_from_plain_zarr(labels: ZarrLabels) -> None:
    for i in (0, 2):
        labels.write(i, plane(i))
    plain = zarr.open_array(labels.path / "labels" / "segany" / "0", mode="r")
    np.testing.assert_array_equal(plain[2], plane(2))
    assert not plain[1].any() and plain.shards == (1, 512, 768)


def test_the_result_is_valid_ome_ngff_with_a_nearest_pyramid(labels: ZarrLabels) -> None:
    yaozarrs = pytest.importorskip("yaozarrs", reason="the validator is in the extra 'test'")
    labels.write(1, plane(1))
    labels.finish({3: {"score": 0.9}})
    yaozarrs.validate_zarr_store(str(labels.path / "labels" / "segany"))
    group = zarr.open_group(labels.path / "labels" / "segany", mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5" and [axis["name"] for axis in ome["multiscales"][0]["axes"]] == ["z", "y", "x"]
    scales = [d["coordinateTransformations"][0]["scale"] for d in ome["multiscales"][0]["datasets"]]
    assert scales == [[2.0, 0.5, 0.5], [2.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    np.testing.assert_array_equal(group["1"][1], plane(1)[::2, ::2])
    scores = {p["label-value"]: p.get("score") for p in ome["image-label"]["properties"]}
    assert scores[3] == 0.9 and scores[1] is None
    assert zarr.open_group(labels.path, mode="r")["labels"].attrs["ome"]["labels"] == ["segany"]


def test_reopening_keeps_frames_and_can_go_on(labels: ZarrLabels) -> None:
    labels.write(0, plane(0))
    labels.close()
    again = open_labels(labels.path)
    np.testing.assert_array_equal(again.read(0), plane(0))
    again.write(1, plane(1))
    assert again.dtype == np.int32 and again.shape == SHAPE
    again.close()


def test_the_array_can_be_sliced_and_painted(labels: ZarrLabels) -> None:
    array = labels.array()
    array[1, 10:20, 10:20] = 7
    array[np.array([2, 2]), np.array([5, 6]), np.array([5, 6])] = 9
    assert (np.asarray(array[1])[10:20, 10:20] == 7).all()
    assert array[2][5, 5] == 9 and array[2][6, 6] == 9 and array[2].sum() == 18
    assert np.asarray(array).shape == SHAPE


def test_bits_that_flip_are_noticed(labels: ZarrLabels) -> None:
    labels.write(0, plane(0))
    chunk = labels.path / "labels" / "segany" / "0" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 4
    chunk.write_bytes(bytes(data))
    with pytest.raises(StorageError, match="Frame 0"):
        labels.read(0)


def test_a_second_writer_is_refused_and_a_dead_one_is_not(labels: ZarrLabels) -> None:
    code = f"""
from napari_segany.io.labels import ZarrLabels
try:
    ZarrLabels({str(labels.path)!r}, {SHAPE})
except OSError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"Process {os.getpid()}" in answer and "has been writing to out.zarr" in answer
    labels.close()
    dead = {"host": __import__("socket").gethostname(), "pid": 2**22 + 5, "since": time.time()}
    (labels.path.parent / "out.zarr.lock").write_text(json.dumps(dead))
    ZarrLabels(labels.path, SHAPE).close()


WRITER = """
import sys, numpy as np
from pathlib import Path
from napari_segany.io.labels import ZarrLabels
from napari_segany.io.journal import Journal
path = Path(sys.argv[1])
labels = ZarrLabels(path, (200, 64, 64))
journal = Journal(path / "segany" / "journal.jsonl")
for frame in range(200):
    labels.write(frame, np.full((64, 64), frame + 1, np.int32))
    journal.append({"event": "frame", "frame": frame})
    print(frame, flush=True)
"""


@pytest.mark.parametrize("frames", [3, 11, 24])
def test_kill_loses_at_most_the_frame_in_flight(frames: int, tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(frames):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    done = [event["frame"] for event in read_journal(path / "segany" / "journal.jsonl")]
    assert done == list(range(len(done))) and len(done) >= frames
    labels = open_labels(path)
    for frame in done:
        assert (labels.read(frame) == frame + 1).all()
    labels.close()


def test_a_torn_journal_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append({"event": "frame", "frame": 1})
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'deadbeef {"version":1,"ev')
    again = Journal(path)
    again.append({"event": "frame", "frame": 2})
    again.close()
    assert [event["frame"] for event in read_journal(path)] == [1, 2]


def test_a_full_disk_is_one_sentence(labels: ZarrLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    labels.write(0, plane(0))
    monkeypatch.setattr("zarr.storage.LocalStore.set", full)
    with pytest.raises(StorageError, match="No space left on device"):
        labels.write(1, plane(1))
    monkeypatch.undo()
    np.testing.assert_array_equal(labels.read(0), plane(0))
    labels.write(1, plane(1))


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_labels_must_be_integers(dtype: type, tmp_path: Path) -> None:
    with pytest.raises(InvalidLabelsError, match="integers"):
        ZarrLabels(tmp_path / "out.zarr", SHAPE, dtype)
    with pytest.raises(InvalidLabelsError, match="integers"):
        MemoryLabels(np.zeros(SHAPE, dtype))


def test_labels_of_another_shape_and_foreign_folders_are_left_alone(labels: ZarrLabels, tmp_path: Path) -> None:
    labels.close()
    with pytest.raises(InvalidLabelsError, match="another output"):
        ZarrLabels(labels.path, (4, 300, 521))
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years")
    with pytest.raises(StorageError, match="not a zarr folder"):
        ZarrLabels(tmp_path / "papers", SHAPE)
    assert (tmp_path / "papers" / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.zarr"])
def test_single_images(name: str, tmp_path: Path) -> None:
    from napari_segany.io.frames import open_frames

    path = write_image(plane(3), tmp_path / name)
    written = open_frames(path / "labels" / "segany" if name == "a.zarr" else path)
    np.testing.assert_array_equal(written[0], plane(3))
    with pytest.raises(StorageError, match="end it with"):
        write_image(plane(3), tmp_path / "a.doc")
