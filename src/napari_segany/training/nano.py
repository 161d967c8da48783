"""One step of nano's training: prompts as people give them, answers, corrections, and the loss of it all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.prompt_maps import WindowPrompts, render
from napari_segany.training.clicks import first_prompts, mask_prompts, spoiled, with_correction
from napari_segany.training.crops import Sample
from napari_segany.training.losses import dense_loss, mask_iou, prompt_loss


def normalise(image: Tensor) -> Tensor:
    """Map intensities 0-255 to -1..1."""
    return image / 127.5 - 1.0


@dataclass(frozen=True)
class Round:
    """Answers to prompts, and what they should have been.

    Attributes
    ----------
    name : str
        "" for prompts on single images, "stream " for those that continue earlier frames.
    number : int
        0 for first prompts, then corrections.
    logits, scores : (P, MASKS, h, w) and (P, MASKS)
    truth : (P, h, w)
        Share of each cell inside the object.
    single : (P,) bool
        Whether the prompt is one click and nothing else.
    chosen : (P,) int64
        The mask each prompt is answered with.
    """

    name: str
    number: int
    logits: Tensor
    scores: Tensor
    truth: Tensor
    single: Tensor
    chosen: Tensor


def train_step(model: Nano, batch: list[Sample], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    """Loss and figures of one batch: first prompts, then one or two corrective clicks."""
    encoded = encode(model, batch)
    firsts, dense = _firsts(batch), encoded[2]
    complete = torch.tensor([float(sample.complete) for sample in batch], device=dense.device)
    wanted = torch.stack([sample.dense for sample in batch]).to(dense.device)
    between = torch.stack([sample.between for sample in batch]).to(dense.device)
    loss = dense_loss(dense[firsts].float(), wanted, complete, between)
    figures = {"dense": float(loss.detach())}
    total = sum(len(sample.masks) for sample in batch)
    for one in answer(model, encoded, batch, rng):
        loss = loss + prompt_loss(one.logits, one.scores, one.truth, one.single) * len(one.truth) / total
        iou = mask_iou(one.logits.detach()[torch.arange(len(one.chosen)), one.chosen], one.truth)
        there = (one.truth > 0.5).any(dim=2).any(dim=1)
        if one.number == 0:
            kinds = {"click": one.single, "other": ~one.single & there}
            figures.update({one.name + kind: float(iou[which].mean()) for kind, which in kinds.items() if which.any()})
        elif one.number == 1:
            figures[one.name + "corrected"] = float(iou.mean())
    return loss, figures


def _firsts(batch: list[Sample]) -> np.ndarray:
    """Where each sample's own image is among the images of a batch; its earlier frames follow."""
    return np.cumsum([0] + [1 + len(sample.earlier) for sample in batch])[:-1]


