"""Generated images, losses and loops: how nano is trained, and how people teach it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_segany.training.adapt import fit

__all__ = ["fit", "train_nano"]


def __getattr__(name: str) -> Any:
    # torch is loaded when something is taught, not before.
    if name == "fit":
        from napari_segany.training.adapt import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def train_nano(
    data: Path | None,
    out: Path,
    minutes: float | None = None,
    config: Path | None = None,
    start: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Train nano from the start, or go on where an earlier run with the same `out` stopped.

    Parameters
    ----------
    data : folder of annotated images with an ``index.json``, or None for generated images alone
    out : folder for checkpoints, curves and the weights
    minutes : float, optional
        Wall-clock time over which the learning rate falls to zero.
    config : TOML file, optional
        Other numbers of the training, see `napari_segany.training.run.TrainingConfig`.
    start : checkpoint, optional
        ``last.pt`` of another run whose weights to begin with.
    progress : callable, optional
        Told now and then how far it has come.

    Returns
    -------
    path of the weight file, which `load_model` opens

    Raises
    ------
    StorageError
        `out` cannot be written, or the disk is full.
    """
    from napari_segany.core.errors import StorageError
    from napari_segany.models.nano.weights import save_weights
    from napari_segany.training.run import TrainingConfig, train
    from napari_segany.training.scores import train_scores
    from napari_segany.training.volumes import train_volumes
    from napari_segany.training.words import train_words

    numbers = TrainingConfig() if config is None else TrainingConfig.read(config)
    if minutes is not None:
        numbers = replace(numbers, minutes=minutes)
    try:
        network = train(data, out, numbers, start, progress).cpu()
        train_words(data, network, numbers.word_crops, seed=numbers.seed, progress=progress)
        train_scores(data, network, numbers.score_images, seed=numbers.seed, progress=progress)
        train_volumes(data, network.volume, numbers.volume_minutes, seed=numbers.seed, progress=progress)
        save_weights(network, out / "nano.safetensors")
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{out} cannot be written: {reason}. What was saved there stays; mend that, and the same command goes on."
        ) from error
    return out / "nano.safetensors"
