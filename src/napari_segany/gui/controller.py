"""Between the layers and the sessions: what is drawn is sent, what is answered is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QThreadPool, QTimer
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]

from napari_segany.core.errors import SeganyError
from napari_segany.core.masks import Strategy
from napari_segany.core.state import Key
from napari_segany.gui.adapt_actions import AdaptActions
from napari_segany.gui.find_actions import FindActions
from napari_segany.gui.found import FoundLayers
from napari_segany.gui.jobs import Jobs
from napari_segany.gui.layers import PromptLayers, Sign
from napari_segany.gui.location import Location
from napari_segany.gui.mask_actions import MaskActions
from napari_segany.gui.model_actions import ModelActions
from napari_segany.gui.open_stack import OpenStack, by_score
from napari_segany.gui.output import Output, largest_id
from napari_segany.gui.preview import Preview
from napari_segany.gui.propagation import Propagation
from napari_segany.gui.stack_actions import StackActions
from napari_segany.gui.stack_view import StackView
from napari_segany.gui.stacks import Stacks
from napari_segany.gui.track_actions import TrackActions
from napari_segany.gui.track_layer import TrackLayer

#: Rest on a plane before it is encoded ahead of the first click, milliseconds.
PREFETCH_DELAY = 300
#: The labels shown are redrawn at most this often, milliseconds.
REDRAW_DELAY = 40
#: The course of the current object is drawn anew at most this often, milliseconds.
COURSE_DELAY = 150
#: Threads there are at least for work that goes on at the same time.
THREADS = 8


class Controller(QObject):
    """Owns the sessions of the chosen image layer.

    Everything that is drawn schedules `sync`, which compares the layers with
    what was last sent and sends the difference. Choosing another image,
    another output, or deleting either, starts afresh from the layers; work
    still running then answers to nobody.

    Parameters
    ----------
    viewer : napari viewer

    Attributes
    ----------
    stacks : Stacks
    masks : MaskActions
    stack : StackActions
    concepts : FindActions
    tracks : TrackActions
    track_layer : TrackLayer
    models : ModelActions
    adapting : AdaptActions
    """

    status_changed = QtSignal(str)
    #: Device and precision in use, and the memory left there.
    memory_changed = QtSignal(str)
    object_changed = QtSignal(int)
    answer_changed = QtSignal(str)
    #: One line for each candidate, the highest score first, and which of them is shown.
    candidates_changed = QtSignal(object, int)
    #: Course of the current object, and the frame on display.
    course_changed = QtSignal(object, int)
    intensity_changed = QtSignal(str)
    #: What it cost so far to accept objects.
    clicks_changed = QtSignal(str)
    sign_changed = QtSignal(str)
    view_changed = QtSignal()
    output_changed = QtSignal()
    #: One line for each place to check.
    doubts_changed = QtSignal(object)
    #: Whether the Tracks layer is shown.
    tracks_shown_changed = QtSignal(bool)
    #: Tiles of a plane in which objects were looked for, and all of them; Qt carries it to the window's thread.
    search_progressed = QtSignal(int, int)
    #: Planes looked at for objects to track, planes in all.
    track_progressed = QtSignal(int, int)
    #: Other objects were found, or another threshold was chosen.
    found_changed = QtSignal()
    #: The model knows these words for concepts, all phrases when there are none.
    words_changed = QtSignal(object)
    #: An open stack, and a frame of its labels; Qt carries it from the propagation's thread to the window's.
    frame_written = QtSignal(object, int)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        # Clicks are answered while a stack is propagated and a model learns; Qt's own number is that of the cores.
        pool = QThreadPool.globalInstance()
        pool.setMaxThreadCount(max(pool.maxThreadCount(), THREADS))
        self.viewer = viewer
        self.jobs = Jobs()
        self.propagation = Propagation()
        self.output = Output(viewer)
        self.image: Image | None = None
        self.location: Location | None = None
        self.layers: PromptLayers | None = None
        self.preview: Preview | None = None
        self.stacks = Stacks(self)
        self.masks, self.stack, self.concepts = MaskActions(self), StackActions(self), FindActions(self)
        self.tracks, self.track_layer = TrackActions(self), TrackLayer(self)
        self.models, self.adapting = ModelActions(), AdaptActions(self)
        self.object_id = 1
        self.sign: Sign = "positive"
        self.strategy: Strategy = "highest"
        self.one_each = self.uncertainty = self._by_hand = False
        self._told: set[str] = set()
        self._sync_soon = self._timer(0, self.sync)
        self._redraw_soon = self._timer(REDRAW_DELAY, self.output.redraw)
        self._course_soon = self._timer(COURSE_DELAY, self.stack.show_course)
        self._prefetch_soon = self._timer(PREFETCH_DELAY, self._prefetch)
        self.frame_written.connect(self._on_frame_written)
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
            (self.output.label_selected, self._on_label_selected),
            (self.output.painted, self.track_layer.on_paint),
            (self.jobs.busy_changed, self._show_status),
        ]

    def close(self) -> None:
        """Stop what runs, listen no more, take the preview away; prompts and labels stay."""
        self.blockSignals(True)
        self.propagation.blockSignals(True)
        self.models.close()
        self.adapting.close()
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
            self.preview = Preview(self.viewer, image)
            self.concepts.layers = FoundLayers(self.viewer, image)
            self.layers.changed.connect(self._on_drawn)
            self.layers.tool_changed.connect(self._set_next)
            self.set_object(self.layers.highest_id() or 1)
        self.view_changed.emit()

    def _start_afresh(self) -> None:
        """Close every session; the layers still hold the prompts, and open them again."""
        self.propagation.cancel()
        self.jobs.clear()
        self.stacks.close()
        self._sync_soon.start()
        self.track_layer.update_soon()

    def _leave_image(self) -> None:
        self._start_afresh()
        if self.image is not None and self.layers is not None:
            self.image.events.data.disconnect(self._on_output_replaced)
            self.layers.changed.disconnect(self._on_drawn)
            self.layers.tool_changed.disconnect(self._set_next)
            self.layers.close()
        if self.preview is not None:
            self.preview.close()
        self.concepts.leave()
        self.track_layer.leave()
        self.image = self.location = self.layers = self.preview = None
        self.output.choose(None, None)

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
        chosen = self.output.layer
        if chosen is not None and self.output.path is None and not isinstance(chosen.data, np.ndarray):
            # Not in memory: reading it takes a while.
            self.jobs.submit(partial(largest_id, chosen.data), partial(self._on_largest_id, chosen), "Reading labels…")

    def _on_largest_id(self, layer: Labels, highest: int) -> None:
        if layer is self.output.layer:
            self.output.highest = highest
            self.set_object(max(self.object_id, highest + 1))

    def choose_one_each(self, one_each: bool) -> None:
        """Let each point, box or outline begin an object of its own, or belong to the current one."""
        self.one_each = one_each

    def show_uncertainty(self, shown: bool) -> None:
        """Show how sure the model is of the current object's outline, or do not."""
        self.uncertainty = shown
        self.show()

    def set_object(self, object_id: int) -> None:
        """Prompt another object from now on."""
        self.object_id = object_id
        self._set_next()
        self.output.select(object_id)
        self.object_changed.emit(object_id)
        self._sync_soon.start()

    def toggle_sign(self) -> None:
        """Let the next points be negative, or positive again."""
        self.sign = "negative" if self.sign == "positive" else "positive"
        self._set_next()
        self.sign_changed.emit(self.sign)

    def use_tool(self, tool: str) -> None:
        """Take "points", "boxes", "lasso", "scribble" or "brush" in hand, and encode the plane shown meanwhile."""
        view, (stack, key) = self.view(tell=True), self.here()
        if view is None or self.layers is None or self.preview is None:
            return
        if tool == "brush":
            self.layers.ensure()
            self.preview.paint(view, key[1], self.object_id, stack.preview(key) if stack else _nothing(view))
        else:
            self.layers.take_in_hand(tool)
        self._set_next()
        self.stacks.open(view)

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
        return self.stacks.get(view), (self.object_id, self.location.frame(view))

    # -- prompts ----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Send what was drawn since the last time, and show what is known."""
        self._take_paint()
        view, by_hand, self._by_hand = self.view(), self._by_hand, False
        if self.layers is None or view is None:
            return
        self.layers.one_box_each(view, self.next_id if self.one_each else None)
        drawn, refused = self.layers.read(view)
        for sentence in sorted(set(refused) - self._told):
            show_warning(sentence)
        self._told = set(refused)
        stack, key = self.here()
        if stack is not None:
            stack.update(drawn, key)
            self.show()
        elif drawn:
            self.stacks.open(view)
        if by_hand and self.one_each and key in drawn:
            self.next_object()

    def next_id(self) -> int:
        """Return an object id that nothing has yet."""
        used = [self.output.highest, self.layers.highest_id() if self.layers else 0]
        used += [stack.session.next_object_id() - 1 for stack in self.stacks.all()]
        return max(used) + 1

    def next_object(self) -> None:
        """Go on to an object id that nothing has yet."""
        self.set_object(self.next_id())

    def draw_held(self, view: StackView, stack: OpenStack, key: Key) -> None:
        """Make the layers show the prompts that a session holds for an object on a frame."""
        assert self.layers is not None
        self.layers.replace(view, key, stack.held(key))
        stack.restored(key, self.layers.read(view)[0].get(key))

    def take_up(self, view: StackView, stack: OpenStack) -> None:
        """Draw the prompts of a session that was brought back from disk."""
        assert self.layers is not None
        drawn, _ = self.layers.read(view)
        for key in sorted(stack.session.prompts):
            if key not in drawn:
                self.draw_held(view, stack, key)
            elif stack.held(key) == drawn[key]:
                stack.restored(key, drawn[key])
        if not drawn:
            self.next_object()

    def _take_paint(self) -> None:
        """Keep what was painted into the preview."""
        if self.preview is not None and self.preview.place is not None:
            stack = self.stacks.get(self.preview.place[0])
            if stack is not None:
                stack.painted.update(self.preview.painted())

    # -- events -----------------------------------------------------------------------------------

    def _on_output_replaced(self) -> None:
        self._start_afresh()
        self.output.fit(self.image)
        self.output_changed.emit()

    def _on_drawn(self) -> None:
        self._by_hand = True
        # Not at once: napari is still in the middle of adding the point.
        self._sync_soon.start()

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if layer is self.image:
            self.choose_image(None)
        elif layer is self.output.layer:
            self.choose_output(None)
        elif self.track_layer.drop(layer):
            return
        elif self.layers is not None and (self.layers.drop(layer) or self._drop_preview(layer)):
            self._sync_soon.start()

    def _drop_preview(self, layer: Layer) -> bool:
        found = self.concepts.layers
        return (self.preview is not None and self.preview.drop(layer)) or (found is not None and found.drop(layer))

    def _on_label_selected(self, label: int) -> None:
        if label != self.object_id:
            self.set_object(label)

    def _on_dims(self) -> None:
        self._set_next()
        self._sync_soon.start()
        self._prefetch_soon.start()
        if self.viewer.dims.ndisplay == 3 and self.layers is not None:
            # A click into a volume has no plane to stand on.
            self.layers.put_down()
        self.view_changed.emit()

    def _prefetch(self) -> None:
        """Encode the plane on display before it is clicked."""
        stack, (_, frame) = self.here()
        if stack is None or stack.session.is_embedded(frame) or not self.jobs.idle or self.propagation.running:
            return
        stack.embed(frame)

    def _on_frame_written(self, stack: OpenStack, frame: int) -> None:
        self.track_layer.on_frame(stack, frame)
        shown, (_, frame_shown) = self.here()
        if self.view() is None or (shown is stack and frame == frame_shown):
            self._redraw_soon.start()
        if not self._course_soon.isActive():
            self._course_soon.start()

    def show_course_soon(self) -> None:
        """Draw the course of the current object anew."""
        self._course_soon.start()

    def on_labels_written(self) -> None:
        """Show labels that were changed."""
        self._redraw_soon.start()
        self.show()

    # -- showing ----------------------------------------------------------------------------------

    def _set_next(self) -> None:
        view = self.view()
        if self.layers is not None and self.location is not None and view is not None:
            self.layers.set_next(self.object_id, self.sign, view, self.location.frame(view))
        if self.preview is not None and self.preview.layer is not None:
            self.preview.layer.selected_label = self.object_id

    def show(self) -> None:
        """Show masks, prompts and what is known of the current object."""
        self._take_paint()
        view, (stack, key) = self.view(), self.here()
        if self.layers is None or self.preview is None or view is None or stack is None:
            return
        self.layers.show(view, self.object_id, stack.settled_ids())
        self.preview.show(view, key[1], stack.preview(key))
        answer = stack.answers.get(key)
        self.preview.show_uncertainty(view, key[1], answer.uncertainty if answer and self.uncertainty else None)
        self.answer_changed.emit(stack.describe(key))
        ranked = [] if answer is None else by_score(answer)
        lines = [f"{answer.scores[i]:.2f}" for i in ranked] if answer else []
        self.candidates_changed.emit(lines, ranked.index(stack.index(key, answer)) if answer else -1)
        intensity = stack.session.frames.intensity
        pairs = zip(intensity.low, intensity.high, strict=True)
        self.intensity_changed.emit("black to white: " + ", ".join(f"{low:g} to {high:g}" for low, high in pairs))
        self.clicks_changed.emit(stack.describe_clicks())
        self._course_soon.start()
        if self.jobs.idle:
            self._show_status("")

    def _show_status(self, busy: str) -> None:
        text = self.stacks.model.describe()
        stack, (_, frame) = self.here()
        if stack is not None:
            text += f", plane {frame} is {'' if stack.session.is_embedded(frame) else 'not '}encoded"
        if self.output.path is not None:
            text += f"; everything is saved in {self.output.path.name}"
        self.status_changed.emit(busy or text)
        self.memory_changed.emit(self.stacks.model.describe_memory())

    def _timer(self, delay: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(delay)
        timer.timeout.connect(slot)
        return timer


def _nothing(view: StackView) -> np.ndarray:
    return np.zeros(view.stack_shape[1:], dtype=np.int32)
