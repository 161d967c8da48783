"""A session's state comes back: as it was saved, with what was done since, and wherever the folder moved."""

import base64
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_segany.core.errors import StorageError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.prompts import Prompt
from napari_segany.core.state import ImageReference, SessionState
from napari_segany.io.session_store import Recorder, load_state, save_state, set_aside_damaged
from napari_segany.io.state_codec import decode_prompt, encode_prompt


def state_of(image: str | None = None) -> SessionState:
    reference = ImageReference(image, "tzyx", "z", {"t": 2}, (9, 40, 50), IntensityRange((1.5,), (900.0,)))
    clicks = Prompt(np.array([[3.0, 4.5], [5.0, 6.0]]), np.array([1, 0]))
    boxed = Prompt(
        box=np.array([1.0, 2.0, 30.0, 40.0]), mask=np.linspace(-9, 9, 2000, dtype=np.float32).reshape(40, 50)
    )
    return SessionState(
        reference,
        "nano",
        {(1, 4): clicks, (7, 0): boxed},
        {(1, 4): True},
        {(1, 4): 0.875, (7, 0): 0.5},
        {(7, 0): 1},
        {(1, 4): 2},
        {4, 5, 6},
    )


def assert_same(a: SessionState, b: SessionState) -> None:
    for name in ("image", "model", "accepted", "scores", "parents", "clicks", "finished"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.prompts.keys() == b.prompts.keys()
    for key, prompt in a.prompts.items():
        same_prompt(prompt, b.prompts[key])


def same_prompt(a: Prompt, b: Prompt) -> None:
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.box is None) == (b.box is None) and (a.mask is None) == (b.mask is None)
    if a.box is not None:
        np.testing.assert_array_equal(a.box, b.box)
    if a.mask is not None:
        np.testing.assert_allclose(b.mask, np.clip(a.mask, -65504, 65504), rtol=1e-3, atol=1e-6)


def test_a_saved_state_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "s.zarr", state_of())
    assert_same(load_state(tmp_path / "s.zarr"), state_of())
    assert [file.name for file in (tmp_path / "s.zarr" / "segany").iterdir()] == ["session.json"]


finite = st.floats(-1e6, 1e6)
low, high = st.floats(0, 2), st.floats(3, 5)
prompts = st.builds(
    Prompt,
    hnp.arrays(np.float64, (3, 2), elements=st.floats(0, 4)),
    hnp.arrays(np.int64, 3, elements=st.integers(0, 1)),
    st.none() | st.tuples(low, low, high, high).map(np.array),
    st.none() | hnp.arrays(np.float32, (5, 7), elements=st.floats(-1e8, 1e8, width=32)),
)


@given(prompts)
def test_any_prompt_comes_back(prompt: Prompt) -> None:
    back = decode_prompt(json.loads(json.dumps(encode_prompt(prompt))), (5, 7))
    same_prompt(prompt, back)
    if prompt.mask is not None:
        assert np.isfinite(back.mask).all() and ((back.mask > 0) <= (prompt.mask > 0)).all()


@given(
    st.lists(
        st.tuples(st.just("scores"), st.integers(1, 3), st.integers(0, 2), st.none() | finite)
        | st.tuples(st.just("accepted"), st.integers(1, 3), st.integers(0, 2), st.none() | st.just(True))
    )
)
@settings(max_examples=30, deadline=None)
def test_what_was_done_since_is_replayed(tmp_path_factory: pytest.TempPathFactory, changes: list) -> None:
    path = tmp_path_factory.mktemp("session") / "s.zarr"
    expected = state_of()
    save_state(path, expected)
    recorder = Recorder(path)
    for table, object_id, frame, value in changes:
        recorder([{"event": "set", "table": table, "object": object_id, "frame": frame, "value": value}])
        getattr(expected, table).pop((object_id, frame), None)
        if value is not None:
            getattr(expected, table)[object_id, frame] = value
    recorder([{"event": "frame", "frame": 8}])
    recorder.close()
    expected.finished.add(8)
    assert_same(load_state(path), expected)


