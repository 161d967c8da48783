"""A session in the window: what was sent to it, what it answered, and which of its masks is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_segany.api import Session
from napari_segany.core.masks import Candidates, Strategy
from napari_segany.core.prompts import Prompt
from napari_segany.core.state import Key
from napari_segany.gui.drawn import Drawn, outlines
from napari_segany.gui.jobs import Jobs

#: Objects that count as the last ones.
LATELY = 10

#: Answers kept that nobody waits for.
SETTLED_KEPT = 64


class OpenStack:
    """Sends what is drawn to a session, in another thread, and keeps the answers.

    Parameters
    ----------
    session : Session
    jobs : Jobs
    answered : callable
        Called in the main thread when there is something new to show.

    Attributes
    ----------
    sent : dict
        Prompts as they were when last sent.
    answers : dict
        Candidate masks by object id and frame; None while they are on their way.
    chosen : dict
        Candidate the person chose, where it is not that of the `strategy`.
    painted : dict
        Masks (H, W) bool that were changed with the brush.
    strategy : str
        See `Candidates.index`.
    areas : dict
        Pixels of objects in the labels, by frame and object id, as far as they were counted.
    """

    def __init__(self, session: Session, jobs: Jobs, answered: Callable[[], None]) -> None:
        self.session, self.jobs, self.answered = session, jobs, answered
        self.sent: dict[Key, Drawn] = {}
        self.answers: dict[Key, Candidates | None] = {}
        self.chosen: dict[Key, int] = {}
        self.painted: dict[Key, np.ndarray] = {}
        self.strategy: Strategy = "highest"
        self.areas: dict[int, dict[int, int]] = {}
        self._drawn: WeakKeyDictionary[Prompt, Drawn] = WeakKeyDictionary()
        self._settled: dict[Key, tuple[Prompt | None, np.ndarray | None]] = {
            key: (session.prompts.get(key), None) for key in session.accepted
        }
        self._requests: dict[Key, int] = {}
        self._numbers = count(1)
        session.labels_changed.connect(self._forget_areas)

    # -- sending --------------------------------------------------------------------------------

    def update(self, drawn: Mapping[Key, Drawn], current: Key) -> None:
        """Send what differs from the last time, the current object first, and ask again for what is not known."""
        for key in sorted({*drawn, *self.sent}, key=lambda key: key != current):
            if key not in drawn:
                self._forget(key)
            elif drawn[key] != self.sent.get(key):
                self.sent[key] = drawn[key]
                self._request(key, partial(self._prompt, key, drawn[key]))
            elif key[1] == current[1] and key not in self.answers and key in self.session.prompts:
                self._request(key, partial(self._ask_again, key))

    def accept(self, keys: Sequence[Key], overwrite: bool, then: Callable[[], None]) -> None:
        """Write the masks shown into the labels."""

        def work() -> None:
            for key in keys:
                self._accept(key, overwrite)

        self.jobs.submit(work, lambda _: then())

    def accept_all(self, frame: int, overwrite: bool, then: Callable[[int], None]) -> None:
        """Write all masks that wait on a frame; `then` gets how many."""

        def work() -> int:
            # Looked up now, when all that was asked before is answered.
            keys = self.open_keys(frame)
            for key in keys:
                self._accept(key, overwrite)
            return len(keys)

        self.jobs.submit(work, then)

    def change(self, edit: Callable[[], Any], then: Callable[[Any, set[Key]], None]) -> None:
        """Edit the session; `then` gets the result, and whose prompts were changed."""

        def work() -> tuple[Any, set[Key]]:
            before = dict(self.session.prompts)
            result = edit()
            # What is settled stays so under another number.
            for key in set(self.session.accepted) - self._settled.keys():
                self._settled[key] = self.session.prompts.get(key), None
            return result, _differing(before, self.session.prompts)

        self.jobs.submit(work, lambda result: then(*result))

    def undo(self, then: Callable[[str | None, set[Key], set[Key]], None]) -> None:
        """Take back the last step; `then` gets its name, and whose prompts and whose acceptance it changed."""
        self.jobs.submit(partial(self._travel, self.session.undo), lambda result: then(*result))

    def redo(self, then: Callable[[str | None, set[Key], set[Key]], None]) -> None:
        """Do again what was taken back last; see `undo`."""
        self.jobs.submit(partial(self._travel, self.session.redo), lambda result: then(*result))

    def embed(self, frame: int) -> None:
        """Encode a frame before it is asked for."""
        self.jobs.submit(lambda: self.session.embedding(frame), lambda _: self.answered(), self._busy(frame))

    def held(self, key: Key) -> Drawn | None:
        """Return the prompts that the session holds, as they were drawn, or as they can be."""
        prompt = self.session.prompts.get(key)
        if prompt is None:
            return None
        if prompt in self._drawn:
            return self._drawn[prompt]
        points = tuple((float(y), float(x)) for y, x in prompt.points)
        box = None if prompt.box is None else tuple(float(v) for v in prompt.box)
        lines = () if prompt.mask is None else outlines(prompt.mask > 0)
        return Drawn(points, tuple(int(v) for v in prompt.labels), box, lines)

    def restored(self, key: Key, drawn: Drawn | None) -> None:
        """Take note that the layers show what the session holds again: there is nothing to send, but to ask."""
        for table in (self.answers, self.sent, self.chosen):
            table.pop(key, None)  # type: ignore[attr-defined]
        if drawn is not None:
            self.sent[key] = drawn

    def forget_answers(self) -> None:
        """Drop the answers of another model or another intensity range; what was refused is sent again."""
        self.answers.clear()
        self.chosen.clear()
        for key in self.sent.keys() - self.session.prompts.keys():
            del self.sent[key]

    def _forget(self, key: Key) -> None:
        for table in (self.sent, self.answers, self.painted, self._requests):
            table.pop(key, None)  # type: ignore[attr-defined]
        self.jobs.submit(lambda: self.session.forget(*key))

    def _request(self, key: Key, ask: Callable[[], Candidates | None]) -> None:
        number = self._requests[key] = next(self._numbers)
        self.answers.setdefault(key, None)

        def then(answer: Candidates | None) -> None:
            # An answer to an earlier request comes too late.
            if self._requests.get(key) == number:
                self.answers[key] = answer
                self._forget_settled(key[1])
                self.chosen.pop(key, None)
                self.painted.pop(key, None)
                self.answered()

        self.jobs.submit(ask, then, self._busy(key[1]))

    def _forget_settled(self, frame: int) -> None:
        """Let go of the oldest answers on other frames whose masks are in the labels; there they are had again."""
        settled = [
            key
            for key, known in self.answers.items()
            if key[1] != frame and known is not None and not self.is_open(key)
        ]
        for key in settled[:-SETTLED_KEPT]:
            del self.answers[key]

    def _busy(self, frame: int) -> str:
        return "" if self.session.is_embedded(frame) else f"Encoding plane {frame}…"

    # -- in the jobs' thread ----------------------------------------------------------------------

    def _prompt(self, key: Key, drawn: Drawn) -> Candidates | None:
        height, width = self.session.frames.shape[1:3]
        self.session.prompt(*key, **drawn.arguments((height, width)), replace=True)
        self._drawn[self.session.prompts[key]] = drawn
        return self.session.candidates(*key)

    def _ask_again(self, key: Key) -> Candidates | None:
        # Not by prompting, which would be a new step in the history.
        return self.session.candidates(*key)

    def _accept(self, key: Key, overwrite: bool) -> None:
        painted, answer = self.painted.get(key), self.answers.get(key)
        candidate = None if answer is None else self.index(key, answer)
        self.session.accept(*key, mask=painted, candidate=candidate, overwrite=overwrite)
        self._settled[key] = self.session.prompts.get(key), painted

    def use_percentiles(self, percentiles: tuple[float, float]) -> None:
        """Stretch intensities between other percentiles from now on; what the model saw before is forgotten."""
        frames: Any = self.session.frames
        frames.intensity = frames.estimate_intensity(percentiles)
        self.session.use_model(self.session.model)

    def measure(self, object_id: int, frames: Sequence[int]) -> None:
        """Count the pixels of an object on some frames."""
        for frame in frames:
            area = int(np.count_nonzero(self.session.store.read(frame) == object_id))
            self.areas.setdefault(frame, {})[object_id] = area

    def _forget_areas(self, frame: int) -> None:
        self.areas.pop(frame, None)

    def _travel(self, move: Callable[[], str | None]) -> tuple[str | None, set[Key], set[Key]]:
        prompts, accepted = dict(self.session.prompts), set(self.session.accepted)
        name = move()
        return name, _differing(prompts, self.session.prompts), accepted ^ set(self.session.accepted)

    # -- showing ----------------------------------------------------------------------------------

    def is_open(self, key: Key) -> bool:
        """Whether an object has a mask on a frame that is not in the labels, be it new or corrected."""
        if self.answers.get(key) is None and key not in self.painted:
            return False
        settled = self._settled.get(key)
        if key not in self.session.accepted or settled is None:
            return True
        return settled[0] is not self.session.prompts.get(key) or settled[1] is not self.painted.get(key)

    def open_keys(self, frame: int) -> list[Key]:
        """Objects on a frame whose masks are not in the labels."""
        return sorted(key for key in {*self.answers, *self.painted} if key[1] == frame and self.is_open(key))

    def settled_ids(self) -> set[int]:
        """Objects that were accepted and have no mask that waits."""
        waiting = {key[0] for key in {*self.answers, *self.painted} if self.is_open(key)}
        return {object_id for object_id, _ in self.session.accepted} - waiting

    def choose(self, key: Key, index: int) -> None:
        """Show a candidate."""
        self.chosen[key] = index
        self.painted.pop(key, None)

    def choose_next(self, key: Key) -> bool:
        """Show the candidate with the next lower score, after the lowest the highest; whether there is another."""
        answer = self.answers.get(key)
        if answer is None or len(answer.scores) < 2:
            return False
        order = by_score(answer)
        self.choose(key, order[(order.index(self.index(key, answer)) + 1) % len(order)])
        return True

    def preview(self, current: Key) -> np.ndarray:
        """Draw ids (H, W) int32 of what is prompted but not yet accepted on a frame, the current object on top."""
        plane = np.zeros(self.session.frames.shape[1:3], dtype=np.int32)
        for key in sorted(self.open_keys(current[1]), key=lambda key: (key == current, key)):
            answer = self.answers.get(key)
            if key in self.painted:
                plane[self.painted[key]] = key[0]
            elif answer is not None:
                (y0, x0, y1, x1), inside = answer.patch(self.index(key, answer))
                plane[y0:y1, x0:x1][inside] = key[0]
        return plane

    def describe(self, key: Key) -> str:
        """Say which mask is shown, or where the object has prompts; empty when nothing is known of it."""
        if key in self.painted and self.is_open(key):
            return "mask changed with the brush"
        answer = self.answers.get(key)
        if answer is not None:
            index = self.index(key, answer)
            rank = by_score(answer).index(index) + 1
            return f"mask {rank} of {len(answer.scores)}, predicted IoU {answer.scores[index]:.2f}"
        elsewhere = sorted(frame for object_id, frame in self.sent if object_id == key[0])
        return f"prompted on plane {', '.join(map(str, elsewhere))}" if elsewhere and key not in self.answers else ""

    def describe_clicks(self) -> str:
        """Say how many prompts an accepted object took, over all and lately; empty before the first."""
        # In the order of their ids, which is that in which they were begun.
        clicks = [count for _, count in sorted(self.session.clicks.items())]
        if not clicks:
            return ""
        return (
            f"{np.mean(clicks):.1f} clicks per accepted object, {np.mean(clicks[-LATELY:]):.1f} for the last {LATELY}"
        )

    def index(self, key: Key, answer: Candidates) -> int:
        """Index of the candidate that is shown."""
        return self.chosen.get(key, answer.index(self.strategy))


def _differing(before: Mapping[Key, Prompt], now: Mapping[Key, Prompt]) -> set[Key]:
    return {key for key in {*before, *now} if before.get(key) is not now.get(key)}


def by_score(answer: Candidates) -> list[int]:
    """Indices of candidates, the highest score first."""
    return [int(i) for i in np.argsort(-answer.scores, kind="stable")]
