"""What the window knows of one stack while it is worked on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from napari_segany.core.masks import Candidates, paste
from napari_segany.gui.layers import Drawn
from napari_segany.session.session import Key, Session


@dataclass
class OpenStack:
    """A session with what was sent to it and what it answered.

    Attributes
    ----------
    session : Session
    sent : dict
        Prompts as they were when last sent.
    answers : dict
        Candidate masks; None while they are on their way.
    chosen : dict
        Candidate the person chose where it is not the best.
    numbers : dict
        Number of the last request for each key; answers to earlier ones are dropped.
    """

    session: Session
    sent: dict[Key, Drawn] = field(default_factory=dict)
    answers: dict[Key, Candidates | None] = field(default_factory=dict)
    chosen: dict[Key, int] = field(default_factory=dict)
    numbers: dict[Key, int] = field(default_factory=dict)

    # -- work, in another thread --------------------------------------------------------------

    def prompt(self, key: Key, drawn: Drawn) -> Candidates | None:
        """Send the prompts of one object on one frame."""
        self.session.prompt(*key, points=drawn.points, labels=drawn.labels, box=drawn.box, replace=True)
        return self.session.candidates(*key)

    def ask_again(self, key: Key) -> Candidates:
        """The answer to prompts the session already holds, which is no new step in its history."""
        (answer,) = self.session.model.predict(self.session.embedding(key[1]), [self.session.prompts[key]])
        return answer

    def accept(self, key: Key) -> None:
        """Write the chosen mask into the labels."""
        answer = self.answers.get(key)
        if answer is None or (key not in self.chosen and answer is self.session.candidates(*key)):
            self.session.accept(*key)
        else:
            self.session.accept(*key, mask=self.mask(key, answer))

    def undo(self) -> tuple[str | None, set[Key], set[Key]]:
        """Take the last step back; its name, and whose prompts and whose acceptance it changed."""
        prompts, accepted = dict(self.session.prompts), set(self.session.accepted)
        name = self.session.undo()
        now = self.session.prompts
        changed = {key for key in {*prompts, *now} if prompts.get(key) is not now.get(key)}
        return name, changed, accepted ^ set(self.session.accepted)

    # -- reading --------------------------------------------------------------------------------

    def index(self, key: Key, answer: Candidates) -> int:
        """The candidate shown."""
        return self.chosen.get(key, answer.best_index)

    def mask(self, key: Key, answer: Candidates) -> np.ndarray:
        """(H, W) bool, the candidate shown."""
        return paste(answer.grid.image_shape, *answer.patch(self.index(key, answer)))

    def choose_next(self, key: Key) -> bool:
        """Show the candidate with the next lower score, after the lowest the highest; whether there is another."""
        answer = self.answers.get(key)
        if answer is None or len(answer.scores) < 2:
            return False
        order = np.argsort(-answer.scores, kind="stable").tolist()
        self.chosen[key] = order[(order.index(self.index(key, answer)) + 1) % len(order)]
        return True

    def preview(self, frame: int, object_id: int) -> np.ndarray:
        """(H, W) int32 ids of what is prompted but not yet accepted on a frame, the current object on top."""
        plane = np.zeros(self.session.frames.shape[1:3], dtype=np.int32)
        keys = [key for key in self.answers if key[1] == frame and key not in self.session.accepted]
        for key in [*sorted(keys), (object_id, frame)]:
            answer = self.answers.get(key)
            if answer is not None:
                y0, x0, y1, x1 = (box_patch := answer.patch(self.index(key, answer)))[0]
                plane[y0:y1, x0:x1][box_patch[1]] = key[0]
        return plane

    def describe(self, key: Key) -> str:
        """One line about the mask shown, empty when there is none."""
        answer = self.answers.get(key)
        if answer is None:
            return ""
        index = self.index(key, answer)
        rank = np.argsort(-answer.scores, kind="stable").tolist().index(index) + 1
        return f"mask {rank} of {len(answer.scores)}, predicted IoU {answer.scores[index]:.2f}"
