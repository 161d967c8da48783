"""Planes, tiles and objects on a cluster of two processes, of which one dies."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import distributed
import numpy as np
import pytest
import zarr

import napari_segany as segany
from napari_segany.cluster import connection, deliveries
from napari_segany.core.errors import ClusterError, StorageError, UnknownModelError, UnsupportedError
from napari_segany.core.settings import EverythingSettings
from napari_segany.io.journal import read_journal
from napari_segany.io.labels import ZarrLabels
from tests.cluster import plugin
from tests.fakes import DiscModel
from tests.session.test_tiling import BoxedIslands
from tests.test_labelling import labels_of, stack_of


@pytest.fixture
def image(tmp_path: Path) -> Path:
    zarr.create_array(tmp_path / "stack.zarr", data=stack_of(8), chunks=(1, 48, 48))
    return tmp_path / "stack.zarr"


def kill_one(address: str) -> int:
    """Kill -9 a worker; its process id."""
    with distributed.Client(address, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    return victim


def test_nothing_is_lost_or_doubled_when_a_worker_is_killed(address: str, image: Path, tmp_path: Path) -> None:
    here = segany.label(image, tmp_path / "here.zarr", model=BoxedIslands(40))
    killed = []

    def kill(done: int, _: int) -> None:
        if done == 2:
            killed.append(kill_one(address))

    there = segany.label(image, tmp_path / "there.zarr", model="slow:0.02", scheduler=address, progress=kill)
    assert killed and there == here
    np.testing.assert_array_equal(labels_of(tmp_path / "there.zarr"), labels_of(tmp_path / "here.zarr"))
    noted = Counter(event["frame"] for event in read_journal(tmp_path / "there.zarr" / "segany" / "planes.jsonl"))
    assert noted == Counter(range(8))


def test_a_task_whose_worker_died_is_done_by_another(address: str, image: Path, tmp_path: Path) -> None:
    model = f"faint:{tmp_path / 'fainted'}"
    done = segany.label(image, tmp_path / "out.zarr", model=model, scheduler=address)
    assert (tmp_path / "fainted").exists()
    assert done == segany.label(image, tmp_path / "here.zarr", model=BoxedIslands(40))


def test_a_damaged_plane_is_left_out_and_named(address: str, image: Path, tmp_path: Path) -> None:
    chunk = image / "c" / "3" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    done = segany.label(image, tmp_path / "out.zarr", model="slow:0", scheduler=address)
    assert [one.frame for one in done if one.damage] == [3] and "Frame 3 cannot be read" in done[3].damage


def test_objects_are_carried_by_several_workers(address: str, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "stack.zarr", data=np.zeros((7, 40, 50), np.uint8), chunks=(1, 40, 50))
    labels = []
    for where in (None, address):
        out = tmp_path / ("here.zarr" if where is None else "there.zarr")
        model = DiscModel() if where is None else "disc"
        session = segany.Session(tmp_path / "stack.zarr", model=DiscModel(), labels=out, scheduler=where)
        if where is not None:
            session._model_name = model
        for i, place in enumerate([(8, 9), (20, 20), (22, 26), (30, 40)]):
            session.prompt(i + 1, 3, points=[place, place], labels=[1, 1])
        assert [frame for frame, _ in session.propagate()] == [3, 4, 5, 6, 2, 1, 0]
        labels.append(np.asarray(session.labels))
        assert len(session.scores) == 4 * 7 and session.finished == set(range(7))
        assert session.undo() == "propagate" and not np.asarray(session.labels).any()
        session.close()
    np.testing.assert_array_equal(*labels)
    assert set(np.unique(labels[0])) == {0, 1, 2, 3, 4}


def test_a_cancelled_propagation_keeps_what_is_done_and_goes_on(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "stack.zarr", data=np.zeros((30, 40, 50), np.uint8), chunks=(1, 40, 50))
    here, out = segany.Session(tmp_path / "stack.zarr", model=DiscModel()), tmp_path / "out.zarr"
    there = segany.Session(tmp_path / "stack.zarr", model=DiscModel(), labels=out, scheduler=address)
    there._model_name = "disc:0.05"
    for session in (here, there):
        for i, place in enumerate([(8, 9), (20, 20), (30, 40)]):
            session.prompt(i + 1, 4 + i, points=[place, place], labels=[1, 1])
    whole = [frame for frame, _ in here.propagate()]
    with distributed.Client(address, set_as_default=False) as client:
        run = there.propagate()
        assert [next(run)[0] for _ in range(4)] == [4, 5, 6, 7]
        assert any(client.processing().values()), "frames arrive while workers go on"
        run.close()
        began = time.monotonic()
        while any(client.run(lambda: len(deliveries._OPEN)).values()):
            time.sleep(0.02)
        assert time.monotonic() - began < 0.7, "workers stop long before the end"
    assert there.finished == {4, 5, 6, 7}
    there.close()
    monkeypatch.setattr("napari_segany.api.load_model", lambda *_: DiscModel())
    again = segany.Session.open(out, model="disc:0.05", scheduler=address)
    killed, visited = [], []
    for frame, _ in again.propagate(resume=True):
        visited.append(frame)
        if len(visited) == 3:
            killed.append(kill_one(address))
    assert killed and visited == whole[4:], "the frames that both ways visit are visited again"
    np.testing.assert_array_equal(again.labels, here.labels)
    assert again.undo() == "propagate" and not np.asarray(again.labels)[8:].any()
    again.close()


def test_planes_are_encoded_ahead_by_several_workers(address: str, image: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    options = {"model": "kept", "scheduler": address, "progress": lambda *parts: told.append(parts)}
    assert segany.precompute(image, tmp_path / "e", **options) == 8 and told[-1] == (8, 8)
    assert segany.precompute(image, tmp_path / "e", **options) == 0
    assert segany.precompute(image, tmp_path / "e", plugin.Kept()) == 0
    # Searches keep their tiles there; planes that are no larger than one were encoded ahead.
    how = {"model": "kept", "detector": "slow:0", "scheduler": address}
    for side, kept in ((2048, 8), (64, 8 + 8 * 4)):
        settings = EverythingSettings(tile=side, tile_overlap=32)
        segany.label(image, tmp_path / "out.zarr", settings=settings, embeddings=tmp_path / "e", **how)
        assert len(list((tmp_path / "e").glob("*/*/zarr.json"))) == kept


def test_what_is_missing_is_said(address: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.zarr"
    with pytest.raises(UnknownModelError, match=r'On the worker tcp://.*: There is no model or file "none"'):
        segany.label(image, out, model="none", scheduler=address)
    with pytest.raises(ClusterError, match=r"offers GPU=1: start workers with .dask worker --resources GPU=1"):
        segany.label(image, out, model="slow:0", scheduler=address, resources={"GPU": 1})
    with pytest.raises(UnsupportedError, match="path of the stack"):
        segany.label(stack_of(2), out, model="slow:0", scheduler=address)
    with pytest.raises(UnsupportedError, match="by their names or paths"):
        segany.label(image, out, model=BoxedIslands(40), scheduler=address)
    monkeypatch.setattr(connection, "PATIENCE", 1.0)
    with pytest.raises(ClusterError, match=r"No Dask scheduler answers at tcp://127.0.0.1:9"):
        segany.label(image, out, model="slow:0", scheduler="tcp://127.0.0.1:9")


def test_work_is_placed_where_resources_are(address: str, image: Path, tmp_path: Path) -> None:
    done = segany.label(image, tmp_path / "out.zarr", model="slow:0", scheduler=address, resources={"ROOM": 1})
    assert len(done) == 8


def test_workers_load_the_detector_too_and_look_at_the_region(address: str, image: Path, tmp_path: Path) -> None:
    how = {"region": (10, 5, 90, 70), "resume": True}
    there = segany.label(image, tmp_path / "there.zarr", model="disc", detector="slow:0", scheduler=address, **how)
    here = segany.label(image, tmp_path / "here.zarr", model=DiscModel(), detector=BoxedIslands(40), **how)
    assert there == here and len(here) == 8 and all(one.objects for one in here)
    np.testing.assert_array_equal(labels_of(tmp_path / "there.zarr"), labels_of(tmp_path / "here.zarr"))


def test_two_writers_of_one_output_are_refused(address: str, image: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    out = tmp_path / "out.zarr"
    code = f"""
