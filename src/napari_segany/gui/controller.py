"""Between the layers and the session: what is drawn is sent, what is answered is shown."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QObject, QTimer, Signal

from napari_segany.core.errors import SeganyError
from napari_segany.core.protocols import ImageModel
from napari_segany.gui.geometry import alignment, check_image, check_output, data_shape, full_data, highest_label
from napari_segany.gui.jobs import Jobs
from napari_segany.gui.layers import Drawn, PromptLayers, Sign
from napari_segany.gui.open_stack import OpenStack
from napari_segany.gui.propagation import Propagation
from napari_segany.gui.stack_view import PlaneStack, StackView, propagation_axes, resolve_view
from napari_segany.session.session import Direction, Key

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

    status_changed = Signal(str)
    object_changed = Signal(int)
    answer_changed = Signal(str)
    sign_changed = Signal(str)
    view_changed = Signal()
    output_changed = Signal()
    _frame_written = Signal(object, int)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.jobs = Jobs()
        self.propagation = Propagation()
        self.image: Image | None = None
        self.layers: PromptLayers | None = None
        self.output: Labels | None = None
        self.axis: int | None = None
        self.object_id = 1
        self.sign: Sign = "positive"
        self._model_choice = ("nano", "auto")
        self._model: tuple[tuple[str, str], ImageModel] | None = None
        self._stacks: dict[StackView, OpenStack | None] = {}
        self._numbers = count(1)
        self._highest = 0
        self._told: set[str] = set()
        self._sync_soon = self._timer(0, self.sync)
        self._redraw_soon = self._timer(REDRAW_DELAY, self._redraw)
        self._prefetch_soon = self._timer(PREFETCH_DELAY, self._prefetch)
        self._frame_written.connect(self._on_frame_written)
        self.jobs.busy_changed.connect(self._show_status)
        for emitter in self._emitters():
            emitter.connect(self._on_dims)
        viewer.layers.events.removed.connect(self._on_removed)

    def _emitters(self) -> list[Any]:
        events = self.viewer.dims.events
        return [events.current_step, events.order, events.ndisplay]

    def close(self) -> None:
        """Stop what runs, listen no more, take the preview away; prompts and labels stay."""
        for emitter in self._emitters():
            emitter.disconnect(self._on_dims)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.choose_image(None)
        self.jobs.busy_changed.disconnect(self._show_status)

    # -- choices --------------------------------------------------------------------------------

    def choose_image(self, image: Image | None) -> None:
        """Work on another image layer, or on none."""
        if image is self.image:
            return
        if self.image is not None:
            self.image.events.data.disconnect(self._start_afresh)
        if self.layers is not None:
            self.layers.changed.disconnect(self._on_drawn)
            self.layers.close()
        self.image, self.layers, self.axis = image, None, None
        self.choose_output(None)
        if image is not None:
            image.events.data.connect(self._start_afresh)
            self.layers = PromptLayers(self.viewer, image)
            self.layers.changed.connect(self._on_drawn)
            self.set_object(self.layers.highest_id() or 1)
        self.view_changed.emit()

    def choose_axis(self, axis: int | None) -> None:
        """Propagate along another axis of the image."""
        self.axis = axis
        self._on_dims()

    def choose_output(self, output: Labels | None) -> None:
        """Write into another labels layer; None for a new one, made when it is needed."""
        if output is self.output:
            return
        if output is not None and self.image is not None:
            try:
                check_output(output, self.image)
            except SeganyError as error:
                show_warning(str(error))
                output = None
        if self.output is not None:
            self.output.events.data.disconnect(self._start_afresh)
        self.output = output
        self._highest = 0
        if output is not None:
            output.events.data.connect(self._start_afresh)
            self._highest = highest_label(output)
        self._start_afresh()
        self.set_object(max(self.object_id, self._highest + 1))
        self.output_changed.emit()

    def choose_model(self, name: str, device: str) -> None:
        """Answer with another model from now on; prompts and labels stay. It is loaded when first needed."""
        if (name, device) == self._model_choice:
            return
        self._model_choice = (name, device)
        self.propagation.cancel()
        stacks = [stack for stack in self._stacks.values() if stack is not None]
        if not stacks:
            return

        def work() -> None:
            model = self._load_model()
            for stack in stacks:
                stack.session.use_model(model)

        def then(_: None) -> None:
            for stack in stacks:
                stack.answers.clear()
                stack.chosen.clear()
            self.sync()

        self.jobs.submit(work, then, busy=f"Loading {name}…")

    def set_object(self, object_id: int) -> None:
        """Prompt another object from now on."""
        self.object_id = object_id
        self._update_next()
        if self.layers is not None:
            self.layers.focus(object_id)
        self.object_changed.emit(object_id)
        self._sync_soon.start()

    def toggle_sign(self) -> None:
        """Let the next points be negative, or positive again."""
        self.sign = "negative" if self.sign == "positive" else "positive"
        self._update_next()
        self.sign_changed.emit(self.sign)

    def use_tool(self, tool: str) -> None:
        """Take "points" or "boxes" in hand, and encode the plane shown meanwhile."""
        view = self.view()
        if view is None or self.layers is None:
            return
        self.layers.ensure()
        self._update_next()
        layer, mode = (self.layers.points, "add") if tool == "points" else (self.layers.boxes, "add_rectangle")
        assert layer is not None
        self.viewer.layers.selection.active = layer
        layer.mode = mode
        self._open(view)

    # -- where we are -----------------------------------------------------------------------------

    def view(self, tell: bool = True) -> StackView | None:
        """The stack on display, None (and a sentence, when `tell`) where there is none."""
        try:
            if self.image is None:
                raise SeganyError("Open or choose an image layer first.")
            check_image(self.image)
            offset = self.viewer.dims.ndim - self.image.ndim
            displayed = [axis - offset for axis in self.viewer.dims.displayed]
            return resolve_view(data_shape(self.image), displayed, self._position(), self.axis)
        except SeganyError as error:
            if tell:
                show_warning(str(error))
            return None

    def axes(self) -> list[tuple[int, str]]:
        """Axes that masks can be propagated along, with their names."""
        if self.image is None or self.viewer.dims.ndisplay != 2:
            return []
        shape = data_shape(self.image)
        offset = self.viewer.dims.ndim - len(shape)
        axes = propagation_axes(shape, [axis - offset for axis in self.viewer.dims.displayed])
        names = [str(name) for name in self.image.axis_labels]
        return [(a, f"{f'axis {a}' if names[a].lstrip('-').isdigit() else names[a]} ({shape[a]})") for a in axes]

    def frame(self, view: StackView) -> int:
        """The frame on display."""
        if view.axis is None:
            return 0
        return int(np.clip(np.floor(self._position()[view.axis] + 0.5), 0, view.stack_shape[0] - 1))

    def _position(self) -> np.ndarray:
        assert self.image is not None
        return np.asarray(self.image.world_to_data(self.viewer.dims.point))

    # -- prompts ----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Send what was drawn since the last time, and show what is known."""
        if self.layers is None or (view := self.view(tell=False)) is None:
            return
        drawn, refused = self.layers.read(view)
        for sentence in set(refused) - self._told:
            show_warning(sentence)
        self._told = set(refused)
        self.layers.keep_last_box(view)
        stack = self._stacks.get(view)
        if stack is None:
            if drawn:
                self._open(view)
            return
        frame = self.frame(view)
        for key in sorted({*drawn, *stack.sent}, key=lambda key: key != (self.object_id, frame)):
            if drawn.get(key) != stack.sent.get(key):
                self._send(stack, key, drawn.get(key))
            elif key[1] == frame and key not in stack.answers and key in stack.session.prompts:
                self._request(stack, key, lambda key=key: stack.ask_again(key))  # type: ignore[misc]
        self._show()

    def _send(self, stack: OpenStack, key: Key, drawn: Drawn | None) -> None:
        if drawn is None:
            del stack.sent[key]
            stack.answers.pop(key, None)
            stack.numbers.pop(key, None)
            self.jobs.submit(lambda: stack.session.forget(*key))
            return
        stack.sent[key] = drawn
        self._request(stack, key, lambda: stack.prompt(key, drawn))

    def _request(self, stack: OpenStack, key: Key, work: Callable[[], Any]) -> None:
        number = stack.numbers[key] = next(self._numbers)
        stack.answers.setdefault(key, None)

        def then(answer: Any) -> None:
            if stack.numbers.get(key) == number:
                stack.answers[key] = answer
                stack.chosen.pop(key, None)
                self._show()

        busy = "" if stack.session.is_embedded(key[1]) else f"Encoding plane {key[1]}…"
        self.jobs.submit(work, then, busy)

    def accept(self) -> None:
        """Write the mask shown into the labels and go on to the next object."""
        stack, key = self._current()
        if stack is None or key not in stack.answers:
            show_warning(f"Object {self.object_id} has no mask here yet; click on it or draw a box first.")
            return

        def then(_: None) -> None:
            self._redraw_soon.start()
            self._show()

        self.jobs.submit(lambda: stack.accept(key), then)
        self.next_object()

    def next_object(self) -> None:
        """Go on to an object id that nothing has yet."""
        used = [self._highest, self.layers.highest_id() if self.layers else 0]
        used += [stack.session.next_object_id() - 1 for stack in self._stacks.values() if stack is not None]
        self.set_object(max(used) + 1)

    def next_candidate(self) -> None:
        """Show the next of the candidate masks."""
        stack, key = self._current()
        if stack is None or not stack.choose_next(key):
            show_info("There is no other mask: a single click on an object offers several.")
            return
        self._show()

    def undo(self) -> None:
        """Take back the last prompt, acceptance or propagation on this stack."""
        stack, _ = self._current()
        view = self.view(tell=False)
        if stack is None or view is None:
            show_info("There is nothing to undo.")
            return

        def then(result: tuple[str | None, set[Key], set[Key]]) -> None:
            name, prompts, accepted = result
            if name is None:
                show_info("There is nothing to undo.")
            for key in prompts:
                self._restore(stack, view, key)
            for object_id, _ in sorted(prompts or accepted):
                self.set_object(object_id)
            self._update_next()
            self._redraw_soon.start()
            self.sync()

        self.jobs.submit(stack.undo, then)

    def _restore(self, stack: OpenStack, view: StackView, key: Key) -> None:
        """Make the layers show the prompts that the session holds again."""
        prompt = stack.session.prompts.get(key)
        stack.answers.pop(key, None)
        stack.sent.pop(key, None)
        drawn = None
        if prompt is not None:
            points = tuple((float(y), float(x)) for y, x in prompt.points)
            box = None if prompt.box is None else tuple(float(v) for v in prompt.box)
            drawn = stack.sent[key] = Drawn(points, tuple(int(v) for v in prompt.labels), box)
        if self.layers is not None:
            self.layers.replace(view, key, drawn)

    # -- propagation ------------------------------------------------------------------------------

    def propagate(self, start: int, stop: int, direction: Direction, only_current: bool) -> None:
        """Carry objects along the stack; see `Session.propagate`."""
        stack, _ = self._current()
        if stack is None:
            show_warning("There is nothing to propagate: prompt at least one object first.")
            return
        objects = [self.object_id] if only_current else None
        # After the prompts that are still on their way.
        self.jobs.submit(
            lambda: None, lambda _: self.propagation.start(stack.session, objects, start, stop, direction)
        )

    # -- opening ----------------------------------------------------------------------------------

    def _open(self, view: StackView) -> None:
        """Load the model, open the stack and encode the plane on display, all in another thread."""
        if view in self._stacks or self.image is None:
            return
        try:
            output = self._ensure_output(self.image)
        except MemoryError:
            show_warning("There is not enough memory for a new labels layer; choose one that lies on disk.")
            return
        self._stacks[view] = None
        stacks = self._stacks
        image, labels, frame = full_data(self.image), output.data, self.frame(view)

        def work() -> OpenStack:
            from napari_segany import api

            model = self._load_model()
            planes = PlaneStack(image, view)
            session = api.Session(planes, model=model, labels=view.cut(labels), axes="zyxc"[: planes.ndim])
            session.embedding(frame)
            return OpenStack(session)

        def then(stack: OpenStack) -> None:
            stacks[view] = stack
            stack.session.labels_changed.connect(lambda frame: self._frame_written.emit(stack, frame))
            self.sync()

        def failed() -> None:
            stacks.pop(view, None)

        loaded = self._model is not None and self._model[0] == self._model_choice
        busy = f"Encoding plane {frame}…" if loaded else f"Loading {self._model_choice[0]}, encoding plane {frame}…"
        self.jobs.submit(work, then, busy, failed)

    def _load_model(self) -> ImageModel:
        """The chosen model; called in the jobs' thread only."""
        from napari_segany import api

        choice = self._model_choice
        if self._model is None or self._model[0] != choice:
            self._model = (choice, api.load_model(choice[0], device=choice[1]))
        return self._model[1]

    def _ensure_output(self, image: Image) -> Labels:
        if self.output is None:
            layer = Labels(np.zeros(data_shape(image), dtype=np.int32), name="Segmentation", **alignment(image))
            self.output = layer
            layer.events.data.connect(self._start_afresh)
            active = self.viewer.layers.selection.active
            self.viewer.layers.insert(self.viewer.layers.index(image) + 1, layer)
            self.viewer.layers.selection.active = active
            self.output_changed.emit()
        return self.output

    def _prefetch(self) -> None:
        """Encode the plane on display before it is clicked."""
        stack, (_, frame) = self._current()
        if stack is None or stack.session.is_embedded(frame) or not self.jobs.idle or self.propagation.running:
            return
        self.jobs.submit(
            lambda: stack.session.embedding(frame), lambda _: self._show_status(""), f"Encoding plane {frame}…"
        )

    # -- events -----------------------------------------------------------------------------------

    def _start_afresh(self) -> None:
        """Close every session; the layers still hold the prompts, and open them again."""
        self.propagation.cancel()
        self.jobs.clear()
        self._stacks = {}
        if self.output is not None and self.image is not None:
            if tuple(self.output.data.shape) != data_shape(self.image):
                self.output.events.data.disconnect(self._start_afresh)
                self.output = None
                self.output_changed.emit()
        self._sync_soon.start()

    def _on_drawn(self) -> None:
        # Not at once: napari is still in the middle of adding the point.
        self._sync_soon.start()

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if layer is self.image:
            self.choose_image(None)
        elif layer is self.output:
            self.choose_output(None)
        elif self.layers is not None and self.layers.drop(layer):
            self._sync_soon.start()

    def _on_dims(self) -> None:
        self._update_next()
        self._sync_soon.start()
        self._prefetch_soon.start()
        if self.viewer.dims.ndisplay == 3 and self.layers is not None:
            # A click into a volume has no plane to stand on.
            for layer in (self.layers.points, self.layers.boxes):
                if layer is not None:
                    layer.mode = "pan_zoom"
        self.view_changed.emit()

    def _on_frame_written(self, stack: OpenStack, frame: int) -> None:
        view = self.view(tell=False)
        if view is None or (self._stacks.get(view) is stack and frame == self.frame(view)):
            self._redraw_soon.start()

    def _redraw(self) -> None:
        if self.output is not None:
            self.output.refresh()

    # -- showing ----------------------------------------------------------------------------------

    def _current(self) -> tuple[OpenStack | None, Key]:
        """The open stack on display with everything drawn sent to it, and the current key."""
        view = self.view(tell=False)
        if view is None:
            return None, (self.object_id, 0)
        self.sync()
        return self._stacks.get(view), (self.object_id, self.frame(view))

    def _update_next(self) -> None:
        view = self.view(tell=False)
        if self.layers is not None and view is not None:
            self.layers.set_next(self.object_id, self.sign, view)

    def _show(self) -> None:
        view = self.view(tell=False)
        stack = None if view is None else self._stacks.get(view)
        if self.layers is None or view is None or stack is None:
            return
        frame = self.frame(view)
        self.layers.show_preview(view, frame, stack.preview(frame, self.object_id))
        self.answer_changed.emit(stack.describe((self.object_id, frame)))
        if self.jobs.idle:
            self._show_status("")

    def _show_status(self, busy: str) -> None:
        self.status_changed.emit(busy or self._ready_text())

    def _ready_text(self) -> str:
        if self._model is None:
            return ""
        model = self._model[1]
        text = f"{model.name} on {getattr(model, 'device', self._model_choice[1])}"
        view = self.view(tell=False)
        stack = None if view is None else self._stacks.get(view)
        if view is not None and stack is not None:
            frame = self.frame(view)
            text += f", plane {frame} is {'' if stack.session.is_embedded(frame) else 'not '}encoded"
        return text

    def _timer(self, delay: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(delay)
        timer.timeout.connect(slot)
        return timer
