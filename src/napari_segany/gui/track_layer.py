"""The Tracks layer: where every object goes along the stack, drawn anew when labels change."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer, Tracks
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QTimer

from napari_segany.core.errors import UnsupportedError
from napari_segany.core.lineage import Lineage, centroids, link
from napari_segany.gui.geometry import alignment
from napari_segany.gui.open_stack import OpenStack
from napari_segany.gui.stack_view import StackView

if TYPE_CHECKING:
    from napari_segany.gui.controller import Controller

#: Tracks are drawn so long after labels changed, milliseconds.
DELAY = 300
#: Frames read in one go, so that a click in between is answered soon.
READ_AT_ONCE = 8


class TrackLayer:
    """Shows the tracks of the stack on display.

    Only frames that changed are read again, some at a time, and not while a propagation runs.

    Parameters
    ----------
    controller : Controller

    Attributes
    ----------
    shown : bool
        Whether the person wants it.
    layer : napari.layers.Tracks or None
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.shown = False
        self.layer: Tracks | None = None
        self._stack: OpenStack | None = None
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        #: How often each frame has changed: what was read before the last time is not kept.
        self._changes: Counter[int] = Counter()
        self._reading = False
        self._soon = QTimer(controller)
        self._soon.setSingleShot(True)
        self._soon.setInterval(DELAY)
        self._soon.timeout.connect(self._update)

    def choose(self, shown: bool) -> None:
        """Show the tracks from now on, or take them away."""
        if shown == self.shown:
            return
        self.shown = shown
        if shown:
            self._controller.stacks.use(lambda _: self._soon.start())
        elif self.layer is not None and self.layer in self._controller.viewer.layers:
            self._controller.viewer.layers.remove(self.layer)

    def leave(self) -> None:
        """Keep nothing up to date any more; the layer stays."""
        self._soon.stop()
        self.layer = self._stack = None
        self.shown = False
        self._controller.tracks_shown_changed.emit(False)

    def drop(self, layer: Layer) -> bool:
        """Let go of a layer that was deleted; whether it was this one."""
        if layer is not self.layer:
            return False
        self.leave()
        return True

    def on_frame(self, stack: OpenStack, frame: int) -> None:
        """Take note that labels of a frame were changed."""
        if stack is self._stack:
            self._changes[frame] += 1
            self._found.pop(frame, None)
        self.update_soon()

    def on_paint(self) -> None:
        """Take note that the person painted into the labels with napari's own brush."""
        output = self._controller.output.layer
        stack, (_, frame) = self._controller.here()
        if output is None or stack is None or stack is not self._stack:
            return
        for at in (frame,) if output.n_edit_dimensions == 2 else range(len(stack.session.frames)):
            self.on_frame(stack, at)

    def update_soon(self) -> None:
        """Draw anew, unless that is about to happen."""
        if self.shown and not self._soon.isActive():
            self._soon.start()

    def _update(self) -> None:
        controller = self._controller
        view, (stack, _) = controller.view(), controller.here()
        if not self.shown or view is None or stack is None:
            return
        try:
            check_tracks(view)
        except UnsupportedError as error:
            show_warning(str(error))
            controller.tracks_shown_changed.emit(False)
            return
        if stack is not self._stack:
            self._stack, self._found, self._changes, self._reading = stack, {}, Counter(), False
        if controller.propagation.running:
            self._soon.start()
        if controller.propagation.running or self._reading:
            return
        frames = range(len(stack.session.frames))
        missing = [frame for frame in frames if frame not in self._found][:READ_AT_ONCE]
        if not missing:
            self._draw(view, link([self._found[frame] for frame in frames], dict(stack.session.parents)))
            return
        before = {frame: self._changes[frame] for frame in missing}
        store = stack.session.store

        def read() -> list[tuple[np.ndarray, np.ndarray]]:
            return [centroids(store.read(frame)) for frame in missing]

        def failed() -> None:
            # Such as a damaged plane, of which the person has been told.
            self._reading = False
            controller.tracks_shown_changed.emit(False)

        self._reading = True
        controller.jobs.submit(read, partial(self._take, stack, before), failed=failed)

    def _take(self, stack: OpenStack, before: dict[int, int], found: list[tuple[np.ndarray, np.ndarray]]) -> None:
        if stack is self._stack:
            self._reading = False
            fresh = zip(before, found, strict=True)
            self._found.update({frame: one for frame, one in fresh if self._changes[frame] == before[frame]})
            self._update()

    def _draw(self, view: StackView, lineage: Lineage) -> None:
        viewer, image = self._controller.viewer, self._controller.image
        assert image is not None
        if not len(lineage.frames):
            if self.layer is None:
                show_info("There are no tracks yet; they appear with the first labels.")
            else:
                self.layer.visible = False
            return
        data, graph = rows(view, lineage), {child: [parent] for child, parent in lineage.origins.items()}
        tag = {"segany": "tracks", "image": image.unique_id}
        if self.layer is None:
            self.layer = next((one for one in viewer.layers if one.metadata == tag), None)
        if self.layer is None:
            active = viewer.layers.selection.active
            length = view.stack_shape[0]
            made = Tracks(data, graph=graph, name="Tracks", tail_length=length, metadata=tag, **alignment(image))
            self.layer = viewer.add_layer(made)
            viewer.layers.selection.active = active
        else:
            self.layer.data, self.layer.graph = data, graph
            self.layer.visible = True


def check_tracks(view: StackView) -> None:
    """Refuse a stack that a Tracks layer cannot show.

    Raises
    ------
    UnsupportedError
        One plane, more than three axes besides the first, or a stack along another axis than the first.
    """
    if view.axis is None:
        raise UnsupportedError("One plane has no tracks; open a stack or a time-lapse to see some.")
    if view.axis != 0 or len(view.shape) > 4:
        raise UnsupportedError(
            "napari shows tracks along the first axis of three or four; this stack runs along another one. "
            "They can be exported all the same."
        )


def rows(view: StackView, lineage: Lineage) -> np.ndarray:
    """Track, frame, further positions: (N, ndim + 1) as napari has it, for a stack along the first axis.

    A track is a path between divisions, named after its object where that is free.
    """
    places = view.place(0, lineage.centroids)
    places[:, 0] = lineage.frames
    return np.column_stack([lineage.tracklets, places])
