"""Several clicks, answered as they came: a click that is at odds with what was drawn before it corrects that.

The decoder learned to be given its previous mask beside a corrective click, as
in SAM (Kirillov et al. 2023, A). Scripts and layers give all clicks at once,
so what the first of them were answered with is found again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_segany.core.prompts import Prompt
from napari_segany.models.nano.views import View, comfortable_level

#: Cells of a window's border that an object must not reach, if the same window is to show it again.
BORDER = 3


@dataclass(frozen=True)
class Drawn:
    """What a prompt was answered with.

    Attributes
    ----------
    view : View
    logits : (h, w) float32
    """

    view: View
    logits: np.ndarray

    @property
    def is_empty(self) -> bool:
        """Whether nothing was drawn."""
        return not (self.logits > 0).any()

    def contradicts(self, point: np.ndarray, label: int) -> bool:
        """Whether the mask is wrong at a click (y, x) that says inside, 1, or outside, 0."""
        row, column = ((point + 0.5) * 2.0**-self.view.level - self.view.origin) // 4
        reached = 0 <= row < self.logits.shape[0] and 0 <= column < self.logits.shape[1]
        inside = reached and self.logits[int(row), int(column)] > 0
        return bool(inside) != bool(label)

    def again(self, coarsest: int) -> View:
        """The view that suits what was drawn: the same one, unless the object is of another size or at its border."""
        inside = self.logits > 0
        y0, x0, y1, x1 = self.view.box(inside)
        level = comfortable_level(max(y1 - y0, x1 - x0), coarsest)
        if level == self.view.level and inside.sum() == inside[BORDER:-BORDER, BORDER:-BORDER].sum():
            return self.view
        return View.at(((y0 + y1) / 2, (x0 + x1) / 2), level)


@dataclass(frozen=True, eq=False)
class Correction(Prompt):
    """A prompt, and what the first of its clicks were answered with."""

    drawn: Drawn = field(kw_only=True)


def as_corrections(
    prompts: Sequence[Prompt], ask: Callable[[Sequence[Prompt]], Sequence[Drawn]], known: dict[bytes, Drawn]
) -> list[Prompt]:
    """Give prompts of several clicks what was drawn before the last of them.

    Clicks that agree with what is drawn already are no correction, and cost no
    answer of their own: those along a scribble, mostly. A prompt that has a
    mask, or no click on the object, stays as it is.

    Parameters
    ----------
    prompts : sequence of Prompt
    ask : callable
        Answers some prompts.
    known : dict
        What was drawn before, by prompt; more is added.
    """
    drawn: dict[int, Drawn] = {}
    starts = [_clicks_to_begin_with(prompt) for prompt in prompts]
    for count in range(max((len(prompt.points) for prompt in prompts), default=0)):
        due = {}
        for i, (prompt, start) in enumerate(zip(prompts, starts, strict=True)):
            if not start <= count < len(prompt.points):
                continue
            if count == start or drawn[i].contradicts(prompt.points[count - 1], prompt.labels[count - 1]):
                first = Prompt(prompt.points[:count], prompt.labels[:count], prompt.box)
                due[i] = _correction(first, drawn.get(i))
        names = {i: _name(prompt) for i, prompt in due.items()}
        new = [i for i in due if names[i] not in known]
        if new:
            known |= dict(zip((names[i] for i in new), ask([due[i] for i in new]), strict=True))
        drawn |= {i: known[name] for i, name in names.items()}
    return [_correction(prompt, drawn.get(i)) for i, prompt in enumerate(prompts)]


def _clicks_to_begin_with(prompt: Prompt) -> int:
    """How many clicks make a prompt that others can correct; all of them where none is left for that."""
    inside = np.flatnonzero(prompt.labels == 1)
    if prompt.mask is not None or (prompt.box is None and not len(inside)):
        return len(prompt.points)
    return 0 if prompt.box is not None else int(inside[0]) + 1


def _correction(prompt: Prompt, drawn: Drawn | None) -> Prompt:
    if drawn is None or drawn.is_empty:
        return prompt
    return Correction(prompt.points, prompt.labels, prompt.box, drawn=drawn)


def _name(prompt: Prompt) -> bytes:
    box = b"" if prompt.box is None else prompt.box.tobytes()
    return prompt.points.tobytes() + prompt.labels.tobytes() + box