def test_prompts_go_through_the_journal(tmp_path: Path) -> None:
    state = state_of()
    save_state(tmp_path / "s.zarr", state)
    recorder = Recorder(tmp_path / "s.zarr")
    new = Prompt(np.array([[1.0, 2.0]]), np.array([1]), mask=np.ones((40, 50), np.float32))
    recorder([{"event": "set", "table": "prompts", "object": 3, "frame": 1, "value": new}])
    recorder([{"event": "set", "table": "prompts", "object": 1, "frame": 4, "value": None}])
    recorder.close()
    back = load_state(tmp_path / "s.zarr")
    assert back.prompts.keys() == {(3, 1), (7, 0)}
    same_prompt(back.prompts[3, 1], new)


def test_a_recorder_goes_on_after_a_save(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    save_state(path, state_of())
    recorder = Recorder(path)
    recorder([{"event": "frame", "frame": 1}])
    saved = load_state(path)
    save_state(path, saved)
    assert not (path / "segany" / "journal.jsonl").read_bytes()
    recorder([{"event": "frame", "frame": 2}])
    recorder.close()
    assert load_state(path).finished == {1, 2, 4, 5, 6}


def test_image_and_session_can_move_together(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    image = old / "raw" / "stack.tif"
    image.parent.mkdir(parents=True)
    image.write_text("pixels")
    save_state(old / "s.zarr", state_of(str(image)))
    assert load_state(old / "s.zarr").image.path == str(image)
    shutil.move(old, new)
    assert load_state(new / "s.zarr").image.path == str(new / "raw" / "stack.tif")


def test_an_image_elsewhere_keeps_its_path(tmp_path: Path) -> None:
    save_state(tmp_path / "a" / "s.zarr", state_of(str(tmp_path / "b" / "stack.tif")))
    assert load_state(tmp_path / "a" / "s.zarr").image.path == str(tmp_path / "b" / "stack.tif")


def changed(path: Path, change) -> None:
    file = path / "segany" / "session.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_a_relative_path_may_not_lead_outside(tmp_path: Path) -> None:
    save_state(tmp_path / "s.zarr", state_of(str(tmp_path / "stack.tif")))
    changed(tmp_path / "s.zarr", lambda document: document["image"].update(path="a/../../secret.tif"))
    with pytest.raises(StorageError, match="not trusted"):
        load_state(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("image"),
        lambda document: document.update(version="x"),
        lambda document: document["image"]["intensity"].update(low=["black"]),
        lambda document: document["image"].update(axes=5),
        lambda document: document["image"].update(shape=[9, 10**30, -4]),
        lambda document: document["image"].update(index={"t": "two"}),
    ],
)
def test_damage_names_the_file_and_what_is_whole(change, tmp_path: Path) -> None:
    save_state(tmp_path / "s.zarr", state_of())
    changed(tmp_path / "s.zarr", change)
    with pytest.raises(StorageError, match=r"session\.json is damaged; the labels beside it are whole") as caught:
        load_state(tmp_path / "s.zarr")
    assert "\n" not in str(caught.value)


def bomb(size: int) -> str:
    """Zeros without end, packed small."""
    return base64.b64encode(zlib.compress(bytes(size))).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries[1].pop(),
        lambda entries: entries[1][2]["mask"].update(data="AAAA"),
        lambda entries: entries[1][2]["mask"].update(shape=[10**9, 10**9]),
        lambda entries: entries[1][2]["mask"].update(shape=[0, 50], data=bomb(10**8)),
        lambda entries: entries[1][2]["mask"].update(data=bomb(10**8)[:-9]),
        lambda entries: entries[1][2].update(box=[5, 5, 5, 5]),
        lambda entries: entries[1][2].update(points=[[float("nan"), 1]], labels=[1]),
        lambda entries: entries[1].__setitem__(0, 2**80),
        lambda entries: entries[1].__setitem__(0, -7),
        lambda entries: entries[1].__setitem__(1, 10**9),
        lambda entries: entries[1].__setitem__(2, "prompt"),
    ],
)
def test_a_damaged_entry_is_left_out_and_the_rest_opens(change, tmp_path: Path) -> None:
    save_state(tmp_path / "s.zarr", state_of())
    changed(tmp_path / "s.zarr", lambda document: change(document["prompts"]))
    with pytest.warns(UserWarning, match="1 of the prompts in .* are damaged and were left out"):
        back = load_state(tmp_path / "s.zarr")
    expected = state_of()
    del expected.prompts[7, 0]
    assert_same(back, expected)


