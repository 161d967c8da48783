"""Train nano from annotated images and generated ones.

``python -m napari_segany.training.nano --data FOLDER --out FOLDER --minutes 90``
can be stopped at any time and started again with the same ``--out``. Words
come afterwards, see `napari_segany.training.words`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from napari_segany.core.durable import replacing
from napari_segany.core.errors import CheckpointError
from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.prompt_maps import WindowPrompts, render
from napari_segany.models.nano.weights import save_weights
from napari_segany.training.clicks import first_prompts, mask_prompts, spoiled, with_correction
from napari_segany.training.crops import Sample
from napari_segany.training.losses import dense_loss, mask_iou, prompt_loss
from napari_segany.training.mixture import Mixture
from napari_segany.training.optimiser import Optimiser

#: Of the checkpoints that a training leaves.
VERSION = 1


@dataclass(frozen=True)
class TrainingConfig:
    """Numbers of one training run.

    Attributes
    ----------
    minutes : float
        Wall-clock time over which the learning rate falls to zero.
    crops, prompts : int
        Crops in a batch and objects asked for in each.
    learning_rate, weight_decay : float
    warmup : int
        Steps over which the learning rate rises.
    ema : float
        Decay of the averaged weights, the ones that are kept.
    generated : float
        Share of crops from generated images.
    looks : float
        Share of crops whose gamma, contrast, noise and so on are changed. The
        last part of a training does well with fewer of them.
    streams : float
        Share of the crops of single images that come with frames made from them.
    per_kind : int
        Generated images of each kind held at once; they are renewed all the time.
    """

    minutes: float = 90.0
    crops: int = 12
    prompts: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 40
    ema: float = 0.998
    generated: float = 0.25
    streams: float = 0.08
    looks: float = 1.0
    per_kind: int = 24
    seed: int = 0


def normalise(image: Tensor) -> Tensor:
    """Map intensities 0-255 to -1..1."""
    return image / 127.5 - 1.0


def train_step(model: Nano, batch: list[Sample], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    """Loss and figures of one batch: first prompts, then one or two corrective clicks."""
    images = torch.stack([normalise(image) for s in batch for image in (s.image, *(i for i, _ in s.earlier))])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fine, coarse, dense = model.encoder(images)
    firsts = np.cumsum([0] + [1 + len(sample.earlier) for sample in batch])[:-1]
    complete = torch.tensor([float(sample.complete) for sample in batch])
    loss = dense_loss(dense[firsts].float(), torch.stack([sample.dense for sample in batch]), complete)
    figures = {"dense": float(loss.detach())}
    single = [(first, s) for first, s in zip(firsts, batch, strict=True) if not s.earlier]
    streams = [(first, s) for first, s in zip(firsts, batch, strict=True) if s.earlier]
    total = sum(len(sample.masks) for sample in batch)
    for name, part in (("", single), ("stream ", streams)):
        if part:
            masks = np.concatenate([sample.masks for _, sample in part])
            rows = np.concatenate([[first] * len(sample.masks) for first, sample in part])
            if name:
                prompts, unsure, memory = _recall(model, coarse, part, rng)
            else:
                (prompts, unsure), memory = first_prompts(masks, rng), None
            part_loss, part_figures = _rounds(model, fine[rows], coarse[rows], masks, prompts, unsure, memory, rng)
            loss = loss + part_loss * len(masks) / total
            figures.update({name + key: value for key, value in part_figures.items()})
    return loss, figures


def _recall(
    model: Nano, coarse: Tensor, part: list[tuple[int, Sample]], rng: np.random.Generator
) -> tuple[WindowPrompts, Tensor, Tensor]:
    """Prompts and memories from earlier frames: one or two of them, their windows not quite in place."""
    memories = []
    used = len(part[0][1].earlier) if rng.random() < 0.5 else 1
    for number in range(used):
        rows = np.concatenate([[first + 1 + number] * len(sample.masks) for first, sample in part])
        masks = np.concatenate([sample.earlier[number][1] for _, sample in part])
        cells = tuple(int(n) for n in np.clip(np.rint(rng.normal(0, 2, 2)), -6, 6)) if rng.random() < 0.5 else (0, 0)
        known = mask_prompts(masks)
        if number == 0:
            prompts = mask_prompts(np.stack([spoiled(mask, rng) for mask in masks]))
        maps = _shifted(render(known), *(2 * n for n in cells))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            memories.append(model.decoder.remember(_shifted(coarse[rows], *cells), maps))
    return prompts, torch.zeros(len(masks), dtype=torch.bool), torch.cat(memories, dim=1)


def _shifted(x: Tensor, dy: int, dx: int) -> Tensor:
    """Move maps (P, C, h, w) by whole cells; zeros come in."""
    height, width = x.shape[2:]
    padded = F.pad(x, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    return padded[:, :, max(-dy, 0) :, max(-dx, 0) :][:, :, :height, :width]


def _rounds(
    model: Nano,
    fine: Tensor,
    coarse: Tensor,
    masks: np.ndarray,
    prompts: WindowPrompts,
    single: Tensor,
    memory: Tensor | None,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float]]:
    truth = F.avg_pool2d(torch.from_numpy(masks)[:, None].float(), 4)[:, 0]
    there = (truth > 0.5).any(dim=2).any(dim=1)
    loss, figures = torch.zeros(()), {}
    rounds = 1 if memory is not None else 2 if rng.random() < 0.8 else 3
    for number in range(rounds):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer, scores = model.decoder(fine, coarse, render(prompts), memory)
        answer, scores = answer.float(), scores.float()
        step_loss, chosen = prompt_loss(answer, scores, truth, single)
        loss = loss + step_loss
        given = answer.detach()[torch.arange(len(masks)), chosen]
        iou = mask_iou(given, truth)
        if number == 0:
            if single.any():
                figures["click"] = float(iou[single].mean())
            if (~single & there).any():
                figures["other"] = float(iou[~single & there].mean())
        elif number == 1:
            figures["corrected"] = float(iou.mean())
        if number + 1 < rounds:
            prompts = with_correction(prompts, truth, given, rng)
            single = torch.zeros_like(single)
    return loss, figures


def train(data: Path | None, out: Path, config: TrainingConfig, start: Path | None = None) -> Nano:
    """Train, or go on where an earlier run with the same `out` stopped.

    Parameters
    ----------
    data : folder with an ``index.json``, or None to train on generated images alone
    out : folder for ``last.pt``, ``log.jsonl`` and ``nano.safetensors``
    config : TrainingConfig
    start : checkpoint ``last.pt`` of another run whose weights to begin with
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = Nano()
    if start is not None:
        model.load_state_dict(read_checkpoint(start)["average"])
    average = copy.deepcopy(model)
    optimiser = Optimiser(model, config.learning_rate, config.weight_decay)
    step, elapsed, last = 0, 0.0, out / "last.pt"
    if last.exists():
        saved = read_checkpoint(last)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step, elapsed = saved["step"], saved["elapsed"]
    rng = np.random.default_rng([config.seed, step])
    mixture = Mixture(
        data, config.generated, config.per_kind, config.prompts, config.looks, config.streams, config.seed + step
    )
    loader = DataLoader(mixture, config.crops, num_workers=1, collate_fn=list, prefetch_factor=4)
    sums: dict[str, list[float]] = {}
    began, saved_at = time.monotonic() - elapsed, time.monotonic()
    for batch in loader:
        elapsed = time.monotonic() - began
        progress = elapsed / (60 * config.minutes)
        if progress >= 1:
            break
        rate = config.learning_rate * min((step + 1) / config.warmup, 0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        loss, figures = train_step(model, batch, rng)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(rate)
        decay = min(config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for kept, weight in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(weight, 1 - decay)
        step += 1
        for name, value in {"loss": float(loss.detach()), **figures}.items():
            sums.setdefault(name, []).append(value)
        if step % 25 == 0:
            means = {name: round(float(np.nanmean(values)), 4) for name, values in sums.items()}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "minutes": round(elapsed / 60, 2), **means}) + "\n")
            sums.clear()
        if time.monotonic() - saved_at > 180:
            _save(out, model, average, optimiser, step, elapsed)
            saved_at = time.monotonic()
    _save(out, model, average, optimiser, step, elapsed)
    return average


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what a training has left in ``last.pt``.

    Raises
    ------
    CheckpointError
        The file is damaged, no checkpoint of a training, or of a newer version.
    """
    try:
        saved = torch.load(path, weights_only=True)
        newer = saved.get("version", 1) > VERSION
        complete = {"model", "average", "optimiser", "step", "elapsed"} <= saved.keys()
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint of a training; remove it to begin anew.") from error
    if newer:
        raise CheckpointError(f"{path} was written by a newer version; update napari-segany.")
    if not complete:
        raise CheckpointError(f"{path} is no checkpoint of a training; remove it to begin anew.")
    return saved


def _save(out: Path, model: Nano, average: Nano, optimiser: Optimiser, step: int, elapsed: float) -> None:
    state = {
        "version": VERSION,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "elapsed": elapsed,
    }
    with replacing(out / "last.pt") as new:
        torch.save(state, new)
    save_weights(average, out / "nano.safetensors")


#: Numbers of `TrainingConfig` that the command line can change.
OPTIONS = ("minutes", "learning_rate", "generated", "looks", "streams", "seed")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of annotated images with an index.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--start", type=Path, help="last.pt of another run to begin with")
    for name in OPTIONS:
        default = getattr(TrainingConfig, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"default {default}")
    args = parser.parse_args()
    config = TrainingConfig(**{name: getattr(args, name) for name in OPTIONS})
    train(args.data, args.out, config, args.start)


if __name__ == "__main__":
    main()
