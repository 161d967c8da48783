"""Teaching a model a structure from the labels of one person's images, in minutes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np
import torch

from napari_segany.core.errors import InvalidImageError, InvalidLabelsError
from napari_segany.core.intensity import DEFAULT_PERCENTILES, estimate_range
from napari_segany.core.masks import interior_point, mask_iou
from napari_segany.core.prompts import make_prompt
from napari_segany.core.protocols import ImageModel
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.registry import keep_model, load_model
from napari_segany.models.sam.predictor import SamModel
from napari_segany.training.lessons import Pair, Taught, lesson
from napari_segany.training.optimiser import Optimiser

#: Share of the objects that are kept back to measure what was learned, when there are enough.
HELD_OUT = 0.25
#: Objects below which none is kept back.
ENOUGH = 4
#: Decay of the averaged weights, which are the ones kept.
AVERAGE = 0.95

Image = np.ndarray


@dataclass(frozen=True)
class FitReport:
    """How far a fit has come.

    Attributes
    ----------
    step, steps : int
    loss : float
        Of this step.
    """

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Provenance:
    """Where an adapted model comes from.

    Attributes
    ----------
    base : str
        Model that was taught.
    date : str
        ISO 8601, UTC.
    objects, held_out : int
        Objects learned from, and kept back.
    steps : int
    before, after : float or None
        Mean IoU of one click on the objects kept back; None when none were.
    note : str
        What was out of the ordinary.
    """

    base: str
    date: str
    objects: int
    held_out: int
    steps: int
    before: float | None
    after: float | None
    note: str = ""


def fit(
    images: Image | Sequence[Image],
    labels: np.ndarray | Sequence[np.ndarray],
    base: ImageModel | str = "nano",
    name: str | None = None,
    steps: int = 120,
    crops: int = 6,
    learning_rate: float | None = None,
    seed: int = 0,
    progress: Callable[[FitReport], bool | None] | None = None,
) -> Taught:
    """Teach a model a structure from labelled images, in minutes on a CPU.

    Parameters
    ----------
    images : (H, W) or (H, W, C) array, or a sequence of them
    labels : (H, W) integer array, or a sequence of them
        0 is whatever is not labelled. Two objects at least, better ten; of
        four or more a quarter is kept back to measure what was learned.
    base : model or name
        nano, a model of the SAM family (of which the mask decoder learns), or one that came from them.
    name : str, optional
        Save the model under this name: `load_model` and the window find it.
    steps, crops : int
        Batches to learn from, and windows in a batch.
    learning_rate : float, optional
        By default what suits the family.
    seed : int
    progress : callable, optional
        Told of every step; stop by returning False, which gives `base` back.

    Returns
    -------
    model
        Its ``provenance`` tells what it was taught, and the mean IoU of one
        click on the objects kept back before and after.

    Raises
    ------
    InvalidLabelsError, InvalidImageError
        Labels and images do not fit, or there are fewer than two objects.
    UnsupportedError
        `base` is of a family that cannot be taught.
    StorageError
        The model cannot be saved.
    """
    pairs = _check(images, labels)
    model = load_model(base) if isinstance(base, str) else base
    rng = np.random.default_rng(seed)
    kept_back = _keep_back(pairs, rng)
    learned = [
        (image, np.where(np.isin(own, list(back)), 0, own)) for (image, own), back in zip(pairs, kept_back, strict=True)
    ]
    begun = lesson(model, learned, crops, seed)
    assert isinstance(model, NanoModel | SamModel)
    before = _click_iou(model, pairs, kept_back)
    taught, note, done = begun.taught, "", 0
    average = copy.deepcopy(taught)
    rate = begun.learning_rate if learning_rate is None else learning_rate
    optimiser = Optimiser(taught, rate, weight_decay=0.0)
    for step in range(1, steps + 1):
        loss = begun.loss(rng)
        if not math.isfinite(loss.item()):
            note = f"the loss was not finite at step {step}; the weights from before are kept"
            break
        taught.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught.parameters(), 1.0)
        optimiser.step(rate * 0.5 * (1 + math.cos(math.pi * step / steps)))
        with torch.no_grad():
            for kept, weight in zip(average.parameters(), taught.parameters(), strict=True):
                kept.lerp_(weight, 1 - min(AVERAGE, step / (step + 5)))
        done = step
        if progress is not None and progress(FitReport(step, steps, loss.item())) is False:
            return model
    adapted = begun.model(average, name or f"{model.name}-adapted")
    after = _click_iou(adapted, pairs, kept_back)
    counts = [len(np.unique(own[own > 0])) for _, own in learned]
    provenance = Provenance(
        model.name,
        datetime.now(UTC).isoformat(timespec="seconds"),
        sum(counts),
        sum(map(len, kept_back)),
        done,
        before,
        after,
        note,
    )
    adapted.provenance = asdict(provenance)
    if name is not None:
        keep_model(name, ".safetensors", model.family, partial(begun.write, adapted), adapted.provenance)
    return adapted


def _check(images: Image | Sequence[Image], labels: np.ndarray | Sequence[np.ndarray]) -> list[Pair]:
    listed = [images] if isinstance(images, np.ndarray) else list(images)
    own = [labels] if isinstance(labels, np.ndarray) else list(labels)
    if len(listed) != len(own) or not listed:
        raise InvalidLabelsError(f"There are {len(listed)} images and {len(own)} label images; give one for each.")
    pairs = []
    for image, label in zip(map(np.asarray, listed), map(np.asarray, own), strict=True):
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] > 4):
            raise InvalidImageError(
                f"An image must be (H, W) or (H, W, C) with C up to 4, got the shape {image.shape}."
            )
        if label.shape != image.shape[:2] or label.dtype.kind not in "iu":
            raise InvalidLabelsError(
                f"Labels must be whole numbers of the image's shape {image.shape[:2]}, got {label.dtype} {label.shape}."
            )
        pairs.append((image, label))
    objects = sum(len(np.unique(label[label > 0])) for _, label in pairs)
    if objects < 2:
        raise InvalidLabelsError(f"There are {objects} labelled objects; label at least two, better ten.")
    return pairs


def _keep_back(pairs: Sequence[Pair], rng: np.random.Generator) -> list[set[int]]:
    """Ids of the objects kept back in each image."""
    everything = [(k, int(i)) for k, (_, own) in enumerate(pairs) for i in np.unique(own[own > 0])]
    count = int(HELD_OUT * len(everything)) if len(everything) >= ENOUGH else 0
    chosen = [everything[j] for j in rng.permutation(len(everything))[:count]]
    return [{i for at, i in chosen if at == k} for k in range(len(pairs))]


def _click_iou(model: ImageModel, pairs: Sequence[Pair], kept_back: Sequence[set[int]]) -> float | None:
    """Mean IoU of one click deep inside each object kept back."""
    found = []
    for (image, own), ids in zip(pairs, kept_back, strict=True):
        if ids:
            embedding = model.embed(image, estimate_range(image, DEFAULT_PERCENTILES))
            prompts = [make_prompt(own.shape, points=[interior_point(own == i)]) for i in sorted(ids)]
            answers = model.predict(embedding, prompts)
            found += [mask_iou(answer.best, own == i) for answer, i in zip(answers, sorted(ids), strict=True)]
    return round(float(np.mean(found)), 4) if found else None
