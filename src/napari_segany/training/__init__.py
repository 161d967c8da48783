"""Generated images, losses and loops: how nano is trained, and how people teach it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from napari_segany.training.adapt import fit

__all__ = ["fit", "train_nano"]


def __getattr__(name: str) -> Any:
    # torch is loaded when something is taught, not before.
    if name == "fit":
        from napari_segany.training.adapt import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def train_nano(data: Path | None, out: Path, minutes: float, word_crops: int = 3000, seed: int = 0) -> Path:
    """Train nano from the start, or go on where an earlier run with the same `out` stopped.

    Parameters
    ----------
    data : folder of annotated images with an ``index.json``, or None for generated images alone
    out : folder for checkpoints, the log and the weights
    minutes : float
        Wall-clock time over which the learning rate falls to zero.
    word_crops : int
        Crops from which words are learned afterwards.
    seed : int

    Returns
    -------
    path of the weight file, which `load_model` opens
    """
    from napari_segany.models.nano.weights import save_weights
    from napari_segany.training.nano import TrainingConfig, train
    from napari_segany.training.words import train_words

    network = train(data, out, TrainingConfig(minutes=minutes, seed=seed))
    train_words(data, network, word_crops, seed=seed)
    save_weights(network, out / "nano.safetensors")
    return out / "nano.safetensors"
