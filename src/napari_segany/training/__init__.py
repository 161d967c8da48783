"""Generated images, losses and loops: how nano is trained, and how people teach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from napari_segany.core.protocols import ImageModel
    from napari_segany.training.adapt import FitReport


def fit(
    images: np.ndarray | Sequence[np.ndarray],
    labels: np.ndarray | Sequence[np.ndarray],
    base: ImageModel | str = "nano",
    name: str | None = None,
    steps: int = 120,
    crops: int = 6,
    learning_rate: float = 5e-4,
    seed: int = 0,
    progress: Callable[[FitReport], bool | None] | None = None,
) -> Any:
    """Teach nano a structure from labelled images, in minutes on a CPU.

    Parameters
    ----------
    images : (H, W) or (H, W, C) array, or a sequence of them
    labels : (H, W) integer array, or a sequence of them
        0 is whatever is not labelled. Two objects at least, better ten; of
        four or more a quarter is kept back to measure what was learned.
    base : model or name
        nano, or a model that came from it.
    name : str, optional
        Save the model under this name: `load_model` and the window find it.
    steps, crops : int
        Batches to learn from, and windows in a batch.
    learning_rate : float
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
    from napari_segany.training.adapt import adapt

    return adapt(images, labels, base, name, steps, crops, learning_rate, seed, progress)


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
