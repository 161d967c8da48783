"""Sessions on disk: a state file beside the labels, and the journal of what came after it."""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.errors import StorageError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.prompts import Prompt
from napari_segany.core.state import ImageReference, Key, SessionState
from napari_segany.io.journal import Journal, read_journal

VERSION = 1
TABLES = ("prompts", "accepted", "scores", "parents")
#: The largest number that half precision holds.
LARGEST_LOGIT = 65504.0


def _folder(path: Path) -> Path:
    return path / "segany"


def encode_prompt(prompt: Prompt) -> dict[str, Any]:
    """Turn a prompt into JSON; the mask is kept as compressed half-precision logits, cut to their range."""
    encoded: dict[str, Any] = {"points": prompt.points.tolist(), "labels": prompt.labels.tolist()}
    if prompt.box is not None:
        encoded["box"] = prompt.box.tolist()
    if prompt.mask is not None:
        logits = np.clip(prompt.mask, -LARGEST_LOGIT, LARGEST_LOGIT).astype("<f2")
        packed = zlib.compress(logits.tobytes(), 1)
        encoded["mask"] = {"shape": list(prompt.mask.shape), "data": base64.b64encode(packed).decode()}
    return encoded


def decode_prompt(encoded: dict[str, Any]) -> Prompt:
    """Turn JSON back into a prompt."""
    mask = encoded.get("mask")
    if mask is not None:
        shape = tuple(int(extent) for extent in mask["shape"])
        # Never more than the mask can hold, whatever the file claims to unpack to.
        data = zlib.decompressobj().decompress(base64.b64decode(mask["data"]), 2 * shape[0] * shape[1])
        mask = np.frombuffer(data, "<f2").reshape(shape).astype(np.float32)
    return Prompt(
        np.asarray(encoded["points"], dtype=np.float64).reshape(-1, 2),
        np.asarray(encoded["labels"], dtype=np.int64),
        None if encoded.get("box") is None else np.asarray(encoded["box"], dtype=np.float64),
        mask,
    )


def _portable(image: str | None, path: Path) -> str | None:
    """Path of an image as the session in `path` names it: relative when it lies beside it, so that both can move."""
    parent = path.resolve().parent
    if image is None or not Path(image).is_relative_to(parent):
        return image
    return Path(image).relative_to(parent).as_posix()


def _located(image: str | None, path: Path) -> str | None:
    """Undo `_portable`; a relative path may not lead out of the folder that the session lies in."""
    if image is None or Path(image).is_absolute():
        return image
    parent = path.resolve().parent
    found = Path(os.path.normpath(parent / image))
    if not found.is_relative_to(parent):
        raise StorageError(f"The session in {path} names an image outside of its folder and is not trusted: {image}.")
    return str(found)


def _encode(table: str, value: Any) -> Any:
    return encode_prompt(value) if table == "prompts" and value is not None else value


def _decode(table: str, value: Any) -> Any:
    return decode_prompt(value) if table == "prompts" and value is not None else value


def save_state(path: Path, state: SessionState) -> None:
    """Write the state of a session beside its labels, in one step, and start a new journal.

    Raises
    ------
    StorageError
    """
    image = state.image
    document = {
        "version": VERSION,
        "model": state.model,
        "image": {
            "path": _portable(image.path, path),
            "axes": image.axes,
            "axis": image.axis,
            "index": image.index,
            "shape": list(image.shape),
            "intensity": {"low": list(image.intensity.low), "high": list(image.intensity.high)},
        },
        "finished": sorted(state.finished),
    }
    for table in TABLES:
        entries = getattr(state, table)
        document[table] = [[*key, _encode(table, value)] for key, value in sorted(entries.items())]
    folder = _folder(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / "session.json.new"
        with new.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / "session.json")
        journal = folder / "journal.jsonl"
        if journal.exists():
            # Emptied in place: whoever appends to it goes on doing so, on Windows too.
            os.truncate(journal, 0)
    except OSError as error:
        raise StorageError(f"The session cannot be saved in {path}: {error.strerror or error}.") from error


def load_state(path: Path) -> SessionState:
    """Read the state of a session and replay its journal.

    Raises
    ------
    StorageError
        No session there, one whose state file is damaged or not trusted, or one of a newer version.
    """
    file = _folder(path) / "session.json"
    if not file.exists():
        raise StorageError(f"{path} holds no session; its labels can be opened with labels={str(path)!r}.")
    try:
        document = json.loads(file.read_text())
        if document["version"] > VERSION:
            raise StorageError(f"The session in {path} was written by a newer version; update napari-segany.")
        state = _parse(document, path)
    except StorageError:
        raise
    except Exception as error:
        raise StorageError(
            f"The state file {file} is damaged; the labels beside it are whole and can be opened with "
            f"labels={str(path)!r}."
        ) from error
    for event in read_journal(_folder(path) / "journal.jsonl"):
        replay(state, event)
    return state


def _parse(document: dict[str, Any], path: Path) -> SessionState:
    image = document["image"]
    intensity = IntensityRange(tuple(image["intensity"]["low"]), tuple(image["intensity"]["high"]))
    reference = ImageReference(
        _located(image["path"], path),
        image["axes"],
        image["axis"],
        dict(image["index"]),
        tuple(image["shape"]),
        intensity,
    )
    tables = {
        # Sessions of the first versions know no parents.
        table: {(int(i), int(frame)): _decode(table, value) for i, frame, value in document.get(table, [])}
        for table in TABLES
    }
    return SessionState(reference, str(document["model"]), finished=set(document["finished"]), **tables)


def replay(state: SessionState, event: dict[str, Any]) -> None:
    """Apply one journal event to a state."""
    if event["event"] == "set" and event["table"] in TABLES:
        key: Key = (int(event["object"]), int(event["frame"]))
        entries = getattr(state, event["table"])
        if event["value"] is None:
            entries.pop(key, None)
        else:
            entries[key] = _decode(event["table"], event["value"])
    elif event["event"] == "frame":
        state.finished.add(int(event["frame"]))
    elif event["event"] == "run":
        state.finished.clear()


class Recorder:
    """Writes what a session announces into the journal beside its labels."""

    def __init__(self, path: Path) -> None:
        self._journal_path = _folder(path) / "journal.jsonl"
        self._journal = Journal(self._journal_path)

    def __call__(self, event: dict[str, Any]) -> None:
        """Record one event; see `Session` for their forms."""
        if event["event"] == "set":
            event = {**event, "value": _encode(event["table"], event["value"])}
        self._journal.append(event)

    def restart(self) -> None:
        """Go on in a new journal after the state was saved."""
        self._journal.close()
        self._journal = Journal(self._journal_path)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()
