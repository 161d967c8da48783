"""What a person does with objects along the stack: check, split, give to another number, fill in, export."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info, show_warning

from napari_segany.gui.open_stack import OpenStack
from napari_segany.session.doubts import Doubt

if TYPE_CHECKING:
    from napari_segany.gui.controller import Controller


class TrackActions:
    """Edits of the current object on the stack on display.

    Parameters
    ----------
    controller : Controller

    Attributes
    ----------
    doubts : list of Doubt
        As listed last.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.doubts: list[Doubt] = []

    def check(self) -> None:
        """List places that deserve a look."""
        controller = self._controller

        def then(doubts: list[Doubt]) -> None:
            self.doubts = doubts
            lines = [f"plane {doubt.frame}: object {doubt.object_id} {doubt.text}" for doubt in doubts]
            controller.doubts_changed.emit(lines)
            if not doubts:
                show_info("Nothing looks doubtful here.")

        def look(stack: OpenStack) -> None:
            controller.jobs.submit(stack.session.doubts, then, "Looking through the labels…")

        controller.stacks.use(look)

    def go_to(self, row: int) -> None:
        """Show the object and the plane of a line of the list."""
        if 0 <= row < len(self.doubts):
            self._controller.set_object(self.doubts[row].object_id)
            self._controller.stack.go_to(self.doubts[row].frame)

    def split(self) -> None:
        """Make the current object another one from the plane on display on."""
        object_id, frame = self._controller.here()[1]
        self._edit(lambda session: session.split(object_id, frame), self._controller.set_object)

    def give(self, number: int) -> None:
        """Give the current object another number on all planes, or merge it with what has the number."""
        object_id = self._controller.object_id
        self._edit(lambda session: session.reassign(object_id, number), lambda _: self._controller.set_object(number))

    def fill(self) -> None:
        """Interpolate the current object between the planes on which it was accepted."""
        object_id = self._controller.object_id

        def then(frames: list[int]) -> None:
            show_info(f"Object {object_id} was filled in on {len(frames)} planes.")

        self._edit(lambda session: session.interpolate(object_id), then)

    def export(self, path: Path) -> None:
        """Write all tracks: as GEFF where the name ends so, else as a Cell Tracking Challenge folder."""
        controller = self._controller

        def then(count: int) -> None:
            show_info(f"{count} objects were written to {path}.")

        def write(stack: OpenStack) -> None:
            controller.jobs.submit(partial(stack.session.export_tracks, path), then, "Exporting tracks…")

        controller.stacks.use(write)

    def _edit(self, edit: Callable[[Any], Any], then: Callable[[Any], None]) -> None:
        controller = self._controller
        controller.sync()
        view, (stack, _) = controller.view(), controller.here()
        if view is None or stack is None:
            show_warning("There is nothing to edit: prompt an object, or open labels, first.")
            return
        if controller.propagation.running:
            show_warning("A propagation is running; wait for it, or cancel it, first.")
            return

        def done(result: Any, changed: set[tuple[int, int]]) -> None:
            for key in sorted(changed):
                controller.draw_held(view, stack, key)
            then(result)
            controller.sync()
            controller.on_labels_written()

        stack.change(partial(edit, stack.session), done)