import sys, time
from napari_segany.io.labels import ZarrLabels
store = ZarrLabels({str(out)!r}, (8, 96, 96))
print("open", flush=True)
sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "open\n"
    try:
        with pytest.raises(StorageError, match=r"has been writing to out\.zarr .*; close it first"):
            segany.label(image, out, model="slow:0", scheduler=address)
    finally:
        other.communicate("")
    ZarrLabels(out, (8, 96, 96)).close()


def test_an_output_that_is_taken_away_is_said(address: str, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"

    def take_away(done: int, _: int) -> None:
        if done == 2:
            out.rename(tmp_path / "elsewhere.zarr")

    with pytest.raises(StorageError, match=r"On the worker tcp://.*: Could not write frame \d to .*out\.zarr"):
        segany.label(image, out, model="slow:0.02", scheduler=address, progress=take_away)


def test_work_that_kills_every_worker_is_given_up() -> None:
    class Dead:
        def result(self) -> None:
            raise distributed.KilledWorker("look", None, 3)

    class Bare:
        def result(self) -> None:
            raise ModuleNotFoundError("No module named 'napari_segany'")

    class Lost:
        def result(self) -> None:
            raise distributed.client.FutureCancelledError("look", "scheduler-connection-lost")

    with pytest.raises(ClusterError, match="Plane 3 was cut off: the scheduler is gone"):
        connection.result_of(Lost(), "Plane 3")
    with pytest.raises(ClusterError, match="Plane 3 has brought down several workers, probably for lack of memory"):
        connection.result_of(Dead(), "Plane 3")
    with pytest.raises(ClusterError, match="install it where they run"):
        connection.result_of(Bare(), "Plane 3")
