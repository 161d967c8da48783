"""Every object that nano sees on an image: what all searches begin with, whatever they look for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.models.nano.views import view_of
from napari_segany.models.packing import to_half

#: Boxes are kept as two numbers, since half precision counts to 2048 only.
DIGIT = 1024


@dataclass(frozen=True)
class Survey:
    """The objects of an image.

    Attributes
    ----------
    boxes : (N, 4) float64
        As proposed, in whole pixels.
    answers : N x Candidates
        One mask to each box.
    codes : (N, CODE) float32 tensor
        See `ConceptHead`.
    """

    boxes: np.ndarray
    answers: Sequence[Candidates]
    codes: Tensor

    @cached_property
    def _by_box(self) -> dict[tuple[float, ...], Candidates]:
        return dict(zip(map(tuple, self.boxes.tolist()), self.answers, strict=True))

    def answers_to(self, prompts: Sequence[Prompt]) -> list[Candidates] | None:
        """What these prompts were answered with; None unless all are boxes of the survey."""
        known = [
            None if p.box is None or p.mask is not None or len(p.points) else self._by_box.get(tuple(p.box.tolist()))
            for p in prompts
        ]
        answers = [answer for answer in known if answer is not None]
        return answers if len(answers) == len(known) else None


def pack(survey: Survey) -> dict[str, np.ndarray]:
    """Arrays of float16, which hold what was computed in bfloat16 exactly."""
    logits = [answer.logits for answer in survey.answers]
    scores = torch.from_numpy(np.array([answer.scores[0] for answer in survey.answers], dtype=np.float64))
    return {
        "boxes": np.concatenate(np.divmod(survey.boxes, DIGIT), axis=1).astype(np.float16),
        "masks": to_half(torch.from_numpy(np.concatenate(logits) if logits else np.zeros((0, 1, 1), np.float32))),
        "scores": to_half(scores.logit()),
        "codes": to_half(survey.codes),
    }


def unpack(
    arrays: Mapping[str, np.ndarray], image_shape: tuple[int, int], coarsest: int, device: torch.device
) -> Survey:
    """Undo `pack`, for an image (H, W) with so many levels."""
    high, low = np.split(arrays["boxes"].astype(np.float64), 2, axis=1)
    boxes = high * DIGIT + low
    scores = torch.from_numpy(arrays["scores"]).float().sigmoid().numpy()
    answers = []
    for box, logits, score in zip(boxes, arrays["masks"].astype(np.float32), scores, strict=True):
        view = view_of(Prompt(box=box), coarsest)
        assert view is not None
        answers.append(Candidates(logits[None], np.array([score]), view.grid(image_shape)))
    return Survey(boxes, answers, torch.from_numpy(arrays["codes"]).float().to(device))
