"""Sessions for what is on display, made in the jobs' thread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from napari.layers import Image

from napari_segany import api
from napari_segany.core.errors import InvalidImageError, StorageError
from napari_segany.core.protocols import FrameSource, ImageModel, LabelStore
from napari_segany.gui.geometry import full_data
from napari_segany.gui.output import has_session
from napari_segany.gui.stack_view import PlaneStack, StackView

#: Whether an axis of such a name is depth; else it is time.
IS_DEPTH = {"t": False, "time": False, "frame": False, "z": True, "depth": True, "slice": True}
#: Labels on disk that a window of this process writes; the lock on them keeps out other processes only.
_in_use: dict[Path, api.Session] = {}


def open_session(image: Image, view: StackView, model: ImageModel, labels: LabelStore | Path) -> api.Session:
    """Open a session on the planes of an image layer.

    Parameters
    ----------
    image : Image
    view : StackView
    model : ImageModel
    labels : LabelStore or Path
        Where labels go. On disk, a session that was left there, or killed, is gone on with.

    Raises
    ------
    InvalidImageError
        The layer shows something else than the file it came from.
    StorageError
        See `napari_segany.Session`.
    """
    planes = PlaneStack(full_data(image), view)
    depth = None if view.axis is None else IS_DEPTH.get(str(image.axis_labels[view.axis]).lower())
    axes = (("t" if depth is False else "z") + "yxc")[: planes.ndim]
    if not isinstance(labels, Path):
        return _as_named(api.Session(planes, model=model, labels=labels, axes=axes), depth)
    if labels in _in_use:
        raise StorageError(f"{labels.name} is open in another window; choose a labels layer of its own for this one.")
    if labels == Path(image.source.path):
        session = _open_inside(image, planes, model, labels)
    elif has_session(labels):
        session = _as_named(api.Session.open(labels, stack=planes, model=model), depth)
    else:
        session = _as_named(api.Session(planes, model=model, labels=labels, axes=axes), depth)
    _in_use[labels] = session
    return session


def _as_named(session: api.Session, depth: bool | None) -> api.Session:
    """Let a session take its axis for what the layer calls it; what has no name is found out when it matters."""
    session.settings = replace(session.settings, depth=depth)
    return session


def close_session(session: api.Session) -> None:
    """Close a session of `open_session`; what it wrote to disk can be opened again."""
    session.close()
    for path in [path for path, one in _in_use.items() if one is session]:
        del _in_use[path]


def _open_inside(image: Image, planes: PlaneStack, model: ImageModel, path: Path) -> api.Session:
    """Open a session of a folder that was opened itself: it needs no window to be opened again, its scale is known."""
    if has_session(path):
        session = api.Session.open(path, model=model)
        if not _is_shown(session.frames, planes):
            session.close()
            raise _another(image, path)
        return session
    stack = api.open_stack(path)
    if not _is_shown(stack, planes):
        raise _another(image, path)
    return api.Session(stack, model=model, labels=path)


def _is_shown(stack: FrameSource, planes: PlaneStack) -> bool:
    """Whether a layer shows a stack, as far as its middle tells."""
    middle, nan = len(planes) // 2, planes.dtype.kind == "f"
    return stack.shape == planes.shape and np.array_equal(stack[middle], planes[middle], equal_nan=nan)


def _another(image: Image, path: Path) -> InvalidImageError:
    return InvalidImageError(
        f'The layer "{image.name}" does not show what is stored in {path}; choose a labels layer for it.'
    )
