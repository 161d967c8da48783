"""Train nano from annotated images and generated ones.

``python -m napari_segany.training.nano --data FOLDER --out FOLDER --minutes 90``
can be stopped at any time and started again with the same ``--out``.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.prompt_maps import WINDOW, WindowPrompts, render
from napari_segany.models.nano.weights import save_weights
from napari_segany.training.clicks import first_prompts, with_correction
from napari_segany.training.crops import Example, Sample, make_example, samples
from napari_segany.training.folder import read_folder
from napari_segany.training.generate import KINDS, generate
from napari_segany.training.losses import dense_loss, mask_iou, prompt_loss


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
    per_kind : int
        Generated images of each kind held at once; they are renewed all the time.
    """

    minutes: float = 90.0
    crops: int = 12
    prompts: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 100
    ema: float = 0.998
    generated: float = 0.25
    looks: float = 1.0
    per_kind: int = 24
    seed: int = 0


#: Share of the real crops that each modality gets, by the first word of its description.
MODALITY_WEIGHTS = {"fluorescence": 0.5, "histology": 0.3, "brightfield": 0.08, "confocal": 0.12}
#: Generated kinds that label only one structure among others.
INCOMPLETE_KINDS = ("em-mitochondria", "em-neurites")


class Generated(Sequence[Example]):
    """Generated images of one kind, of which one is replaced now and then."""

    def __init__(self, kind: str, count: int, seed: int) -> None:
        self.kind, self.rng = kind, np.random.default_rng(seed)
        self.examples: list[Example | None] = [None] * count

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        example = self.examples[index]
        if example is None or self.rng.random() < 0.15:
            side = int(self.rng.choice([256, 320]))
            image, labels = generate(self.kind, int(self.rng.integers(2**31)), (side, side))
            example = make_example(image, labels, self.kind not in INCOMPLETE_KINDS)
            self.examples[index] = example
        return example


class Stream(IterableDataset[Sample]):
    """Endless samples for one worker."""

    def __init__(self, data: Path | None, config: TrainingConfig, seed: int) -> None:
        self.data, self.config, self.seed = data, config, seed

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        seed = self.seed * 1000 + (worker.id if worker else 0)
        torch.set_num_threads(1)
        groups: list[tuple[float, Sequence[Example]]] = []
        if self.data is not None:
            real: dict[str, list[Example]] = {}
            for modality, items in read_folder(self.data).items():
                real.setdefault(modality.split(",")[0], []).extend(make_example(*item) for item in items)
            for modality, examples in real.items():
                groups.append(((1 - self.config.generated) * MODALITY_WEIGHTS.get(modality, 0.1), examples))
        share = (self.config.generated if groups else 1.0) / len(KINDS)
        for number, kind in enumerate(KINDS):
            groups.append((share, Generated(kind, self.config.per_kind, seed * 100 + number)))
        return samples(groups, seed, WINDOW, self.config.prompts, self.config.looks)


def _identity(batch: list[Sample]) -> list[Sample]:
    return batch


def normalise(image: Tensor) -> Tensor:
    """Map intensities 0-255 to -1..1."""
    return image / 127.5 - 1.0


def train_step(model: Nano, batch: list[Sample], rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    """Loss and figures of one batch: first prompts, then one or two corrective clicks."""
    masks = np.concatenate([sample.masks for sample in batch])
    prompts, single = first_prompts(masks, rng)
    truth = F.avg_pool2d(torch.from_numpy(masks)[:, None].float(), 4)[:, 0]
    images = torch.stack([normalise(sample.image) for sample in batch])
    per_crop = len(masks) // len(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fine, coarse, dense = model.encoder(images)
    fine, coarse = fine.repeat_interleave(per_crop, 0), coarse.repeat_interleave(per_crop, 0)
    complete = torch.tensor([float(sample.complete) for sample in batch])
    loss = dense_loss(dense.float(), torch.stack([sample.dense for sample in batch]), complete)
    figures = {"dense": float(loss.detach())}
    rounds = 2 if rng.random() < 0.8 else 3
    for number in range(rounds):
        answer, scores = _decode(model, fine, coarse, prompts)
        step_loss, chosen = prompt_loss(answer, scores, truth, single)
        loss = loss + step_loss
        given = answer.detach()[torch.arange(len(masks)), chosen]
        iou = mask_iou(given, truth)
        if number == 0:
            figures["click"] = float(iou[single].mean())
            figures["other"] = float(iou[~single].mean())
        elif number == 1:
            figures["corrected"] = float(iou.mean())
        if number + 1 < rounds:
            prompts = with_correction(prompts, truth, given, rng)
            single = torch.zeros_like(single)
    return loss, figures


def _decode(model: Nano, fine: Tensor, coarse: Tensor, prompts: WindowPrompts) -> tuple[Tensor, Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, scores = model.decoder(fine, coarse, *render(prompts))
    return logits.float(), scores.float()


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
        model.load_state_dict(torch.load(start, weights_only=True)["average"])
    average = copy.deepcopy(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
    step, elapsed, last = 0, 0.0, out / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step, elapsed = saved["step"], saved["elapsed"]
    rng = np.random.default_rng([config.seed, step])
    loader = DataLoader(
        Stream(data, config, config.seed + step), config.crops, num_workers=1, collate_fn=_identity, prefetch_factor=4
    )
    sums: dict[str, list[float]] = {}
    began, saved_at = time.monotonic() - elapsed, time.monotonic()
    for batch in loader:
        elapsed = time.monotonic() - began
        progress = elapsed / (60 * config.minutes)
        if progress >= 1:
            break
        rate = config.learning_rate * min((step + 1) / config.warmup, 0.5 * (1 + math.cos(math.pi * progress)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, figures = train_step(model, batch, rng)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
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


def _save(out: Path, model: Nano, average: Nano, optimiser: torch.optim.Optimizer, step: int, elapsed: float) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "elapsed": elapsed,
    }
    torch.save(state, out / "last.pt.new")
    (out / "last.pt.new").replace(out / "last.pt")
    save_weights(average, out / "nano.safetensors")


#: Numbers of `TrainingConfig` that the command line can change.
OPTIONS = (("minutes", float), ("learning_rate", float), ("generated", float), ("looks", float), ("seed", int))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of annotated images with an index.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--start", type=Path, help="last.pt of another run to begin with")
    for name, kind in OPTIONS:
        default = getattr(TrainingConfig, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=f"default {default}")
    args = parser.parse_args()
    config = TrainingConfig(**{name: getattr(args, name) for name, _ in OPTIONS})
    train(args.data, args.out, config, args.start)


if __name__ == "__main__":
    main()
