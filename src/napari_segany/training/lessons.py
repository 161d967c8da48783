"""What a family of models is asked, and what of it changes, while it is taught from labelled images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from napari_segany.core.errors import UnsupportedError
from napari_segany.core.intensity import DEFAULT_PERCENTILES, estimate_range
from napari_segany.core.masks import bounding_box
from napari_segany.core.prompts import Prompt, mask_logits
from napari_segany.core.protocols import ImageModel
from napari_segany.models.checkpoints import write_state
from napari_segany.models.nano.network import WINDOW
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.weights import save_weights
from napari_segany.models.sam.mask_decoder import MaskDecoder
from napari_segany.models.sam.network import Sam
from napari_segany.models.sam.predictor import SamEmbedding, SamModel
from napari_segany.training.clicks import Error, deepest_errors, inner_click
from napari_segany.training.crops import make_example, samples
from napari_segany.training.losses import prompt_loss
from napari_segany.training.nano import train_step

#: Models that can be taught.
Taught = NanoModel | SamModel
#: An image and the labels of its objects, 0 where nothing is labelled.
Pair = tuple[np.ndarray, np.ndarray]


class Lesson(Protocol):
    """A copy of a model that learns.

    Attributes
    ----------
    learning_rate : float
        What suits the family.
    """

    learning_rate: float

    @property
    def taught(self) -> nn.Module:
        """The part of the network that changes; what else there is stays as it was."""
        ...

    def loss(self, rng: np.random.Generator) -> Tensor:
        """Ask about some labelled objects; how far the answers are from the labels."""
        ...

    def model(self, taught: nn.Module, name: str) -> Taught:
        """The model with the part that was taught in place."""
        ...

    def write(self, model: Taught, path: Path) -> None:
        """Write what `model` returned, as safetensors."""
        ...


def lesson(model: ImageModel, pairs: Sequence[Pair], crops: int, seed: int) -> Lesson:
    """Begin to teach a model.

    Raises
    ------
    UnsupportedError
        The model is of a family that cannot be taught.
    """
    if isinstance(model, NanoModel):
        return NanoLesson(model, pairs, crops, seed)
    if isinstance(model, SamModel):
        return SamLesson(model, pairs, crops)
    raise UnsupportedError(f"{model.name} cannot be taught yet; teach nano or a model of the SAM family.")


class NanoLesson:
    """Teach the whole of nano, on windows of the images under changing looks."""

    # With a third of it worms, which look like nothing nano knows, are half learned: on a new slide their IoU is 0.76
    # instead of 0.82 (`benchmarks/adapt.py`). What nano draws well already is not worse for it.
    learning_rate = 1.5e-3

    def __init__(self, model: NanoModel, pairs: Sequence[Pair], crops: int, seed: int) -> None:
        self._base, self._crops = model, crops
        self.taught = copy.deepcopy(model.network).float().cpu().requires_grad_(True).train()
        # Objects that are not labelled may still be there, so what is unlabelled is not taken for background.
        examples = [make_example(image, own, complete=False) for image, own in pairs]
        self._drawn = samples([(1.0, [example]) for example in examples], seed, WINDOW, prompts=4, looks=0.5)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """First prompts and corrections on a few windows; see `train_step`."""
        return train_step(self.taught, [next(self._drawn) for _ in range(self._crops)], rng)[0]

    def model(self, taught: nn.Module, name: str) -> NanoModel:
        """Nano with new weights."""
        assert isinstance(taught, type(self.taught))
        return NanoModel(taught, name, self._base.device, self._base.dtype)

    def write(self, model: Taught, path: Path) -> None:
        """As the file of the package is written."""
        assert isinstance(model, NanoModel)
        save_weights(model.network, path, model.provenance)


class SamLesson:
    """Teach SAM's mask decoder; images are encoded once.

    The encoder stays, which is what makes minutes on a CPU enough (Archit et
    al. 2025 find most of the gain in the decoder when labels are few).
    """

    learning_rate = 1e-4

    def __init__(self, model: SamModel, pairs: Sequence[Pair], crops: int) -> None:
        self._base, self._objects = model, crops
        # Images are encoded by the model itself.
        prompts, self.taught = copy.deepcopy(model.network.prompt_encoder), copy.deepcopy(model.network.mask_decoder)
        network = Sam(nn.Identity(), prompts, self.taught)
        self._learner = SamModel(network, model.name, model.family, torch.device("cpu"), torch.float32)
        self.taught.requires_grad_(True).train()
        shown = [(image, own) for image, own in pairs if own.any()]
        embedded = [model.embed(image, estimate_range(image, DEFAULT_PERCENTILES)) for image, _ in shown]
        # What was made in inference mode cannot be learned from, its copy can.
        self._shown = [
            (replace(one, features=one.features.float().cpu().clone()), own, np.unique(own[own > 0]))
            for one, (_, own) in zip(embedded, shown, strict=True)
        ]

    def loss(self, rng: np.random.Generator) -> Tensor:
        """Clicks or boxes on objects of one image, then one corrective click for each."""
        embedding, own, ids = self._shown[rng.integers(len(self._shown))]
        masks = [own == i for i in rng.choice(ids, self._objects)]
        truth = torch.cat([self._learner.mask_input(embedding, mask_logits(mask)) for mask in masks]).sigmoid()
        click = rng.random() < 0.5
        prompts = [_first(mask, click, rng) for mask in masks]
        logits, loss = self._answer(embedding, prompts, truth, click)
        errors = deepest_errors(truth.numpy() > 0.5, logits[:, 0].numpy() > 0)
        prompts = [_corrected(prompt, embedding, error) for prompt, error in zip(prompts, errors, strict=True)]
        return loss + self._answer(embedding, prompts, truth, False)[1]

    def _answer(
        self, embedding: SamEmbedding, prompts: Sequence[Prompt], truth: Tensor, single: bool
    ) -> tuple[Tensor, Tensor]:
        logits, scores = self._learner.decode(embedding, prompts, slice(None))
        # SAM predicts the IoU itself.
        loss = prompt_loss(logits, scores.logit(1e-3), truth, torch.full((len(prompts),), single))
        return logits.detach(), loss

    def model(self, taught: nn.Module, name: str) -> SamModel:
        """SAM with another mask decoder."""
        assert isinstance(taught, MaskDecoder)
        base = self._base
        network = Sam(base.network.image_encoder, base.network.prompt_encoder, taught)
        return SamModel(network, name, base.family, base.device, base.dtype)

    def write(self, model: Taught, path: Path) -> None:
        """In the published layout."""
        write_state(model.network, path)


def _first(mask: np.ndarray, click: bool, rng: np.random.Generator) -> Prompt:
    if not click:
        return Prompt(box=np.array(bounding_box(mask), dtype=np.float64))
    x, y = inner_click(mask, rng)
    return Prompt(points=np.array([[y - 0.5, x - 0.5]]), labels=np.ones(1, dtype=np.int64))


def _corrected(prompt: Prompt, embedding: SamEmbedding, error: Error | None) -> Prompt:
    """Add a click on an error of the decoder's grid; where there is none, one that counts for nothing."""
    label, cell, _ = error or (-1, (0, 0), 0.0)
    # Cells are four pixels of the network's input, in which the image was resized.
    scale = max(embedding.resized) / max(embedding.image_shape)
    point = (np.array([cell]) + 0.5) * 4 / scale - 0.5
    return Prompt(
        points=np.concatenate([prompt.points.reshape(-1, 2), point]),
        labels=np.concatenate([prompt.labels, [label]]),
        box=prompt.box,
    )
