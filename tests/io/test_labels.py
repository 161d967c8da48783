"""Labels in OME-Zarr: what is written can be read by others, survives a kill, and has one writer."""

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_segany import api
from napari_segany.core.errors import InvalidLabelsError, StorageError
from napari_segany.io.journal import read_journal
from napari_segany.io.labels import MemoryLabels, ZarrLabels, open_labels

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
    # What is changed afterwards is not in the smaller levels: nobody is led to them until they are made again.
    labels.array()[1, :2, :2] = 4
    ome = zarr.open_group(labels.path / "labels" / "segany", mode="r").attrs["ome"]
    assert len(ome["multiscales"][0]["datasets"]) == 1 and ome["image-label"]["properties"]
    labels.finish()
    yaozarrs.validate_zarr_store(str(labels.path / "labels" / "segany"))
    assert group["1"][1, 0, 0] == 4
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


def in_another_process(path: Path) -> str:
    code = f"""
from napari_segany.io.labels import ZarrLabels
try:
    ZarrLabels({str(path)!r}, {SHAPE}).close()
    print("opened")
except OSError as error:
    print(error)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_second_writer_is_refused_until_the_first_has_closed(labels: ZarrLabels) -> None:
    answer = in_another_process(labels.path)
    assert f"Process {os.getpid()} of" in answer and "has been writing to out.zarr for 0 minutes" in answer
    labels.close()
    assert in_another_process(labels.path) == "opened\n"
    assert [file.name for file in labels.path.parent.iterdir()] == ["out.zarr"], "no lock is left behind"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which this system cannot")
def test_a_lock_is_free_when_its_owner_has_died_whatever_it_has_started(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    code = f"""
import os, time
from napari_segany.io.labels import ZarrLabels
labels = ZarrLabels({str(path)!r}, {SHAPE})
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    assert f"Process {owner.pid} of" in in_another_process(path)
    owner.kill()
    owner.wait()
    assert in_another_process(path) == "opened\n"
    os.kill(child, signal.SIGKILL)


def test_a_note_that_cannot_be_read_is_no_way_in(labels: ZarrLabels) -> None:
    (labels.path.parent / "out.zarr.lock.json").write_text("{")
    assert "Another process is writing to out.zarr" in in_another_process(labels.path)


def test_a_session_that_was_not_closed_keeps_no_one_out_of_its_own_process(labels: ZarrLabels) -> None:
    again = ZarrLabels(labels.path, SHAPE)
    labels.close()
    assert "has been writing" in in_another_process(labels.path), "the second still holds it"
    again.close()
    assert in_another_process(labels.path) == "opened\n"


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
    assert (tmp_path / "out.zarr.lock").exists(), "it died with the lock in its hands"
    leftover = path / "labels" / "segany" / "0" / "c" / "x.partial"
    leftover.write_text("half a frame")
    done = [event["frame"] for event in read_journal(path / "segany" / "journal.jsonl")]
    assert done == list(range(len(done))) and len(done) >= frames
    labels = open_labels(path)
    assert not leftover.exists()
    for frame in done:
        assert (labels.read(frame) == frame + 1).all()
    labels.write(len(done), np.ones((64, 64), np.int32))
    labels.close()


def test_a_full_disk_is_one_sentence(labels: ZarrLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    labels.write(0, plane(0))
    monkeypatch.setattr("zarr.storage.LocalStore.set", full)
    with pytest.raises(StorageError, match="No space left on device"):
        labels.write(1, plane(1))
    with pytest.raises(StorageError, match="No space left on device"):
        labels.finish()
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

    path = api.write_labels(plane(3), tmp_path / name)
    written = open_frames(path / "labels" / "segany" if name == "a.zarr" else path)
    np.testing.assert_array_equal(written[0], plane(3))
    with pytest.raises(StorageError, match="end it with"):
        api.write_labels(plane(3), tmp_path / "a.doc")


MISFITS = {
    "another shape": (0, np.zeros((300, 521), int), "got \\(300, 521\\)"),
    "one row": (0, np.zeros((1, 520), int), "got \\(1, 520\\)"),
    "a number": (0, np.int32(3), "got \\(\\)"),
    "fractions": (0, np.full((300, 520), 1.5), "integers"),
    "too large": (0, np.full((300, 520), 300), "300 does not fit into labels of dtype uint8"),
    "negative": (0, np.full((300, 520), -1), "-1 does not fit"),
    "no such frame": (4, np.zeros((300, 520), int), "Frame 4"),
    "from the end": (-1, np.zeros((300, 520), int), "Frame -1"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused_and_changes_nothing(case: str, tmp_path: Path) -> None:
    frame, wrong, words = MISFITS[case]
    for store in (ZarrLabels(tmp_path / "out.zarr", SHAPE, np.uint8), MemoryLabels(np.zeros(SHAPE, np.uint8))):
        store.write(3, np.full(SHAPE[1:], 200))
        with pytest.raises(InvalidLabelsError, match=words):
            store.write(frame, wrong)
        assert not store.read(0).any() and (store.read(3) == 200).all()


def test_painting_an_id_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    store = ZarrLabels(tmp_path / "out.zarr", SHAPE, np.uint8)
    with pytest.raises(InvalidLabelsError, match="wider dtype"):
        store.array()[1, :5, :5] = 256
    assert not store.read(1).any()
    store.close()


@pytest.mark.parametrize("shape", [(0, 30, 30), (3, 0, 30), (30, 30)])
def test_labels_without_pixels_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InvalidLabelsError, match="without zeros"):
        ZarrLabels(tmp_path / "out.zarr", shape)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_closed_labels_are_not_written(labels: ZarrLabels) -> None:
    labels.close()
    with pytest.raises(StorageError, match="were closed"):
        labels.write(0, plane(0))
    labels.close()


def ome_image(path: Path, zarr_format: int) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=np.zeros(SHAPE, np.uint16), chunks=(1, 256, 256))
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    multiscale = {
        "axes": [{"name": name, "type": "space"} for name in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [multiscale]}} if zarr_format == 3 else {"multiscales": [multiscale]}
    )
    return path


