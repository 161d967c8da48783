"""A disk that fails at any moment costs nothing: one sentence, and the work goes on when it is well again."""

import errno
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import napari_segany as segany
from napari_segany import api
from napari_segany.core.errors import StorageError
from tests.disk import ANSWERS, Disk
from tests.fakes import DiscModel, disc
from tests.session.test_tiling import BoxedIslands
from tests.test_labelling import labels_of, stack_of

SHAPE = (5, 40, 50)
STACK = np.zeros(SHAPE, np.uint8)
TABLES = ("prompts", "accepted", "scores", "parents", "clicks")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def session(disk: Disk, tmp_path: Path) -> Iterator[api.Session]:
    opened = api.Session(STACK, model=DiscModel(), labels=tmp_path / "work.zarr")
    yield opened
    opened.close()


def at(y: int, x: int) -> np.ndarray:
    return disc(SHAPE[1:], (y, x), 6)


GESTURES: list[Callable[[api.Session], object]] = [
    lambda s: s.accept(1, 0, mask=at(10, 10)),
    lambda s: s.prompt(2, 2, points=[(30, 30)]),
    lambda s: s.accept(2, 2),
    lambda s: list(s.propagate([2])),
    lambda s: s.undo(),
    lambda s: s.redo(),
    lambda s: s.accept(1, 3, mask=at(29, 31), overwrite=True),
    lambda s: s.remove(2),
    lambda s: s.undo(),
    lambda s: s.save(s.store.path),
    lambda s: list(s.propagate([1], direction="backward")),
]


def tables(session: api.Session) -> dict[str, object]:
    known: dict[str, object] = {name: dict(getattr(session, name)) for name in TABLES[1:]}
    prompts = {key: (p.points.tolist(), p.labels.tolist()) for key, p in session.prompts.items()}
    return {**known, "prompts": prompts, "finished": set(session.finished)}


def run(session: api.Session) -> list[str]:
    """Do everything, again and again where it fails; returns the sentences that were shown."""
    sentences: list[str] = []
    for gesture in GESTURES:
        while True:
            try:
                gesture(session)
                break
            except StorageError as error:
                sentences.append(str(error))
    return sentences


@pytest.mark.parametrize("first", [0, 1, 2, 3, 7, 18, 33, 50, 70])
@pytest.mark.parametrize("count", [1, 9])
def test_a_disk_that_fails_for_a_while_costs_nothing(
    session: api.Session, disk: Disk, tmp_path: Path, first: int, count: int
) -> None:
    answer = list(ANSWERS)[first % len(ANSWERS)]
    disk.fail(first, count, answer)
    sentences = run(session)
    assert sentences, "it failed, and nobody was told"
    for sentence in sentences:
        assert ANSWERS[answer] in sentence and "\n" not in sentence and str(tmp_path) in sentence
    # Everything that changed can be taken back, and done again.
    before, known = np.array(session.labels), tables(session)
    while session.undo() is not None:
        pass
    assert not np.array(session.labels).any() and not session.prompts and not session.accepted
    while session.redo() is not None:
        pass
    np.testing.assert_array_equal(np.array(session.labels), before)
    assert tables(session) == known
    # What was not written then is written by now.
    session.close()
    with_all = api.Session.open(tmp_path / "work.zarr", stack=STACK, model=DiscModel())
    np.testing.assert_array_equal(np.array(with_all.labels), before)
    assert tables(with_all) == known
    with_all.close()


def test_without_faults_nothing_fails(session: api.Session, disk: Disk) -> None:
    assert run(session) == [] and disk.writes > 70


def test_a_full_disk_pauses_a_propagation_that_then_goes_on(session: api.Session, disk: Disk) -> None:
    session.accept(1, 0, mask=at(20, 25))
    seen = []
    disk.fail(5, 1)
    with pytest.raises(StorageError, match="No space left"):
        for frame, _ in session.propagate():
            seen.append(frame)
    assert 0 < len(seen) < len(STACK)
    rest = [frame for frame, _ in session.propagate(resume=True)]
    assert {*seen, *rest} == set(range(len(STACK))) and rest[0] not in seen
    assert all((session.labels[frame] == 1).any() for frame in range(len(STACK)))


