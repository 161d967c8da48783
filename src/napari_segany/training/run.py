"""A training of nano: its numbers, its course over hours, and how it is taken up again."""

from __future__ import annotations

import copy
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from napari_segany.core.durable import replacing
from napari_segany.core.errors import CheckpointError, StorageError
from napari_segany.models.device import resolve_device
from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.weights import save_weights
from napari_segany.training.course import Course
from napari_segany.training.mixture import Mixture
from napari_segany.training.nano import train_step
from napari_segany.training.optimiser import Optimiser, average_in, rate_at

#: Of the checkpoints that a training leaves; the network of the first had no `MaskIoUHead`, of the second no
#: `VolumeNetwork`.
VERSION = 3


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
    word_crops, score_images : int
        Crops from which words, and then images from which to score masks is learned afterwards.
    volume_minutes : float
        And then, for how long to learn to draw whole objects in space.
    seed : int
    device : str
        "auto" takes a GPU when there is one.
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
    word_crops: int = 2500
    score_images: int = 400
    volume_minutes: float = 60.0
    seed: int = 0
    device: str = "auto"

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """Read numbers from a TOML file; those it does not name are the usual ones.

        Raises
        ------
        StorageError
            The file cannot be read, names something that is not known, or gives something of another type.
        """
        try:
            named = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} cannot be read as TOML: {error}.") from error
        known = {field.name: type(field.default) for field in fields(cls)}
        for name, value in named.items():
            if name not in known:
                raise StorageError(f'{path} names "{name}", which is none of {", ".join(known)}.')
            if isinstance(value, bool) or not isinstance(
                value, known[name] if known[name] is str else int | known[name]
            ):
                raise StorageError(f'{path} gives {value!r} for "{name}", which is no {known[name].__name__}.')
        return cls(**named)


def train(
    data: Path | None,
    out: Path,
    config: TrainingConfig,
    start: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Nano:
    """Train, or go on where an earlier run with the same `out` stopped.

    Parameters
    ----------
    data : folder with an ``index.json``, or None to train on generated images alone
    out : folder for ``last.pt``, ``nano.safetensors`` and what `Course` writes
    config : TrainingConfig
    start : checkpoint ``last.pt`` of another run whose weights to begin with
    progress : callable, optional
        Told now and then how far it has come.

    Raises
    ------
    CheckpointError
        See `read_checkpoint`; or the checkpoint is of a network of other depths.
    UnsupportedError
        See `Course`.
    """
    course = Course(out)
    torch.manual_seed(config.seed)
    model = Nano().to(resolve_device(config.device))
    if start is not None:
        _load(model, read_checkpoint(start)["average"], start)
    # What corrects the decoder's scores is taught afterwards, from answers that stay as they are.
    model.decoder.mask_iou.requires_grad_(False)
    average = copy.deepcopy(model)
    optimiser = Optimiser(model, config.learning_rate, config.weight_decay)
    step, elapsed, last = 0, 0.0, out / "last.pt"
    if last.exists():
        saved = read_checkpoint(last)
        _load(model, saved["model"], last)
        _load(average, saved["average"], last)
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
        share = elapsed / (60 * config.minutes)
        if share >= 1:
            break
        loss, figures = train_step(model, batch, rng)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(config.learning_rate * rate_at(share, step, config.warmup))
        average_in(average, model, step, config.ema)
        step += 1
        for name, value in {"loss": float(loss.detach()), **figures}.items():
            sums.setdefault(name, []).append(value)
        if step % 25 == 0:
            means = {name: round(float(np.nanmean(values)), 4) for name, values in sums.items()}
            course.add(step, {"minutes": round(elapsed / 60, 2), **means})
            sums.clear()
            if progress is not None:
                progress(f"step {step}, {elapsed / 60:.0f} of {config.minutes:.0f} minutes, loss {means['loss']}")
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
        The file is damaged, no checkpoint of a training, or of another version.
    """
    try:
        saved = torch.load(path, weights_only=True)
        version = saved.get("version", 1)
        newer, older = version > VERSION, version < VERSION
        complete = {"model", "average", "optimiser", "step", "elapsed"} <= saved.keys()
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint of a training; remove it to begin anew.") from error
    if newer:
        raise CheckpointError(f"{path} was written by a newer version; update napari-segany.")
    if not complete:
        raise CheckpointError(f"{path} is no checkpoint of a training; remove it to begin anew.")
    if older:
        raise _other_network(path)
    return saved


def _load(model: Nano, state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise _other_network(path) from error


def _other_network(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is of an earlier version, which trained another network; remove it to begin anew.")


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