def test_labels_inside_an_image_leave_the_rest_of_it_alone(tmp_path: Path) -> None:
    from napari_segany.io.frames import open_frames

    yaozarrs = pytest.importorskip("yaozarrs", reason="the validator is in the extra 'test'")

    path = ome_image(tmp_path / "image.ome.zarr", 3)
    foreign = ZarrLabels(path, SHAPE, name="by hand")
    foreign.write(0, plane(9))
    foreign.close()
    (path / "0" / "theirs.partial").write_text("not ours to sweep")
    labels = ZarrLabels(path, SHAPE)
    labels.write(0, plane(1))
    labels.finish()
    labels.close()
    yaozarrs.validate_zarr_store(str(path))
    assert open_frames(path).shape == SHAPE and (path / "0" / "theirs.partial").exists()
    root = zarr.open_group(path, mode="r")
    assert root["labels"].attrs["ome"]["labels"] == ["by hand", "segany"]
    np.testing.assert_array_equal(root["labels/by hand/0"][0], plane(9))
    assert root["labels/segany"].attrs["ome"]["image-label"]["source"] == {"image": "../../"}
    ours = open_labels(path)
    np.testing.assert_array_equal(ours.read(0), plane(1))
    ours.close()


def test_an_image_of_the_older_format_is_not_touched(tmp_path: Path) -> None:
    from napari_segany.io.frames import open_frames

    path = ome_image(tmp_path / "image.zarr", 2)
    before = sorted(path.rglob("*"))
    with pytest.raises(StorageError, match="older zarr 2 format"):
        ZarrLabels(path, SHAPE)
    assert sorted(path.rglob("*")) == before and open_frames(path).shape == SHAPE


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "/etc"])
def test_names_of_labels_stay_inside(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="name of labels"):
        ZarrLabels(tmp_path / "out.zarr", SHAPE, name=name)


def test_metadata_that_a_killed_process_did_not_write_are_written(labels: ZarrLabels) -> None:
    labels.write(0, plane(0))
    labels.close()
    group = zarr.open_group(labels.path, mode="a")
    for part in ("labels", "labels/segany"):
        del group[part].attrs["ome"]
    with pytest.raises(StorageError, match="no labels that can be read"):
        open_labels(labels.path)
    ZarrLabels(labels.path, SHAPE).close()
    again = open_labels(labels.path)
    np.testing.assert_array_equal(again.read(0), plane(0))
    again.close()


def test_a_damaged_frame_does_not_spoil_the_others(labels: ZarrLabels) -> None:
    for frame in range(4):
        labels.write(frame, plane(frame))
    (labels.path / "labels" / "segany" / "0" / "c" / "1" / "0" / "0").write_bytes(b"not a shard" * 9)
    with pytest.raises(StorageError, match="Frame 1"):
        labels.read(1)
    with pytest.raises(StorageError, match="damaged"):
        labels.array()[1]
    with pytest.warns(UserWarning, match="Frame 1 .* was left out"):
        labels.finish()
    small = zarr.open_array(labels.path / "labels" / "segany" / "1", mode="r")
    np.testing.assert_array_equal(small[2], plane(2)[::2, ::2])
    labels.write(1, plane(7))
    np.testing.assert_array_equal(labels.read(1), plane(7))


def test_brushes_and_propagation_do_not_lose_each_others_pixels(labels: ZarrLabels) -> None:
    array = labels.array()
    other = ZarrLabels(labels.path, SHAPE)

    def paint(row: int) -> None:
        (array if row % 2 else other.array())[0, row] = row + 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(paint, range(60)))
    np.testing.assert_array_equal(labels.read(0)[:60, 0], np.arange(60) + 1)
    other.close()


def test_a_read_only_folder_is_refused_before_the_run() -> None:
    # Not pytest's folder, which only its owner can enter; the superuser may write anywhere, so step down.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)
        try:
            with pytest.raises(StorageError, match="cannot be written: Permission denied; choose another output"):
                ZarrLabels(folder / "out.zarr", SHAPE)
            assert not list(folder.iterdir())
        finally:
            if superuser:
                os.seteuid(0)


@given(
    st.sampled_from(["u1", "i2", "u2", "i4", "u4", "i8", "u8"]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 300), st.integers(1, 9)))
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_integer_labels_come_back(data: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ZarrLabels(Path(folder) / "out.zarr", data.shape, data.dtype)  # type: ignore[arg-type]
        for frame in reversed(range(len(data))):
            store.write(frame, data[frame])
        store.finish()
        store.close()
        again = open_labels(Path(folder) / "out.zarr")
        np.testing.assert_array_equal(np.asarray(again.array()), data)
        assert again.dtype == data.dtype
        again.close()
