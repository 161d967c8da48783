"""nano as a `ConceptModel`: every object it sees, and which of them are meant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.concepts import Examples
from napari_segany.core.instances import Instances, best_of_overlapping
from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.core.settings import FindSettings
from napari_segany.models.nano.concepts import concept_of
from napari_segany.models.nano.embedding import NanoEmbedding

if TYPE_CHECKING:
    from napari_segany.models.nano.predictor import NanoModel

#: An object this many times larger or smaller than every example is half as likely to be one more of them.
SIZE_SLACK = 4.0
#: How fast likeness turns into certainty: difference of cosines that multiplies the odds by e.
SHARPNESS = 0.1
#: Cosine with the nearest example at which an object is as likely meant as not, without counter-examples.
ALIKE = 0.5


@dataclass(frozen=True)
class Described:
    """A concept as nano compares objects with it.

    Attributes
    ----------
    word : int or None
        Place in `CONCEPTS`; None when any object is meant.
    codes, others : (N, CODE) and (M, CODE) tensors
        Of examples and counter-examples, of length 1.
    sizes : (N,) float64
        Square roots of the areas of the examples, pixels.
    """

    word: int | None
    codes: Tensor
    others: Tensor
    sizes: np.ndarray


def describe(model: NanoModel, text: str | None, examples: Sequence[Examples]) -> Described:
    """Encode a concept; see `ConceptModel.describe`."""
    word = None if text is None else concept_of(text, model.name)
    codes: tuple[list[Tensor], list[Tensor]] = ([], [])
    sizes = []
    for shown in examples:
        for kind, boxes in enumerate((shown.boxes, shown.negatives)):
            if len(boxes):
                answers = model.answer(shown.embedding, [Prompt(box=box) for box in boxes])
                codes[kind].append(model.codes(shown.embedding, answers))
                sizes += [_size(answer.patch(0)[1]) for answer in answers] if kind == 0 else []
    none = torch.zeros(0, model.network.concepts.code.out_features, device=model.device)
    ours, others = (F.normalize(torch.cat([none, *found]), dim=1) for found in codes)
    return Described(word, ours, others, np.array(sizes))


def find(model: NanoModel, embedding: NanoEmbedding, described: Described, settings: FindSettings) -> Instances:
    """Find the objects of a concept; see `ConceptModel.find`.

    The dense maps propose boxes, the decoder draws the object of each, and of
    overlapping ones the best stays (Archit et al. 2025 show that neither half
    does as well alone).
    """
    survey, own = model.survey(embedding), model.everything_settings
    good = [i for i, answer in enumerate(survey.answers) if own.accepts(answer)[0]]
    answers = [survey.answers[i] for i in good]
    found = [answer.patch(0) for answer in answers]
    # Of masks with a predicted IoU of a quarter about half are right, on annotated images.
    scores = np.sqrt([float(answer.scores[0]) for answer in answers])
    if not found:
        return Instances.from_patches(embedding.image_shape, [], [])
    codes = survey.codes[good]
    scores = scores * _meant(model, codes, np.array([_size(patch) for _, patch in found]), described)
    kept = [
        i
        for i in best_of_overlapping(found, scores, own.overlap_threshold, own.contained_threshold)
        if scores[i] > settings.threshold
    ]
    features = F.normalize(codes[kept], dim=1).cpu().numpy()
    return Instances.from_patches(embedding.image_shape, [found[i] for i in kept], scores[kept], features)


def _meant(model: NanoModel, codes: Tensor, sizes: np.ndarray, described: Described) -> np.ndarray:
    """How likely each object is meant, (P,) in 0-1."""
    likely: np.ndarray = np.ones(len(codes))
    if described.word is not None:
        words = model.network.concepts(codes.to(model.dtype)).float().log_softmax(dim=1)
        # Objects of one image are mostly of one kind, and together easier to name than alone.
        words = (words + words.mean(dim=0)).softmax(dim=1)
        # Certain where the word is the likeliest, so that unsure names do not cost clear objects.
        likely = likely * (words[:, described.word] / words.amax(dim=1)).cpu().numpy()
    unit = F.normalize(codes, dim=1)
    if len(described.codes) or len(described.others):
        nearest = _nearest(unit, described.codes) if len(described.codes) else np.ones(len(codes))
        against = _nearest(unit, described.others) if len(described.others) else np.full(len(codes), ALIKE)
        likely = likely / (1 + np.exp((np.maximum(against, ALIKE) - nearest) / SHARPNESS))
    if len(described.sizes):
        ratio = np.abs(np.log(sizes)[:, None] - np.log(described.sizes)[None]).min(axis=1)
        likely = likely / (1 + (ratio / np.log(SIZE_SLACK)) ** 4)
    return likely


def _nearest(codes: Tensor, shown: Tensor) -> np.ndarray:
    return (codes @ shown.T).max(dim=1).values.float().cpu().numpy()


def _size(patch: np.ndarray) -> float:
    return math.sqrt(max(int(patch.sum()), 1))


def inside_cells(answers: Sequence[Candidates]) -> Tensor:
    """Share of each cell at stride 8 inside the first mask of each answer, (P, h/2, w/2)."""
    logits = torch.from_numpy(np.stack([answer.logits[0] for answer in answers]))
    return F.avg_pool2d((logits > 0).float()[:, None], 2)[:, 0]