@pytest.mark.parametrize("answer", [errno.ENOSPC, errno.EIO])
def test_labelling_that_a_full_disk_stopped_goes_on(disk: Disk, tmp_path: Path, answer: int) -> None:
    stack, out = stack_of(5, 48), tmp_path / "out.zarr"
    segany.label(stack, tmp_path / "whole.zarr", model=BoxedIslands(100))
    beginning = disk.writes
    segany.label(stack[:1], tmp_path / "one.zarr", model=BoxedIslands(100))
    # In the middle of the planes, wherever that is.
    disk.fail(beginning // 2, 10**6, answer)
    with pytest.raises(StorageError, match=ANSWERS[answer]):
        segany.label(stack, out, model=BoxedIslands(100))
    disk.failing = range(0)
    left = [one.frame for one in segany.label(stack, out, model=BoxedIslands(100), resume=True)]
    assert 0 < len(left) < 5 and left[-1] == 4
    np.testing.assert_array_equal(labels_of(out), labels_of(tmp_path / "whole.zarr"))


def test_a_full_disk_when_a_session_begins_leaves_the_place_free(disk: Disk, tmp_path: Path) -> None:
    api.Session(STACK, model=DiscModel(), labels=tmp_path / "whole.zarr").close()
    for first in range(disk.writes):
        disk.fail(first, 1)
        with pytest.raises(StorageError, match="No space left"):
            api.Session(STACK, model=DiscModel(), labels=tmp_path / f"{first}.zarr")
        session = api.Session(STACK, model=DiscModel(), labels=tmp_path / f"{first}.zarr")
        session.accept(1, 0, mask=at(10, 10))
        session.close()
        again = api.Session.open(tmp_path / f"{first}.zarr", stack=STACK, model=DiscModel())
        assert again.accepted == {(1, 0): True}
        again.close()


def test_a_slow_disk_keeps_nobody_from_looking(session: api.Session, disk: Disk) -> None:
    session.accept(1, 0, mask=at(10, 10))
    session.embedding(0)
    disk.delay = 0.2
    writing = threading.Thread(target=session.accept, args=(2, 0, at(30, 30)))
    writing.start()
    time.sleep(0.05)
    began = time.monotonic()
    assert session.is_embedded(0) and (session.labels[0] == 1).any() and session.uncertainty(1)[0] == 0
    assert time.monotonic() - began < 0.15 and writing.is_alive()
    disk.delay = 0.0
    writing.join()
    assert (session.labels[0] == 2).any()


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder of nobody's; the superuser, who may write anywhere, steps down."""
    superuser = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if superuser:
            Path(folder).chmod(0o777)
            os.seteuid(65534)
        yield Path(folder)
        if superuser:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="rights of files are those of POSIX")
def test_rights_that_are_taken_away_and_given_back(nobodys: Path) -> None:
    path = nobodys / "work.zarr"
    session = api.Session(STACK, model=DiscModel(), labels=path)
    session.accept(1, 0, mask=at(10, 10))
    planes, state = path / "labels" / "segany" / "0" / "c", path / "segany"
    for folder in (planes, state):
        folder.chmod(0o555)
    with pytest.raises(StorageError, match="Permission denied"):
        session.accept(2, 1, mask=at(20, 20))
    with pytest.raises(StorageError, match=r"Permission denied|cannot be saved"):
        session.save(path)
    assert not session.labels[1].any() and (2, 1) not in session.accepted
    for folder in (planes, state):
        folder.chmod(0o755)
    session.accept(2, 1, mask=at(20, 20))
    session.save(path)
    session.close()
    again = api.Session.open(path, stack=STACK, model=DiscModel())
    assert set(again.accepted) == {(1, 0), (2, 1)} and (again.labels[1] == 2).any()
    again.close()
