"""The public functions: they open files, load models on first use and put the layers together.

Nothing heavy is imported before it is needed, so that importing the package
and opening the dock widget stay fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange, check_image
from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import PointsLike, Prompt, check_boxes, make_prompt
from napari_segany.core.protocols import Embedding, ImageModel, ModelInfo, Multimask
from napari_segany.core.settings import EverythingSettings
from napari_segany.session.everything import everything as _everything
from napari_segany.session.session import Session as _Session

if TYPE_CHECKING:
    from napari_segany.io.frames import Frames

#: A model, a registered name, or the path of a checkpoint.
ModelLike = ImageModel | str | Path

DEFAULT_MODEL = "nano"


def list_models() -> list[ModelInfo]:
    """List the models that can be loaded by name, installed or not."""
    from napari_segany.models import registry

    return registry.list_models()


def load_model(name: str | Path = DEFAULT_MODEL, device: str = "auto", dtype: str = "auto") -> ImageModel:
    """Load a model.

    Parameters
    ----------
    name : str or Path
        A registered name (see `list_models`), or a checkpoint: ``.pt``,
        ``.pth``, ``.safetensors`` or a folder. Family and size are recognised
        from the file.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".
    dtype : str
        "auto", "float32", "bfloat16" or "float16". "auto" takes half
        precision where the hardware is faster with it.

    Raises
    ------
    UnknownModelError
        The name is not registered, or its weights are not on this computer.
    CheckpointError
        The file is missing, damaged, unsafe or of an unknown kind.
    """
    from napari_segany.models import registry

    return registry.load_model(name, device=device, dtype=dtype)


@lru_cache(maxsize=1)
def _default_model() -> ImageModel:
    return load_model(DEFAULT_MODEL)


def _resolve_model(model: ModelLike | None) -> ImageModel:
    if model is None:
        return _default_model()
    return load_model(model) if isinstance(model, str | Path) else model


def _resolve_embedding(
    image: np.ndarray | Embedding, model: ImageModel, intensity: IntensityRange | None
) -> Embedding:
    if isinstance(image, Embedding):
        return image
    return model.embed(np.asarray(image), intensity)


def embed(
    image: np.ndarray, model: ModelLike | None = None, intensity: IntensityRange | None = None
) -> Embedding:
    """Encode an image once, to be prompted many times.

    Parameters
    ----------
    image : (H, W) or (H, W, C) array, C <= 4, any real or bool dtype
    model : model, name or path, optional
        nano by default.
    intensity : IntensityRange, optional
        What becomes black and white; percentiles of the image by default.
    """
    return _resolve_model(model).embed(np.asarray(image), intensity)


def segment(
    image: np.ndarray | Embedding,
    points: PointsLike | None = None,
    labels: Sequence[int] | None = None,
    box: Sequence[float] | None = None,
    mask: np.ndarray | None = None,
    multimask: Multimask = "auto",
    model: ModelLike | None = None,
    intensity: IntensityRange | None = None,
) -> Candidates:
    """Segment one object.

    Parameters
    ----------
    image : (H, W[, C]) array or Embedding
    points : N x (y, x), optional
    labels : N x {0, 1}, optional
        1 inside (default), 0 outside.
    box : (y0, x0, y1, x1), optional
        Half-open.
    mask : (H, W) bool or floating logits, optional
    multimask : bool or "auto"
        Whether to return three masks; "auto" does so for a single click.
    model : model, name or path, optional
        nano by default.
    intensity : IntensityRange, optional
        Used when `image` is an array.

    Raises
    ------
    InvalidImageError, InvalidPromptError
    """
    network = _resolve_model(model)
    image, shape = _checked(image)
    prompt = make_prompt(shape, points, labels, box, mask)
    return network.predict(_resolve_embedding(image, network, intensity), [prompt], multimask)[0]


def segment_boxes(
    image: np.ndarray | Embedding,
    boxes: Sequence[Sequence[float]] | np.ndarray,
    model: ModelLike | None = None,
    intensity: IntensityRange | None = None,
) -> Instances:
    """Segment one object in each box, all in one batch.

    Parameters
    ----------
    image : (H, W[, C]) array or Embedding
    boxes : N x (y0, x0, y1, x1)
        Half-open.

    Returns
    -------
    Instances
        Of length N; box `i` has the label ``i + 1``.

    Raises
    ------
    InvalidImageError, InvalidPromptError
    """
    network = _resolve_model(model)
    image, shape = _checked(image)
    prompts = [Prompt(box=box) for box in check_boxes(shape, boxes)] if len(boxes) else []
    embedding = _resolve_embedding(image, network, intensity)
    answers = network.predict(embedding, prompts, False) if prompts else []
    return Instances.from_patches(
        shape, [answer.patch(0) for answer in answers], [float(answer.scores[0]) for answer in answers]
    )


def everything(
    image: np.ndarray | Embedding,
    model: ModelLike | None = None,
    settings: EverythingSettings | None = None,
    intensity: IntensityRange | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Instances:
    """Segment every object of an image.

    Parameters
    ----------
    image : (H, W[, C]) array or Embedding
    settings : EverythingSettings, optional
        Given, they ask for a grid of clicks; else the model's own way is taken.
    progress : callable, optional
        Called with (clicks answered, clicks in all).

    Raises
    ------
    InvalidImageError
    """
    network = _resolve_model(model)
    image, _ = _checked(image)
    return _everything(network, _resolve_embedding(image, network, intensity), settings, progress)


def _checked(image: np.ndarray | Embedding) -> tuple[np.ndarray | Embedding, tuple[int, int]]:
    if isinstance(image, Embedding):
        return image, image.image_shape
    array = check_image(image)
    return array, (array.shape[0], array.shape[1])


class Session(_Session):
    """A person's work on one stack, in a script or behind the window.

    Parameters
    ----------
    stack : array-like, path, or Frames
        (N, H, W[, C]) numpy, dask or zarr array, or the path of a zarr array,
        an OME-Zarr image, a TIFF or an image file. Read one plane at a time.
    axis : int or str
        Propagation axis: an index, or a name such as "z" or "t".
    model : model, name or path, optional
        nano by default.
    labels : None, array or path
        Where labels go: memory, an integer array of the stack's shape, or a
        ``.zarr`` written plane by plane as OME-Zarr labels.
    axes : str, optional
        Names of the array's axes, such as "tzyx", when they are not in the file.
    index : dict of axis name -> int, optional
        Position on every further axis, for arrays of more than three dimensions.

    Raises
    ------
    InvalidImageError
        The stack cannot be read as planes along one axis.
    InvalidLabelsError
        The labels do not fit the stack.
    StorageError
        The output cannot be written.
    """

    def __init__(
        self,
        stack: Any,
        axis: int | str = 0,
        model: ModelLike | None = None,
        labels: Any = None,
        axes: str | None = None,
        index: dict[str, int] | None = None,
    ) -> None:
        from napari_segany.io.frames import Frames, open_frames

        frames = stack if isinstance(stack, Frames) else open_frames(stack, axis=axis, axes=axes, index=index)
        super().__init__(frames, _resolve_model(model), _open_labels(labels, frames))
