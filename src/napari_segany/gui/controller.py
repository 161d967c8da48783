"""Between the layers and the sessions: what is drawn is sent, what is answered is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QObject, QTimer
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]

from napari_segany.core.errors import SeganyError
from napari_segany.core.state import Key
from napari_segany.gui.geometry import full_data
from napari_segany.gui.jobs import Jobs
from napari_segany.gui.layers import PromptLayers, Sign
from napari_segany.gui.location import Location
from napari_segany.gui.model_choice import ModelChoice
from napari_segany.gui.open_stack import OpenStack
from napari_segany.gui.output import Output
from napari_segany.gui.propagation import Propagation
from napari_segany.gui.stack_view import PlaneStack, StackView
from napari_segany.session.session import Direction

#: Rest on a plane before it is encoded ahead of the first click, milliseconds.
PREFETCH_DELAY = 300
#: The labels shown are redrawn at most this often, milliseconds.
REDRAW_DELAY = 40


class Controller(QObject):
    """Owns the sessions of the chosen image layer.

    Everything that is drawn schedules `sync`, which compares the layers with
    what was last sent and sends the difference. Choosing another image,
    another output, or deleting either, starts afresh from the layers; work
    still running then answers to nobody.

    Parameters
    ----------
    viewer : napari viewer
    """

    status_changed = QtSignal(str)
    object_changed = QtSignal(int)
    answer_changed = QtSignal(str)
    sign_changed = QtSignal(str)
    view_changed = QtSignal()
    output_changed = QtSignal()
    # Qt carries it from the propagation's thread to the window's.
    _frame_written = QtSignal(object, int)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.jobs = Jobs()
        self.propagation = Propagation()
        self.output = Output(viewer)
        self.image: Image | None = None
        self.location: Location | None = None
        self.layers: PromptLayers | None = None
        self.object_id = 1
        self.sign: Sign = "positive"
        self._model = ModelChoice()
        self._stacks: dict[StackView, OpenStack | None] = {}
        self._told: set[str] = set()
        self._sync_soon = self._timer(0, self.sync)
        self._redraw_soon = self._timer(REDRAW_DELAY, self.output.redraw)
        self._prefetch_soon = self._timer(PREFETCH_DELAY, self._prefetch)
        self._frame_written.connect(self._on_frame_written)
        for emitter, slot in self._connections():
            emitter.connect(slot)

    def _connections(self) -> list[tuple[Any, Callable]]:
        dims, layers = self.viewer.dims.events, self.viewer.layers.events
        return [
            (dims.current_step, self._on_dims),
            (dims.order, self._on_dims),
            (dims.ndisplay, self._on_dims),
            (layers.removed, self._on_removed),
            (self.output.replaced, self._on_output_replaced),
            (self.jobs.busy_changed, self._show_status),
        ]

    def close(self) -> None:
        """Stop what runs, listen no more, take the preview away; prompts and labels stay."""
        self.blockSignals(True)
        self.propagation.blockSignals(True)
        for emitter, slot in self._connections():
            emitter.disconnect(slot)
        self._leave_image()

    # -- choices --------------------------------------------------------------------------------

    def choose_image(self, image: Image | None) -> None:
        """Work on another image layer, or on none."""
        if image is self.image:
            return
        self._leave_image()
        if image is not None:
            image.events.data.connect(self._on_output_replaced)
            self.image, self.location = image, Location(self.viewer, image)
            self.layers = PromptLayers(self.viewer, image)
            self.layers.changed.connect(self._on_drawn)
            self.set_object(self.layers.highest_id() or 1)
        self.view_changed.emit()

    def choose_axis(self, axis: int | None) -> None:
        """Propagate along another axis of the image."""
        if self.location is not None:
            self.location.axis = axis
            self._on_dims()

    def choose_output(self, layer: Labels | None) -> None:
        """Write into another labels layer; None for a new one, made when it is needed."""
        try:
            self.output.choose(layer, self.image)
        except SeganyError as error:
            show_warning(str(error))
            self.output_changed.emit()
        self.set_object(max(self.object_id, self.output.highest + 1))

    def choose_model(self, name: str, device: str) -> None:
        """Answer with another model from now on; prompts and labels stay. It is loaded when it is first needed."""
        if (name, device) == (self._model.name, self._model.device):
            return
        chosen = self._model = ModelChoice(name, device)
        self.propagation.cancel()
        stacks = [stack for stack in self._stacks.values() if stack is not None]

        def work() -> None:
            model = chosen.load()
            for stack in stacks:
                stack.session.use_model(model)

        def then(_: None) -> None:
            for stack in stacks:
                stack.model_changed()
            self.sync()

        if stacks:
            self.jobs.submit(work, then, busy=f"Loading {name}…")

    def set_object(self, object_id: int) -> None:
        """Prompt another object from now on."""
        self.object_id = object_id
        self._set_next()
        if self.layers is not None:
            self.layers.focus(object_id)
        self.object_changed.emit(object_id)
        self._sync_soon.start()

    def toggle_sign(self) -> None:
        """Let the next points be negative, or positive again."""
        self.sign = "negative" if self.sign == "positive" else "positive"
        self._set_next()
        self.sign_changed.emit(self.sign)

    def use_tool(self, tool: str) -> None:
        """Take "points" or "boxes" in hand, and encode the plane shown meanwhile."""
        view = self.view(tell=True)
        if view is None or self.layers is None:
            return
        self.layers.take_in_hand(tool)
        self._set_next()
        self._open(view)

    # -- where we are -----------------------------------------------------------------------------

    def view(self, tell: bool = False) -> StackView | None:
        """Return the stack on display, None (and a sentence, when `tell`) where there is none."""
        sentence = "Open or choose an image layer first."
        if self.location is not None:
            try:
                return self.location.view()
            except SeganyError as error:
                sentence = str(error)
        if tell:
            show_warning(sentence)
        return None

    def here(self) -> tuple[OpenStack | None, Key]:
        """Return the open stack on display, if it is open, and the current object and frame."""
        view = self.view()
        if view is None or self.location is None:
            return None, (self.object_id, 0)
        return self._stacks.get(view), (self.object_id, self.location.frame(view))

    # -- prompts ----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Send what was drawn since the last time, and show what is known."""
        view = self.view()
        if self.layers is None or view is None:
            return
        drawn, refused = self.layers.read(view)
        for sentence in sorted(set(refused) - self._told):
            show_warning(sentence)
        self._told = set(refused)
        self.layers.keep_last_box(view)
        stack, key = self.here()
        if stack is not None:
            stack.update(drawn, key)
            self._show()
        elif drawn:
            self._open(view)

    def accept(self) -> None:
        """Write the mask shown into the labels and go on to the next object."""
        self.sync()
        stack, key = self.here()
        if stack is None or key not in stack.answers:
            show_warning(f"Object {self.object_id} has no mask here yet; click on it or draw a box first.")
            return
        stack.accept(key, self._on_labels_written)
        self.next_object()

    def next_object(self) -> None:
        """Go on to an object id that nothing has yet."""
        used = [self.output.highest, self.layers.highest_id() if self.layers else 0]
        used += [stack.session.next_object_id() - 1 for stack in self._stacks.values() if stack is not None]
        self.set_object(max(used) + 1)

    def next_candidate(self) -> None:
        """Show the next of the candidate masks."""
        stack, key = self.here()
        if stack is None or not stack.choose_next(key):
            show_info("There is no other mask: a single click on an object offers several.")
            return
        self._show()

    def undo(self) -> None:
        """Take back the last prompt, acceptance or propagation on this stack."""
        self.sync()
        view, (stack, _) = self.view(), self.here()
        if view is None or stack is None:
            show_info("There is nothing to undo.")
            return
        stack.undo(partial(self._on_undone, view, stack))

    def _on_undone(
        self, view: StackView, stack: OpenStack, name: str | None, prompts: set[Key], accepted: set[Key]
    ) -> None:
        if name is None:
            show_info("There is nothing to undo.")
        for key in sorted(prompts):
            assert self.layers is not None
            self.layers.replace(view, key, stack.held(key))
            stack.restored(key, self.layers.read(view)[0].get(key))
        for object_id, _ in sorted(prompts or accepted)[:1]:
            self.set_object(object_id)
        self._set_next()
        self.sync()
        self._on_labels_written()

    # -- propagation ------------------------------------------------------------------------------

    def propagate(self, start: int, stop: int, direction: Direction, only_current: bool) -> None:
        """Carry objects along the stack; see `Session.propagate`."""
        self.sync()
        stack, _ = self.here()
        if stack is None:
            show_warning("There is nothing to propagate: prompt at least one object first.")
            return
        objects = [self.object_id] if only_current else None
        run = partial(self.propagation.start, stack.session, objects, start, stop, direction)
        # After the prompts that are still on their way.
        self.jobs.submit(lambda: None, lambda _: run())

    # -- opening ----------------------------------------------------------------------------------

    def _open(self, view: StackView) -> None:
        """Load the model, open the stack and encode the plane on display, all in another thread."""
        if view in self._stacks or self.image is None or self.location is None:
            return
        try:
            labels = self.output.ensure(self.image).data
        except MemoryError:
            show_warning("There is not enough memory for a labels layer of this size; choose a smaller image.")
            return
        self._stacks[view] = None
        stacks, chosen = self._stacks, self._model
        image, frame = full_data(self.image), self.location.frame(view)

        def work() -> OpenStack:
            from napari_segany import api

            planes = PlaneStack(image, view)
            session = api.Session(planes, model=chosen.load(), labels=view.cut(labels), axes="zyxc"[: planes.ndim])
            session.embedding(frame)
            return OpenStack(session, self.jobs, self._show)

        def then(stack: OpenStack) -> None:
            stacks[view] = stack
            stack.session.labels_changed.connect(lambda frame: self._frame_written.emit(stack, frame))
            self.sync()

        def failed() -> None:
            stacks.pop(view, None)

        loading = f"loading {chosen.name}, " if chosen.model is None else ""
        busy = f"{loading}encoding plane {frame}…".capitalize()
        self.jobs.submit(work, then, busy, failed)

    def _prefetch(self) -> None:
        """Encode the plane on display before it is clicked."""
        stack, (_, frame) = self.here()
        if stack is None or stack.session.is_embedded(frame) or not self.jobs.idle or self.propagation.running:
            return
        stack.embed(frame)

    def _start_afresh(self) -> None:
        """Close every session; the layers still hold the prompts, and open them again."""
        self.propagation.cancel()
        self.jobs.clear()
        self._stacks = {}
        self._sync_soon.start()

    def _leave_image(self) -> None:
        self._start_afresh()
        if self.image is not None and self.layers is not None:
            self.image.events.data.disconnect(self._on_output_replaced)
            self.layers.changed.disconnect(self._on_drawn)
            self.layers.close()
        self.image = self.location = self.layers = None
        self.output.choose(None, None)

    # -- events -----------------------------------------------------------------------------------

    def _on_output_replaced(self) -> None:
        self._start_afresh()
        self.output.fit(self.image)
        self.output_changed.emit()

    def _on_drawn(self) -> None:
        # Not at once: napari is still in the middle of adding the point.
        self._sync_soon.start()

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if layer is self.image:
            self.choose_image(None)
        elif layer is self.output.layer:
            self.choose_output(None)
        elif self.layers is not None and self.layers.drop(layer):
            self._sync_soon.start()

    def _on_dims(self) -> None:
        self._set_next()
        self._sync_soon.start()
        self._prefetch_soon.start()
        if self.viewer.dims.ndisplay == 3 and self.layers is not None:
            # A click into a volume has no plane to stand on.
            self.layers.put_down()
        self.view_changed.emit()

    def _on_frame_written(self, stack: OpenStack, frame: int) -> None:
        shown, (_, frame_shown) = self.here()
        if self.view() is None or (shown is stack and frame == frame_shown):
            self._redraw_soon.start()

    def _on_labels_written(self) -> None:
        self._redraw_soon.start()
        self._show()

    # -- showing ----------------------------------------------------------------------------------

    def _set_next(self) -> None:
        view = self.view()
        if self.layers is not None and view is not None:
            self.layers.set_next(self.object_id, self.sign, view)

    def _show(self) -> None:
        view, (stack, key) = self.view(), self.here()
        if self.layers is None or view is None or stack is None:
            return
        self.layers.show_preview(view, key[1], stack.preview(key))
        self.answer_changed.emit(stack.describe(key))
        if self.jobs.idle:
            self._show_status("")

    def _show_status(self, busy: str) -> None:
        text = self._model.describe()
        stack, (_, frame) = self.here()
        if stack is not None:
            text += f", plane {frame} is {'' if stack.session.is_embedded(frame) else 'not '}encoded"
        self.status_changed.emit(busy or text)

    def _timer(self, delay: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(delay)
        timer.timeout.connect(slot)
        return timer