def test_a_newer_session_and_none_say_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no session"):
        load_state(tmp_path / "s.zarr")
    save_state(tmp_path / "s.zarr", state_of())
    changed(tmp_path / "s.zarr", lambda document: document.update(version=99))
    with pytest.raises(StorageError, match="newer version"):
        load_state(tmp_path / "s.zarr")


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.zarr"
    save_state(path, state_of())
    recorder = Recorder(path)
    recorder([{"event": "frame", "frame": 8}])

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot be saved.*No space left"):
        save_state(path, SessionState(state_of().image, "other"))
    monkeypatch.undo()
    recorder.close()
    back = load_state(path)
    assert back.model == "nano" and 8 in back.finished, "neither the state nor the journal was given up"


def test_sessions_of_the_first_version_open(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    save_state(path, state_of())
    file = path / "segany" / "session.json"
    document = json.loads(file.read_text())
    del document["parents"]
    file.write_text(json.dumps(document))
    assert load_state(path).parents == {}


def test_a_damaged_session_is_kept_when_a_new_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    folder = path / "segany"
    for number in (1, 2):
        save_state(path, state_of())
        recorder = Recorder(path)
        recorder([{"event": "frame", "frame": 8}])
        recorder.close()
        set_aside_damaged(path)
        assert (folder / "session.json").exists(), "nothing was wrong with it"
        (folder / "session.json").write_text(f"{number}{{")
        set_aside_damaged(path)
        assert (folder / f"session.json.damaged-{number}").read_text() == f"{number}{{"
        assert b"frame" in (folder / f"journal.jsonl.damaged-{number}").read_bytes()
    assert not (folder / "session.json").exists() and not (folder / "journal.jsonl").exists()


def test_nothing_is_written_into_a_session_of_a_newer_version(tmp_path: Path) -> None:
    save_state(tmp_path / "s.zarr", state_of())
    changed(tmp_path / "s.zarr", lambda document: document.update(version=99))
    with pytest.raises(StorageError, match="newer version"):
        set_aside_damaged(tmp_path / "s.zarr")


def test_what_a_full_disk_refused_is_written_with_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    save_state(path, state_of())
    recorder = Recorder(path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        recorder([{"event": "frame", "frame": 7}])
    monkeypatch.undo()
    assert 7 not in load_state(path).finished
    recorder([{"event": "frame", "frame": 8}])
    recorder.close()
    assert {7, 8} <= load_state(path).finished


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": "set", "table": "scores"},
        {"event": "set", "table": "scores", "object": 1, "frame": 0, "value": "best"},
        {"event": "set", "table": "scores", "object": 1, "frame": 0, "value": [1]},
        {"event": "set", "table": "accepted", "object": 1, "frame": 99, "value": True},
        {"event": "set", "table": "parents", "object": 1, "frame": 0, "value": 2.5},
        {"event": "set", "table": "prompts", "object": 1, "frame": 0, "value": {"points": [[99, 0]], "labels": [1]}},
        {"event": "frame", "frame": "last"},
        {"event": "frame", "frame": -1},
    ],
)
def test_a_damaged_event_is_left_out_and_the_rest_is_replayed(event: dict, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    save_state(path, state_of())
    recorder = Recorder(path)
    recorder._journal.append(event)
    recorder([{"event": "frame", "frame": 8}])
    recorder.close()
    expected = state_of()
    expected.finished.add(8)
    with pytest.warns(UserWarning, match="An event in the journal of .* is damaged"):
        assert_same(load_state(path), expected)
