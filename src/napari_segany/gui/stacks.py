"""The stacks of an image layer that are open: sessions with the model and the intensities that were chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning

from napari_segany import api
from napari_segany.core.intensity import DEFAULT_PERCENTILES
from napari_segany.gui.model_choice import ModelChoice
from napari_segany.gui.open_stack import OpenStack
from napari_segany.gui.opening import close_session, open_session
from napari_segany.gui.output import largest_id, place_for_labels
from napari_segany.gui.plane_labels import PlaneLabels
from napari_segany.gui.preferences import preference
from napari_segany.gui.stack_view import StackView

if TYPE_CHECKING:
    from napari_segany.gui.controller import Controller

#: Gigabytes of embeddings that are kept on disk unless the preferences say otherwise.
KEPT = 2.0


class Stacks:
    """Opens stacks in another thread, and changes what the answers of all of them depend on.

    Parameters
    ----------
    controller : Controller

    Attributes
    ----------
    model : ModelChoice
    percentiles : (low, high)
        Of the intensities that models are shown.
    autosave : bool
        Whether labels made from now on are kept on disk while they grow, or in memory only.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.model = ModelChoice()
        self.percentiles = DEFAULT_PERCENTILES
        self.autosave = True
        self._by_view: dict[StackView, OpenStack | None] = {}

    def all(self) -> list[OpenStack]:
        """Those that are open."""
        return [stack for stack in self._by_view.values() if stack is not None]

    def get(self, view: StackView) -> OpenStack | None:
        """The stack of a view, if it is open."""
        return self._by_view.get(view)

    # -- opening ----------------------------------------------------------------------------------

    def open(self, view: StackView, encode: bool = True) -> None:
        """Load the model, open a stack and, for clicks, encode the plane on display."""
        controller = self._controller
        image, location, output = controller.image, controller.location, controller.output
        if view in self._by_view or image is None or location is None:
            return
        own = (output.layer is None and self.autosave) or output.path is not None
        path = place_for_labels(image, view) if own else None
        try:
            labels = PlaneLabels(output.ensure(image).data, view) if path is None else path
        except MemoryError:
            show_warning("There is not enough memory for a labels layer of this size; choose a smaller image.")
            return
        self._by_view[view] = None
        by_view, chosen, percentiles = self._by_view, self.model, self.percentiles
        kept = float(preference("defaults", "embeddings", KEPT))
        frame = location.frame(view)

        def work() -> tuple[OpenStack, int]:
            session = open_session(image, view, chosen.load(), labels)
            stack = OpenStack(session, controller.jobs, controller.show)
            if kept > 0:
                session.embeddings = api.kept_embeddings(kept)
            if percentiles != DEFAULT_PERCENTILES:
                stack.use_percentiles(percentiles)
            if encode:
                session.embedding(frame)
            return stack, 0 if path is None else largest_id(session.labels)

        def then(opened: tuple[OpenStack, int]) -> None:
            stack, highest = opened
            by_view[view], stack.strategy = stack, controller.strategy
            controller.words_changed.emit(getattr(stack.session.model, "words", ()))
            stack.session.labels_changed.connect(lambda frame: controller.frame_written.emit(stack, frame))
            if path is not None:
                output.show(stack.session.labels, path, image, highest)
                controller.output_changed.emit()
                controller.take_up(view, stack)
            controller.sync()

        def failed() -> None:
            by_view.pop(view, None)

        loading = f"loading {chosen.name}, " if chosen.model is None else ""
        busy = f"{loading}{f'encoding plane {frame}' if encode else 'opening the stack'}…".capitalize()
        controller.jobs.submit(work, then, busy, failed, late=lambda opened: close_session(opened[0].session))

    def use(self, act: Callable[[OpenStack], None]) -> None:
        """Do something with the stack on display, which is opened for it if need be."""
        view = self._controller.view(tell=True)
        if view is None:
            return
        self.open(view, encode=False)

        def then(_: None) -> None:
            stack = self._by_view.get(view)
            if stack is not None:
                act(stack)

        # After the opening, which may take a while, or fail.
        self._controller.jobs.submit(lambda: None, then)

    def close(self) -> None:
        """Close every session; what is still being opened is closed when it is there."""
        for stack in self.all():
            close_session(stack.session)
        self._by_view = {}

    # -- what answers depend on -------------------------------------------------------------------

    def choose_model(self, name: str, device: str = "auto", dtype: str = "auto") -> None:
        """Answer with another model from now on; prompts and labels stay. It is loaded when it is first needed."""
        if (name, device, dtype) == (self.model.name, self.model.device, self.model.dtype):
            return
        chosen = self.model = ModelChoice(name, device, dtype)
        self._change(lambda stack: stack.session.use_model(chosen.load()), f"Loading {name}…")

    def choose_percentiles(self, low: float, high: float) -> None:
        """Show models the intensities between two percentiles from now on; prompts and labels stay."""
        if low >= high:
            show_warning(f"The lower percentile, {low:g}, must lie below the upper, {high:g}.")
            return
        self.percentiles = low, high
        self._change(lambda stack: stack.use_percentiles((low, high)), "Measuring intensities…")

    def choose_autosave(self, autosave: bool) -> None:
        """Let the labels made from now on be kept on disk while they grow, or in memory only."""
        self.autosave = autosave

    def _change(self, change: Callable[[OpenStack], None], busy: str) -> None:
        """Change something in all stacks, and ask again."""
        controller, stacks = self._controller, self.all()
        controller.propagation.cancel()

        def work() -> None:
            for stack in stacks:
                change(stack)

        def then(_: None) -> None:
            for stack in stacks:
                stack.forget_answers()
            controller.concepts.result = None
            controller.concepts.show()
            controller.sync()

        if stacks:
            controller.jobs.submit(work, then, busy)
