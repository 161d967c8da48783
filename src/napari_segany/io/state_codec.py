"""A session's state as JSON and back; nothing that is read is believed before it is checked."""

from __future__ import annotations

import base64
import math
import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany.core.errors import StorageError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.prompts import Prompt, make_prompt
from napari_segany.core.state import TABLES, ImageReference, Key, SessionState

#: The largest number that half precision holds.
LARGEST_LOGIT = 65504.0
LARGEST_ID = 2**63 - 1
#: What reading a damaged or hostile part of a document can end in.
DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, zlib.error)


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


def decode_prompt(encoded: dict[str, Any], shape: tuple[int, int]) -> Prompt:
    """Turn JSON back into a prompt for an image of `shape` (H, W).

    Raises
    ------
    one of `DAMAGE`
        It is none, or does not fit the image.
    """
    points, box, mask = encoded["points"], encoded.get("box"), encoded.get("mask")
    return make_prompt(shape, points, encoded["labels"], box, None if mask is None else _decode_mask(mask, shape))


def _decode_mask(encoded: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    if tuple(encoded["shape"]) != shape:
        raise ValueError(f"the mask is not of the shape {shape}")
    # Never more than the mask can hold, whatever the file unpacks to.
    data = zlib.decompressobj().decompress(base64.b64decode(encoded["data"]), 2 * shape[0] * shape[1])
    return np.frombuffer(data, "<f2").reshape(shape).astype(np.float32)


def encode_value(table: str, value: Any) -> Any:
    """One entry of a table as JSON."""
    return encode_prompt(value) if table == "prompts" and value is not None else value


def decode_entry(table: str, object_id: Any, frame: Any, value: Any, image: ImageReference) -> tuple[Key, Any]:
    """Key and value of one entry of a table.

    Raises
    ------
    one of `DAMAGE`
    """
    if type(object_id) is not int or not 1 <= object_id <= LARGEST_ID:
        raise ValueError(f"{object_id!r} is no object id")
    if type(frame) is not int or not 0 <= frame < image.shape[0]:
        raise ValueError(f"there is no frame {frame!r}")
    key = object_id, frame
    if value is None:
        return key, None
    if table == "prompts":
        return key, decode_prompt(value, (image.shape[1], image.shape[2]))
    if table == "accepted":
        if value is not True:
            raise ValueError(f"{value!r} is no acceptance")
    elif table in ("parents", "clicks"):
        if type(value) is not int or value < 0:
            raise ValueError(f"{value!r} is no object id and no number of clicks")
    elif type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no score")
    return key, value


def encode_state(state: SessionState, path: Path) -> dict[str, Any]:
    """Turn the state of the session in `path` into a document."""
    image = state.image
    document: dict[str, Any] = {
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
        document[table] = [[*key, encode_value(table, value)] for key, value in sorted(entries.items())]
    return document


def decode_state(document: dict[str, Any], path: Path) -> SessionState:
    """Turn a document back into the state of the session in `path`.

    Entries that are damaged are left out with a warning.

    Raises
    ------
    StorageError
        A path in it is not trusted.
    one of `DAMAGE`
        What everything else depends on is damaged.
    """
    state = SessionState(_decode_image(document["image"], path), str(document["model"]))
    for table in TABLES:
        # Older sessions have fewer tables.
        entries, lost = document.get(table, []), 0
        for entry in entries if isinstance(entries, list) else [entries]:
            try:
                object_id, frame, encoded = entry
                key, value = decode_entry(table, object_id, frame, encoded, state.image)
            except DAMAGE:
                lost += 1
                continue
            getattr(state, table)[key] = value
        if lost:
            warnings.warn(f"{lost} of the {table} in {path} are damaged and were left out.", stacklevel=2)
    finished = document.get("finished", [])
    if isinstance(finished, list):
        state.finished = {at for at in finished if type(at) is int and 0 <= at < state.image.shape[0]}
    return state


def _decode_image(image: dict[str, Any], path: Path) -> ImageReference:
    intensity = IntensityRange(tuple(image["intensity"]["low"]), tuple(image["intensity"]["high"]))
    reference = ImageReference(
        _located(image["path"], path),
        image["axes"],
        image["axis"],
        dict(image["index"]),
        tuple(image["shape"]),
        intensity,
    )
    if not isinstance(reference.axes, str) or not isinstance(reference.axis, str | None):
        raise TypeError("the names of the axes are no text")
    if not all(type(extent) is int and extent > 0 for extent in reference.shape) or len(reference.shape) not in (3, 4):
        raise ValueError(f"{reference.shape} is no shape of a stack")
    if not all(isinstance(name, str) and type(at) is int for name, at in reference.index.items()):
        raise TypeError("a position is no number")
    return reference


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
