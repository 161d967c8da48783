"""Generated images, losses and loops: how nano is trained, and how people teach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
