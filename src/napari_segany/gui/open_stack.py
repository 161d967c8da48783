"""A session in the window: what was sent to it, what it answered, and which of its masks is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

import numpy as np

from napari_segany.core.masks import Candidates, paste
from napari_segany.core.state import Key
from napari_segany.gui.jobs import Jobs
from napari_segany.gui.layers import Drawn
from napari_segany.session.session import Session


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
        Candidate the person chose, where it is not the best.
    """

    def __init__(self, session: Session, jobs: Jobs, answered: Callable[[], None]) -> None:
        self.session, self.jobs, self.answered = session, jobs, answered
        self.sent: dict[Key, Drawn] = {}
        self.answers: dict[Key, Candidates | None] = {}
        self.chosen: dict[Key, int] = {}
        self._requests: dict[Key, int] = {}
        self._numbers = count(1)

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

    def accept(self, key: Key, then: Callable[[], None]) -> None:
        """Write the mask shown into the labels."""
        self.jobs.submit(lambda: self._accept(key), lambda _: then())

    def undo(self, then: Callable[[str | None, set[Key], set[Key]], None]) -> None:
        """Take back the last step; `then` gets its name, and whose prompts and whose acceptance it changed."""
        self.jobs.submit(self._undo, lambda result: then(*result))

    def embed(self, frame: int) -> None:
        """Encode a frame before it is asked for."""
        self.jobs.submit(lambda: self.session.embedding(frame), lambda _: self.answered(), self._busy(frame))

    def held(self, key: Key) -> Drawn | None:
        """Return the prompts that the session holds, as they should be drawn."""
        prompt = self.session.prompts.get(key)
        if prompt is None:
            return None
        points = tuple((float(y), float(x)) for y, x in prompt.points)
        box = None if prompt.box is None else tuple(float(v) for v in prompt.box)
        return Drawn(points, tuple(int(v) for v in prompt.labels), box)

    def restored(self, key: Key, drawn: Drawn | None) -> None:
        """Take note that the layers show what the session holds again: there is nothing to send, but to ask."""
        self.answers.pop(key, None)
        self.sent.pop(key, None)
        if drawn is not None:
            self.sent[key] = drawn

    def model_changed(self) -> None:
        """Drop the answers of the model before."""
        self.answers.clear()
        self.chosen.clear()

    def _forget(self, key: Key) -> None:
        for table in (self.sent, self.answers, self._requests):
            table.pop(key, None)  # type: ignore[attr-defined]
        self.jobs.submit(lambda: self.session.forget(*key))

    def _request(self, key: Key, ask: Callable[[], Candidates | None]) -> None:
        number = self._requests[key] = next(self._numbers)
        self.answers.setdefault(key, None)

        def then(answer: Candidates | None) -> None:
            # An answer to an earlier request comes too late.
            if self._requests.get(key) == number:
                self.answers[key] = answer
                self.chosen.pop(key, None)
                self.answered()

        self.jobs.submit(ask, then, self._busy(key[1]))

    def _busy(self, frame: int) -> str:
        return "" if self.session.is_embedded(frame) else f"Encoding plane {frame}…"

    # -- in the jobs' thread ----------------------------------------------------------------------

    def _prompt(self, key: Key, drawn: Drawn) -> Candidates | None:
        self.session.prompt(*key, points=drawn.points, labels=drawn.labels, box=drawn.box, replace=True)
        return self.session.candidates(*key)

    def _ask_again(self, key: Key) -> Candidates | None:
        # Not by prompting, which would be a new step in the history.
        return self.session.candidates(*key)

    def _accept(self, key: Key) -> None:
        self.session.accept(*key, candidate=self.chosen.get(key))

    def _undo(self) -> tuple[str | None, set[Key], set[Key]]:
        prompts, accepted = dict(self.session.prompts), set(self.session.accepted)
        name = self.session.undo()
        now = self.session.prompts
        changed = {key for key in {*prompts, *now} if prompts.get(key) is not now.get(key)}
        return name, changed, accepted ^ set(self.session.accepted)

    # -- showing ----------------------------------------------------------------------------------

    def choose_next(self, key: Key) -> bool:
        """Show the candidate with the next lower score, after the lowest the highest; whether there is another."""
        answer = self.answers.get(key)
        if answer is None or len(answer.scores) < 2:
            return False
        order = _by_score(answer)
        self.chosen[key] = order[(order.index(self._index(key, answer)) + 1) % len(order)]
        return True

    def preview(self, current: Key) -> np.ndarray:
        """Draw ids (H, W) int32 of what is prompted but not yet accepted on a frame, the current object on top."""
        plane = np.zeros(self.session.frames.shape[1:3], dtype=np.int32)
        keys = [key for key in self.answers if key[1] == current[1] and key not in self.session.accepted]
        for key in [*sorted(keys), current]:
            answer = self.answers.get(key)
            if answer is not None:
                (y0, x0, y1, x1), inside = answer.patch(self._index(key, answer))
                plane[y0:y1, x0:x1][inside] = key[0]
        return plane

    def describe(self, key: Key) -> str:
        """Say which mask is shown and its score; empty when there is none."""
        answer = self.answers.get(key)
        if answer is None:
            return ""
        index = self._index(key, answer)
        rank = _by_score(answer).index(index) + 1
        return f"mask {rank} of {len(answer.scores)}, predicted IoU {answer.scores[index]:.2f}"

    def _index(self, key: Key, answer: Candidates) -> int:
        return self.chosen.get(key, answer.best_index)

    def _mask(self, key: Key, answer: Candidates) -> np.ndarray:
        return paste(answer.grid.image_shape, *answer.patch(self._index(key, answer)))


def _by_score(answer: Candidates) -> list[int]:
    return [int(i) for i in np.argsort(-answer.scores, kind="stable")]
