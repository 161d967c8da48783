"""What a person does with the stack as a whole: runs along it, and places to look at."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info, show_warning

from napari_segany.gui.open_stack import OpenStack
from napari_segany.gui.timeline import Course
from napari_segany.session.propagating_session import Direction, PropagatingSession

if TYPE_CHECKING:
    from napari_segany.gui.controller import Controller

#: Frames on which an object is measured in one go, so that a click in between is answered soon.
MEASURED_AT_ONCE = 8

#: Objects, first frame, frame after the last, direction.
Range = tuple[list[int] | None, int, int, Direction]


def count_frames(session: PropagatingSession, start: int, stop: int, direction: Direction) -> int:
    """How many frames a propagation is going to visit."""
    known = [frame for _, frame in (*session.prompts, *session.accepted) if start <= frame < stop]
    if direction == "forward" and known:
        return stop - min(known)
    if direction == "backward" and known:
        return max(known) + 1 - start
    return stop - start


class StackActions:
    """Propagation, and ways to the planes that need a look.

    Parameters
    ----------
    controller : Controller
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._last: tuple[OpenStack, Range] | None = None

    def propagate(self, start: int, stop: int, direction: Direction, only_current: bool) -> None:
        """Carry objects along the stack; see `Session.propagate`."""
        controller = self._controller
        controller.sync()
        stack, _ = controller.here()
        if stack is None:
            show_warning("There is nothing to propagate: prompt at least one object first.")
            return
        objects = [controller.object_id] if only_current else None
        self._run(stack, (objects, start, stop, direction), resume=False)

    def resume(self) -> None:
        """Go on with a propagation where it was cancelled."""
        stack, _ = self._controller.here()
        if stack is None or self._last is None or self._last[0] is not stack or not stack.session.finished:
            show_info("There is no cancelled propagation to go on with here.")
            return
        self._run(*self._last, resume=True)

    def update(self) -> None:
        """Follow corrections up and down the stack, only as far as they change something; see `Session.update`."""
        controller = self._controller
        controller.sync()
        stack, _ = controller.here()
        if stack is None:
            show_info("There is nothing to update.")
            return
        visits = stack.session.update
        controller.jobs.submit(lambda: None, lambda _: controller.propagation.start(lambda _: visits()))

    def _run(self, stack: OpenStack, wanted: Range, resume: bool) -> None:
        self._last = stack, wanted
        objects, start, stop, direction = wanted
        session = stack.session
        visits = partial(session.propagate, objects, start, stop, direction, resume)

        def begin() -> None:
            done = sum(start <= frame < stop for frame in session.finished) if resume else 0
            total = max(count_frames(session, start, stop, direction) - done, 1)
            self._controller.propagation.start(lambda _: visits(), total)

        # After the prompts that are still on their way.
        self._controller.jobs.submit(lambda: None, lambda _: begin())

    # -- where to look ----------------------------------------------------------------------------

    def go_to(self, frame: int) -> None:
        """Show a frame of the stack."""
        view, location = self._controller.view(), self._controller.location
        if view is not None and location is not None:
            location.go_to(view, frame)

    def most_uncertain(self) -> None:
        """Go to the plane and the object whose mask the model was least sure of."""
        stack, _ = self._controller.here()
        found = None if stack is None else stack.session.most_uncertain()
        if found is None:
            show_info("There is nothing to check: propagate first; accepted planes are taken as right.")
            return
        self._controller.set_object(found[0])
        self.go_to(found[1])

    def show_course(self) -> None:
        """Announce the course of the current object, measuring what is not known of it yet."""
        controller = self._controller
        stack, (object_id, frame) = controller.here()
        if stack is None:
            controller.course_changed.emit(Course(), 0)
            return
        session = stack.session
        scores = {at: score for (one, at), score in list(session.scores.items()) if one == object_id}
        pinned = frozenset(at for one, at in list(session.accepted) if one == object_id)
        prompted = frozenset(at for one, at in stack.sent if one == object_id)
        areas = {at: found[object_id] for at, found in list(stack.areas.items()) if object_id in found}
        course = Course(len(session.frames), scores, areas, prompted, pinned)
        controller.course_changed.emit(course, frame)
        missing = sorted((scores.keys() | pinned) - areas.keys())[:MEASURED_AT_ONCE]
        if missing and controller.jobs.idle:
            controller.jobs.submit(partial(stack.measure, object_id, missing), lambda _: controller.show_course_soon())
        elif missing:
            controller.show_course_soon()
