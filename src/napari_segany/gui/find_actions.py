"""What a person does with concepts: find every object on a plane, sift, accept, follow through the stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info, show_warning

from napari_segany.core.boxes import Box
from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.instances import Instances
from napari_segany.core.settings import FindSettings, TrackSettings
from napari_segany.gui.found import FoundLayers, Kind
from napari_segany.gui.open_stack import OpenStack
from napari_segany.gui.stack_view import StackView
from napari_segany.session.concept_session import ConceptSession
from napari_segany.session.tiling import Progress

if TYPE_CHECKING:
    from napari_segany.gui.controller import Controller

#: Said when a stack holds nothing of what was looked for.
NOTHING = "Nothing was found in these planes; lower the threshold, or draw a box around an example."
#: Objects down to this score are fetched, so that the threshold can be moved without asking again.
LOWEST_SCORE = 0.05


@dataclass(frozen=True)
class Result:
    """What was found on one plane, the best first."""

    stack: OpenStack
    view: StackView
    frame: int
    objects: Instances


class FindActions:
    """Concepts and examples on the plane on display.

    Parameters
    ----------
    controller : Controller

    Attributes
    ----------
    threshold : float
    only_seen : bool
        Whether objects are looked for only in the part of the plane that the canvas shows.
    result : Result or None
    current : int
        Which of the objects above the threshold is looked at, 0 for the best.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.layers: FoundLayers | None = None
        self.threshold, self.only_seen = FindSettings().threshold, False
        self.result: Result | None = None
        self.current = 0
        self._stopped = Event()

    def draw(self, kind: Kind) -> None:
        """Take the rectangle tool in hand for examples, or for counter-examples."""
        if self._controller.view(tell=True) is not None and self.layers is not None:
            self.layers.take_in_hand(kind)

    def find(self, text: str) -> None:
        """Find every object of a concept on the plane on display, and show what is above the threshold."""
        asked = self._asked()
        if asked is None:
            return
        view, frame, shown, others = asked
        settings = FindSettings(threshold=LOWEST_SCORE)

        def look(session: ConceptSession, region: Box | None, progress: Progress) -> Instances:
            return session.find(text.strip() or None, shown, others, frame, settings, region, progress)

        self._search(view, frame, look, "Searching…")

    def _asked(self) -> tuple[StackView, int, np.ndarray, np.ndarray] | None:
        """The plane on display with the examples and counter-examples on it; None, and why is told, without one."""
        view, location = self._controller.view(tell=True), self._controller.location
        if view is None or self.layers is None or location is None:
            return None
        frame = location.frame(view)
        return (
            view,
            frame,
            self.layers.boxes("examples", view, frame),
            self.layers.boxes("counter-examples", view, frame),
        )

    def propose(self) -> None:
        """Suggest what is not in the labels of the plane on display yet, and show what is above the threshold."""
        controller = self._controller
        view = controller.view(tell=True)
        if view is None or controller.location is None:
            return
        frame, settings = controller.location.frame(view), FindSettings(threshold=LOWEST_SCORE)

        def look(session: ConceptSession, region: Box | None, progress: Progress) -> Instances:
            return session.propose(frame, settings, region, progress)

        self._search(view, frame, look, "Searching the rest…")

    def choose_only_seen(self, only_seen: bool) -> None:
        """Look only where the canvas shows the plane from now on, or everywhere on it."""
        self.only_seen = only_seen

    def stop(self) -> None:
        """End the search after the tile in hand, or tracking after the plane, with what was found until then."""
        self._stopped.set()

    def _search(
        self, view: StackView, frame: int, look: Callable[[ConceptSession, Box | None, Progress], Instances], busy: str
    ) -> None:
        """Look in the region that is seen, or everywhere when that is what is wanted, and show what is found."""
        controller, region = self._controller, None
        if self.only_seen:
            assert controller.location is not None
            region = controller.location.seen(view)
            if region is None:
                show_warning("Nothing of the image is on the canvas; move the view over it.")
                return

        self._stopped = stopped = Event()

        def progress(done: int, total: int) -> bool:
            controller.search_progressed.emit(done, total)
            return not stopped.is_set()

        def ask(stack: OpenStack) -> None:
            controller.jobs.submit(
                partial(look, stack.session, region, progress), partial(self._on_found, stack, view, frame), busy
            )

        controller.stacks.use(ask)

    def _on_found(self, stack: OpenStack, view: StackView, frame: int, objects: Instances) -> None:
        self.result, self.current = Result(stack, view, frame, objects), 0
        if not len(objects):
            show_info("Nothing was found here; try another word, or draw a box around an example.")
        elif not len(self.chosen()):
            show_info(f"The best of what was found scores {objects.scores.max():.2f}: lower the threshold to see it.")
        self.show()

    def choose_threshold(self, threshold: float) -> None:
        """Show objects from another score on; the model is not asked again."""
        self.threshold = threshold
        self.show()

    def chosen(self) -> Instances:
        """Objects above the threshold."""
        assert self.result is not None
        objects = self.result.objects
        return objects.take(np.flatnonzero(objects.scores >= self.threshold))

    def show(self) -> None:
        """Show the objects above the threshold."""
        if self.layers is None:
            return
        if self.result is None:
            self.layers.clear()
        else:
            self.current = min(self.current, max(len(self.chosen()) - 1, 0))
            self.layers.show(self.result.view, self.result.frame, self.chosen().labels)
            self.layers.mark(self.current + 1)
        self._controller.found_changed.emit()

    def select(self, row: int) -> None:
        """Look at one of the objects found."""
        if self.layers is not None and self.result is not None:
            self.current = row
            self.layers.mark(row + 1)

    def accept_current(self) -> None:
        """Accept the object that is looked at, and look at the next."""
        self.accept([self.current])

    def reject_current(self) -> None:
        """Drop the object that is looked at, and look at the next."""
        if self.result is None or not len(self.chosen()):
            show_warning("There is nothing to reject: find objects first, or lower the threshold.")
            return
        self._forget(self.chosen().take([self.current]))

    def accept(self, rows: list[int] | None = None) -> None:
        """Write the objects above the threshold, or some of them, into the labels, as new objects."""
        if self.result is None or not len(self.chosen()):
            show_warning("There is nothing to accept: find objects first, or lower the threshold.")
            return
        if rows == []:
            show_warning("Select objects in the table first.")
            return
        result, objects = self.result, self.chosen() if rows is None else self.chosen().take(rows)
        # At once, so that nothing is accepted twice by somebody quick.
        self._forget(objects)

        def then(ids: list[int]) -> None:
            if len(ids) < len(objects):
                show_info(f"{len(objects) - len(ids)} objects lie wholly on labels that are there, and were left out.")
            self._controller.on_labels_written()
            self._controller.next_object()

        self._controller.jobs.submit(partial(result.stack.session.accept_found, objects, result.frame), then)

    def _forget(self, some: Instances) -> None:
        """Keep the others."""
        if self.result is None:
            return
        objects, gone = self.result.objects, {box.tobytes() for box in some.boxes}
        left = [i for i, box in enumerate(objects.boxes) if box.tobytes() not in gone]
        self.result = replace(self.result, objects=objects.take(left)) if left else None
        self.show()

    def track(self, text: str, start: int, stop: int, divisions: bool) -> None:
        """Find every object of the concept on every plane and follow each through the stack."""
        controller, asked = self._controller, self._asked()
        if asked is None:
            return
        _, frame, shown, others = asked
        settings = TrackSettings(find=FindSettings(threshold=self.threshold), divisions=divisions)

        def begin(stack: OpenStack) -> None:
            self._stopped = stopped = Event()

            def visits(progress: Progress) -> Iterator[tuple[int, Any]]:
                def looked(done: int, total: int) -> bool:
                    controller.track_progressed.emit(done, total)
                    return progress(done, total) is not False and not stopped.is_set()

                known = len(stack.session.tracks)
                asked = text.strip() or None, shown, others, frame, start, stop, settings
                yield from stack.session.track(*asked, progress=looked)
                if len(stack.session.tracks) == known and not stopped.is_set():
                    raise InvalidPromptError(NOTHING)

            controller.jobs.submit(lambda: None, lambda _: controller.propagation.start(visits, stop - start))

        controller.stacks.use(begin)

    def leave(self) -> None:
        """Forget everything of this image."""
        self.result = None
        if self.layers is not None:
            self.layers.close()
        self.layers = None
