"""Edits that know their inverse, and the history that replays them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from napari_segany.core.masks import bounding_box
from napari_segany.core.protocols import LabelStore


class Edit(Protocol):
    """One reversible change."""

    def undo(self) -> None:
        """Bring back what was before."""
        ...

    def redo(self) -> None:
        """Apply the change again."""
        ...


class Packed:
    """An array kept compressed, since most label edits are seldom looked at again."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self.data = zlib.compress(np.ascontiguousarray(array).tobytes(), level=1)

    def unpack(self) -> np.ndarray:
        """The array as it was."""
        return np.frombuffer(zlib.decompress(self.data), dtype=self.dtype).reshape(self.shape)


class LabelEdit:
    """Change of one frame's labels inside the box where they differ.

    Parameters
    ----------
    store : LabelStore
    frame : int
    before, after : (H, W) integer arrays
    """

    def __init__(self, store: LabelStore, frame: int, before: np.ndarray, after: np.ndarray) -> None:
        self.store, self.frame = store, frame
        y0, x0, y1, x1 = bounding_box(before != after)
        self.window = slice(y0, y1), slice(x0, x1)
        self.before, self.after = Packed(before[self.window]), Packed(after[self.window])

    @property
    def happened(self) -> bool:
        """Whether the labels are not those from before; True also where they cannot be read."""
        try:
            return bool((self.store.read(self.frame)[self.window] != self.before.unpack()).any())
        except OSError:
            return True

    def undo(self) -> None:
        """Write the labels from before."""
        self._write(self.before)

    def redo(self) -> None:
        """Write the labels from after."""
        self._write(self.after)

    def _write(self, packed: Packed) -> None:
        labels = self.store.read(self.frame)
        labels[self.window] = packed.unpack()
        self.store.write(self.frame, labels)


class EntryEdit:
    """Change of one entry of a named dictionary; None stands for its absence."""

    def __init__(self, table: str, entries: dict[Any, Any], key: Any, after: Any) -> None:
        self.table, self.entries, self.key = table, entries, key
        self.before, self.after = entries.get(key), after

    def undo(self) -> None:
        """Bring the old entry back."""
        self._set(self.before)

    def redo(self) -> None:
        """Set the new entry."""
        self._set(self.after)

    def _set(self, value: Any) -> None:
        if value is None:
            self.entries.pop(self.key, None)
        else:
            self.entries[self.key] = value


@dataclass
class Step:
    """What one gesture changed: the edits in the order they were made.

    Attributes
    ----------
    name : str
        What the person did, for menus.
    """

    name: str
    edits: list[Edit] = field(default_factory=list)

    def do(self, edit: Edit, act: Callable[[], None] | None = None) -> None:
        """Make an edit, by `act` if given, and keep it; also where a disk fails that has written all the same."""
        try:
            (act or edit.redo)()
        except BaseException:
            if isinstance(edit, LabelEdit) and edit.happened:
                self.edits.append(edit)
            raise
        self.edits.append(edit)

    @property
    def frames(self) -> set[int]:
        """Frames whose labels the step changed."""
        return {edit.frame for edit in self.edits if isinstance(edit, LabelEdit)}

    @property
    def entries(self) -> list[EntryEdit]:
        """Its edits that are not of labels."""
        return [edit for edit in self.edits if isinstance(edit, EntryEdit)]


class History:
    """Undo and redo of steps.

    An edit of labels may fail, for example on a full disk; its step then stays
    where it was, its entries as they were, and can be undone or redone wholly
    when there is room again.
    """

    def __init__(self) -> None:
        self.done: list[Step] = []
        self.undone: list[Step] = []

    def push(self, step: Step) -> None:
        """Remember a step that has been applied; what was undone before is forgotten."""
        if step.edits:
            self.done.append(step)
            self.undone.clear()

    def undo(self) -> Step | None:
        """Reverse the last step and return it; None when there is none."""
        if not self.done:
            return None
        step = self.done[-1]
        for edit in _labels_first(step.edits[::-1]):
            edit.undo()
        self.undone.append(self.done.pop())
        return step

    def redo(self) -> Step | None:
        """Apply the last undone step again and return it; None when there is none."""
        if not self.undone:
            return None
        step = self.undone[-1]
        for edit in _labels_first(step.edits):
            edit.redo()
        self.done.append(self.undone.pop())
        return step


def _labels_first(edits: list[Edit]) -> list[Edit]:
    """The edits of labels, which may fail, before those that cannot; otherwise in their order."""
    return sorted(edits, key=lambda edit: isinstance(edit, EntryEdit))
