"""What a person does with the masks of objects: choose among them, accept them, take steps back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from napari.utils.notifications import show_info, show_warning

from napari_segany.core.masks import Strategy
from napari_segany.core.state import Key
from napari_segany.gui.drawn import Drawn, outlines
from napari_segany.gui.geometry import data_shape
from napari_segany.gui.open_stack import OpenStack, by_score
from napari_segany.gui.stack_view import StackView

if TYPE_CHECKING:
    from napari_segany.gui.controller import Controller


class MaskActions:
    """Candidates, acceptance, undo and redo on the plane on display.

    Parameters
    ----------
    controller : Controller

    Attributes
    ----------
    overwrite : bool
        Whether accepted masks may take pixels from other objects.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.overwrite = False

    def accept(self) -> None:
        """Write the mask shown into the labels and go on to the next object."""
        controller = self._controller
        controller.sync()
        stack, key = controller.here()
        if stack is None or not (key in stack.answers or key in stack.painted):
            show_warning(f"Object {controller.object_id} has no mask here yet; click on it or draw a box first.")
            return
        stack.accept([key], self.overwrite, controller.on_labels_written)
        controller.next_object()

    def accept_all(self) -> None:
        """Write the masks of all objects on this plane that wait."""
        controller = self._controller
        controller.sync()
        stack, key = controller.here()
        if stack is None:
            show_warning("There is no mask here yet; click on an object or draw a box first.")
            return

        def then(count: int) -> None:
            if count == 0:
                show_info("No mask waits to be accepted on this plane.")
            controller.on_labels_written()
            controller.next_object()

        stack.accept_all(key[1], self.overwrite, then)

    def choose_overwrite(self, overwrite: bool) -> None:
        """Let accepted masks take pixels from other objects from now on, or not."""
        self.overwrite = overwrite

    # -- candidates -------------------------------------------------------------------------------

    def next_candidate(self) -> None:
        """Show the next of the candidate masks."""
        stack, key = self._controller.here()
        if stack is None or not stack.choose_next(key):
            show_info("There is no other mask: a single click on an object offers several.")
            return
        self._controller.show()

    def choose_candidate(self, rank: int) -> None:
        """Show the candidate of a rank by score, 0 for the highest."""
        stack, key = self._controller.here()
        answer = None if stack is None else stack.answers.get(key)
        if stack is not None and answer is not None:
            stack.choose(key, by_score(answer)[rank])
            self._controller.show()

    def choose_strategy(self, strategy: Strategy) -> None:
        """Choose among candidates by another rule, where the person has not chosen."""
        self._controller.strategy = strategy
        for stack in self._controller.stacks.all():
            stack.strategy = strategy
        self._controller.show()

    # -- labels as prompts --------------------------------------------------------------------------

    def take_label(self) -> None:
        """Prompt with the outline of a label: the one chosen in the active labels layer, or in that written into."""
        controller = self._controller
        view, layers, location = controller.view(tell=True), controller.layers, controller.location
        if view is None or layers is None or location is None or controller.image is None:
            return
        active = controller.viewer.layers.selection.active
        source = active if isinstance(active, Labels) and "segany" not in active.metadata else controller.output.layer
        if source is None or source.multiscale or tuple(source.data.shape) != data_shape(controller.image):
            show_warning("Select a labels layer of the image's shape, and choose a label in it, first.")
            return
        label = int(source.selected_label)
        frame = location.frame(view)
        mask = np.asarray(source.data[view.index(frame)]) == label
        if not mask.any():
            show_warning(f'The layer "{source.name}" has no pixel of label {label} on this plane; pick another label.')
            return
        if source is controller.output.layer:
            controller.set_object(label)
        key = controller.object_id, frame
        drawn = layers.read(view)[0].get(key, Drawn())
        layers.replace(view, key, Drawn(drawn.points, drawn.labels, drawn.box, outlines(mask)))
        controller.sync()

    # -- steps ------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Take back the last prompt, acceptance or propagation on this stack."""
        self._travel("undo")

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._travel("redo")

    def _travel(self, way: str) -> None:
        controller = self._controller
        controller.sync()
        view, (stack, _) = controller.view(), controller.here()
        if view is None or stack is None:
            show_info(f"There is nothing to {way}.")
            return
        (stack.undo if way == "undo" else stack.redo)(partial(self._on_travelled, way, view, stack))

    def _on_travelled(
        self, way: str, view: StackView, stack: OpenStack, name: str | None, prompts: set[Key], accepted: set[Key]
    ) -> None:
        controller = self._controller
        if name is None:
            show_info(f"There is nothing to {way}.")
        for key in sorted(prompts):
            controller.draw_held(view, stack, key)
        for object_id, _ in sorted(prompts or accepted)[:1]:
            controller.set_object(object_id)
        controller.sync()
        controller.on_labels_written()