def encode(model: Nano, batch: list[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Encode all images of a batch; see `Encoder.forward`."""
    images = torch.stack([normalise(image) for s in batch for image in (s.image, *(i for i, _ in s.earlier))])
    images = images.to(model.decoder.position.device)
    with torch.autocast(images.device.type, dtype=torch.bfloat16):
        return model.encoder(images)


def answer(
    model: Nano, encoded: tuple[Tensor, Tensor, Tensor], batch: list[Sample], rng: np.random.Generator
) -> Iterator[Round]:
    """Prompt the objects of a batch, answer, correct, answer again."""
    fine, coarse, _ = encoded
    firsts = _firsts(batch)
    single = [(first, s) for first, s in zip(firsts, batch, strict=True) if not s.earlier]
    streams = [(first, s) for first, s in zip(firsts, batch, strict=True) if s.earlier]
    for name, part in (("", single), ("stream ", streams)):
        if part:
            masks = np.concatenate([sample.masks for _, sample in part])
            rows = np.concatenate([[first] * len(sample.masks) for first, sample in part])
            if name:
                prompts, unsure, memory = _recall(model, fine, coarse, part, rng)
            else:
                (prompts, unsure), memory = first_prompts(masks, rng), None
            yield from _rounds(name, model, fine[rows], coarse[rows], masks, prompts, unsure, memory, rng)


def _recall(
    model: Nano, fine: Tensor, coarse: Tensor, part: list[tuple[int, Sample]], rng: np.random.Generator
) -> tuple[WindowPrompts, Tensor, Tensor]:
    """Prompts and memories of earlier frames as a tracker has them: the last frame's, and often one given further on.

    What is remembered of the last frame is its prompt, right or wrong. Where a
    further frame was given, half of the prompts are what the model itself
    makes of the last frame from it, so that it learns to mend its own errors
    (Ross et al. 2011).
    """
    last, given = (np.concatenate([sample.earlier[number][1] for _, sample in part]) for number in (0, 1))
    rows = np.concatenate([[first + 1] * len(sample.masks) for first, sample in part])
    known = mask_prompts(given)
    further = _remember(model, coarse[rows + 1], known, rng) if rng.random() < 0.6 else None
    prompts = mask_prompts(np.stack([spoiled(mask, rng) for mask in last]))
    if further is not None and rng.random() < 0.5:
        with torch.no_grad(), torch.autocast(coarse.device.type, dtype=torch.bfloat16):
            logits, _ = model.decoder(fine[rows], coarse[rows], render(known).to(coarse.device), further)
        found = (F.interpolate(logits[:, :1].float(), scale_factor=4, mode="bilinear")[:, 0] > 0).cpu().numpy()
        prompts = mask_prompts(np.where(found.any(axis=(1, 2), keepdims=True), found, last))
    memories = [_remember(model, coarse[rows], prompts, rng)] + ([] if further is None else [further])
    return prompts, torch.zeros(len(last), dtype=torch.bool), torch.cat(memories, dim=1)


def _remember(model: Nano, coarse: Tensor, known: WindowPrompts, rng: np.random.Generator) -> Tensor:
    """Cells (P, M, C) of windows in which objects are known, half of the time not quite in place."""
    cells = tuple(int(n) for n in np.clip(np.rint(rng.normal(0, 2, 2)), -6, 6)) if rng.random() < 0.5 else (0, 0)
    maps = _shifted(render(known), *(2 * n for n in cells))
    with torch.autocast(coarse.device.type, dtype=torch.bfloat16):
        return model.decoder.remember(_shifted(coarse, *cells), maps.to(coarse.device))


def _shifted(x: Tensor, dy: int, dx: int) -> Tensor:
    """Move maps (P, C, h, w) by whole cells; zeros come in."""
    height, width = x.shape[2:]
    padded = F.pad(x, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    return padded[:, :, max(-dy, 0) :, max(-dx, 0) :][:, :, :height, :width]


def _rounds(
    name: str,
    model: Nano,
    fine: Tensor,
    coarse: Tensor,
    masks: np.ndarray,
    prompts: WindowPrompts,
    single: Tensor,
    memory: Tensor | None,
    rng: np.random.Generator,
) -> Iterator[Round]:
    truth = F.avg_pool2d(torch.from_numpy(masks)[:, None].float(), 4)[:, 0]
    device = coarse.device
    rounds = 1 if memory is not None else 2 if rng.random() < 0.8 else 3
    for number in range(rounds):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits, scores = model.decoder(fine, coarse, render(prompts).to(device), memory)
        logits, scores = logits.float(), scores.float()
        chosen = torch.where(single.to(device), scores.detach()[:, 1:].argmax(dim=1) + 1, 0)
        yield Round(name, number, logits, scores, truth.to(device), single.to(device), chosen)
        if number + 1 < rounds:
            given = logits.detach()[torch.arange(len(masks)), chosen].cpu()
            prompts = with_correction(prompts, truth, given, rng)
            single = torch.zeros_like(single)
