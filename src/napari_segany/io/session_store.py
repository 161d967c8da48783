"""Sessions on disk: a state file beside the labels, and the journal of what came after it."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from napari_segany.core.durable import replacing
from napari_segany.core.errors import StorageError
from napari_segany.core.state import TABLES, SessionState
from napari_segany.io.journal import Journal, read_journal
from napari_segany.io.state_codec import DAMAGE, decode_entry, decode_state, encode_state, encode_value

VERSION = 1


def _folder(path: Path) -> Path:
    return path / "segany"


def save_state(path: Path, state: SessionState) -> None:
    """Write the state of a session beside its labels, in one step, and start a new journal.

    Raises
    ------
    StorageError
    """
    document = {"version": VERSION, **encode_state(state, path)}
    folder = _folder(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "session.json") as new:
            new.write_text(json.dumps(document))
        journal = folder / "journal.jsonl"
        if journal.exists():
            # Emptied in place: whoever appends to it goes on doing so, on Windows too.
            os.truncate(journal, 0)
    except OSError as error:
        raise StorageError(f"The session cannot be saved in {path}: {error.strerror or error}.") from error


def load_state(path: Path) -> SessionState:
    """Read the state of a session and replay its journal; single entries that are damaged are left out with a warning.

    Raises
    ------
    StorageError
        No session there, one whose state file is damaged or not trusted, or one of a newer version.
    """
    file = _folder(path) / "session.json"
    try:
        state = _parse(_read(file, path), path)
    except DAMAGE as error:
        raise StorageError(
            f"The state file {file} is damaged; the labels beside it are whole and can be opened with "
            f"labels={str(path)!r}."
        ) from error
    for event in read_journal(_folder(path) / "journal.jsonl"):
        try:
            replay(state, event)
        except DAMAGE:
            warnings.warn(f"An event in the journal of {path} is damaged and was left out.", stacklevel=2)
    return state


def _read(file: Path, path: Path) -> str:
    try:
        return file.read_text()
    except (FileNotFoundError, NotADirectoryError):
        raise StorageError(f"{path} holds no session; its labels can be opened with labels={str(path)!r}.") from None
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise StorageError(f"The session {file} cannot be read: {error.strerror or error}.") from error


def _parse(text: str, path: Path) -> SessionState:
    document = json.loads(text)
    if document["version"] > VERSION:
        raise StorageError(f"The session in {path} was written by a newer version; update napari-segany.")
    return decode_state(document, path)


def set_aside_damaged(path: Path) -> None:
    """Rename a state file that cannot be read, and its journal, so that a new session does not write over them.

    Raises
    ------
    StorageError
        It was written by a newer version, is not trusted, or cannot be read or renamed.
    """
    file = _folder(path) / "session.json"
    if not file.exists():
        return
    try:
        _parse(_read(file, path), path)
    except DAMAGE:
        number = 1
        while any((file.parent / f"{name}.damaged-{number}").exists() for name in (file.name, "journal.jsonl")):
            number += 1
        try:
            for old in (file.parent / "journal.jsonl", file):
                if old.exists():
                    old.replace(old.with_name(f"{old.name}.damaged-{number}"))
        except OSError as error:
            raise StorageError(f"The session cannot be saved in {path}: {error.strerror or error}.") from error


def replay(state: SessionState, event: dict[str, Any]) -> None:
    """Apply one journal event to a state."""
    if event["event"] == "set" and event["table"] in TABLES:
        key, value = decode_entry(event["table"], event["object"], event["frame"], event["value"], state.image)
        entries = getattr(state, event["table"])
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
    elif event["event"] == "frame":
        key, _ = decode_entry("", 1, event["frame"], None, state.image)
        state.finished.add(key[1])
    elif event["event"] == "run":
        state.finished.clear()


class Recorder:
    """Writes what a session announces into the journal beside its labels.

    What could not be written, for example to a full disk, is written together
    with what comes next, unless the session is saved before.
    """

    def __init__(self, path: Path) -> None:
        self._journal_path = _folder(path) / "journal.jsonl"
        self._journal = Journal(self._journal_path)
        self._owed: list[dict[str, Any]] = []

    def __call__(self, events: list[dict[str, Any]]) -> None:
        """Record what one gesture changed; see `Session` for the forms of events.

        Raises
        ------
        StorageError
        """
        for event in events:
            value = {"value": encode_value(event["table"], event["value"])} if event["event"] == "set" else {}
            self._owed.append({**event, **value})
        self._journal.append(*self._owed)
        self._owed.clear()

    def restart(self) -> None:
        """Go on in a new journal after the state was saved."""
        self._owed.clear()
        self._journal.close()
        self._journal = Journal(self._journal_path)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()
