"""Every object that nano sees on an image: what all searches begin with, whatever they look for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from napari_segany.core.prompts import Prompt
from napari_segany.models.nano.views import STEP, Seen, View
from napari_segany.models.packing import to_half

#: Places are kept as two numbers, since half precision counts to 2048 only.
DIGIT = 1024


@dataclass(frozen=True)
class Survey:
    """The objects of an image.

    Attributes
    ----------
    boxes : (N, 4) float64
        As proposed, in whole pixels.
    answers : N x Seen
        One mask to each box.
    codes : (N, CODE) float32 tensor
        See `ConceptHead`.
    """

    boxes: np.ndarray
    answers: Sequence[Seen]
    codes: Tensor

    @cached_property
    def _by_box(self) -> dict[tuple[float, ...], Seen]:
        return dict(zip(map(tuple, self.boxes.tolist()), self.answers, strict=True))

    def answers_to(self, prompts: Sequence[Prompt]) -> list[Seen] | None:
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
    origins = np.array([answer.view.origin for answer in survey.answers], dtype=np.float64).reshape(-1, 2) / STEP
    return {
        "boxes": _in_digits(survey.boxes),
        "levels": np.array([answer.view.level for answer in survey.answers], dtype=np.float16),
        "origins": _in_digits(origins),
        "masks": to_half(torch.from_numpy(np.concatenate(logits) if logits else np.zeros((0, 1, 1), np.float32))),
        "scores": to_half(scores.logit()),
        "codes": to_half(survey.codes),
    }


def unpack(arrays: Mapping[str, np.ndarray], image_shape: tuple[int, int], device: torch.device) -> Survey:
    """Undo `pack`, for an image (H, W)."""
    boxes, origins = _from_digits(arrays["boxes"]), _from_digits(arrays["origins"]) * STEP
    scores = torch.from_numpy(arrays["scores"]).float().sigmoid().numpy()
    masks, levels = arrays["masks"].astype(np.float32), arrays["levels"]
    answers = [
        Seen.through(View(int(level), (int(y), int(x))), logits[None], np.array([score]), image_shape)
        for level, (y, x), logits, score in zip(levels, origins, masks, scores, strict=True)
    ]
    return Survey(boxes, answers, torch.from_numpy(arrays["codes"]).float().to(device))


def _in_digits(places: np.ndarray) -> np.ndarray:
    """(N, K) whole numbers as (N, 2K) float16."""
    return np.concatenate(np.divmod(places, DIGIT), axis=1).astype(np.float16)


def _from_digits(arrays: np.ndarray) -> np.ndarray:
    high, low = np.split(arrays.astype(np.float64), 2, axis=1)
    return high * DIGIT + low
