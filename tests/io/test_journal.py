"""Every event that was appended is read again, whatever happened to the file in between."""

import os
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_segany.core.errors import StorageError
from napari_segany.io import journal as module
from napari_segany.io.journal import Journal, read_journal


def written(path: Path, count: int) -> bytes:
    journal = Journal(path)
    for frame in range(count):
        journal.append({"event": "frame", "frame": frame})
    journal.close()
    return path.read_bytes()


def frames(path: Path) -> list[int]:
    return [event["frame"] for event in read_journal(path)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), values)))
@settings(max_examples=40, deadline=None)
def test_any_events_come_back(events: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "segany" / "journal.jsonl"
        journal = Journal(path)
        for event in events:
            journal.append(event)
        journal.close()
        assert read_journal(path) == events


def test_no_journal_has_no_events(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == []


def test_a_file_cut_anywhere_keeps_its_whole_lines_and_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    whole = written(path, 3)
    line = len(whole) // 3
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = list(range(cut // line))
        assert frames(path) == kept
        if cut % 7 == 0:
            journal = Journal(path)
            journal.append({"event": "frame", "frame": 9})
            journal.close()
            assert frames(path) == [*kept, 9]


def test_a_damaged_line_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    data = bytearray(written(path, 5))
    data[len(data) // 5 + 20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match="Line 2"):
        assert frames(path) == [0, 2, 3, 4]
    Journal(path).close()
    assert path.read_bytes() == bytes(data), "opening it again throws nothing away"


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append({"event": "frame", "frame": 0})
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        journal.append({"event": "frame", "frame": 1})
    monkeypatch.undo()
    assert path.read_bytes() == before
    journal.append({"event": "frame", "frame": 2})
    journal.close()
    assert frames(path) == [0, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_device_without_space_is_one_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    handle = os.open("/dev/full", os.O_WRONLY)
    os.dup2(handle, journal._file.fileno())
    os.close(handle)
    with pytest.raises(StorageError, match="No space left on device"):
        journal.append({"event": "frame", "frame": 1})
    journal.close()


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda frame: journal.append({"frame": frame, "pad": "x" * 5000}), range(80)))
    journal.close()
    assert sorted(frames(tmp_path / "j.jsonl")) == list(range(80))


def test_a_closed_journal_and_a_newer_one_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.close()
    with pytest.raises(StorageError, match="was closed"):
        journal.append({})
    monkeypatch.setattr(module, "VERSION", 3)
    written(tmp_path / "new.jsonl", 1)
    monkeypatch.undo()
    with pytest.raises(StorageError, match="newer version"):
        read_journal(tmp_path / "new.jsonl")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        Journal(tmp_path / "file" / "j.jsonl")


def test_events_of_one_gesture_are_there_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append({"frame": 0}, {"frame": 1})
    journal.append({"frame": 2}, {"frame": 3})
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert frames(path) in ([], [0, 1])


def test_a_line_that_could_not_be_removed_is_removed_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append({"frame": 0})

    class Gone:
        """A file whose disk went away in the middle of a line."""

        closed = False

        def __init__(self, file) -> None:
            self.file, self.fileno = file, file.fileno

        def write(self, line: bytes) -> int:
            return self.file.write(line[:9])

        def truncate(self, size: int) -> None:
            raise OSError(5, "Input/output error")

    whole, journal._file = journal._file, Gone(journal._file)
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot be written"):
            journal.append({"frame": 1})
    journal._file = whole
    journal.append({"frame": 2})
    journal.close()
    assert frames(path) == [0, 2]


def line(body: str) -> bytes:
    return f"{zlib.crc32(body.encode()):08x} {body}\n".encode()


def test_journals_of_the_first_version_are_read(tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_bytes(line('{"version":1,"event":"frame","frame":4}'))
    assert read_journal(tmp_path / "j.jsonl") == [{"event": "frame", "frame": 4}]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "x",
        "[]",
        "5",
        "{}",
        '{"version":"2","events":[]}',
        '{"version":2}',
        '{"version":2,"events":[1]}',
        "[" * 99_999,
    ],
)
def test_lines_that_are_whole_and_make_no_sense_are_left_out(body: str, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(line(body) + line('{"version":2,"events":[{"frame":1}]}'))
    with pytest.warns(UserWarning, match="Line 1 of the journal"):
        assert frames(path) == [1]
