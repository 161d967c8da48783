"""The public functions: they open files, load models on first use and put the layers together.

Nothing heavy is imported before it is needed, so that importing the package
and opening the dock widget stay fast.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_segany.core.concepts import checked_text
from napari_segany.core.errors import InvalidImageError, InvalidPromptError, StorageError, UnsupportedError
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange, check_image, check_pixels
from napari_segany.core.masks import Candidates
from napari_segany.core.paths import exists
from napari_segany.core.prompts import PointsLike, Prompt, check_boxes, check_region, make_prompt
from napari_segany.core.protocols import (
    Embedding,
    EmbeddingCache,
    ImageModel,
    LabelStore,
    ModelInfo,
    Multimask,
    NoCache,
)
from napari_segany.core.settings import EverythingSettings, FindSettings
from napari_segany.core.shown import Shown
from napari_segany.core.state import TABLES, SessionState
from napari_segany.session.carried import Carried
from napari_segany.session.concept_session import ConceptSession
from napari_segany.session.everything import EverythingSearch
from napari_segany.session.everything import everything as _everything
from napari_segany.session.finding import find as _find
from napari_segany.session.propagation import Runs
from napari_segany.session.tiling import search
from napari_segany.session.volume_session import VolumeSession as _VolumeSession
from napari_segany.training import train_nano as train_nano

if TYPE_CHECKING:
    from napari_segany.io.frames import Frames

#: A model, a registered name, or the path of a checkpoint.
ModelLike = ImageModel | str | Path

DEFAULT_MODEL = "nano"
#: Planes of a stack that a model learns from at most.
ADAPT_PLANES = 16
#: Said when a region of an embedding is asked for.
NO_REGION = "A region needs the image itself, not its embedding."


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
        "auto", "cpu", "cuda", "cuda:1", "mps"; or the address of a Dask
        scheduler, such as "tcp://host:8786": then the model is loaded and
        computes on one of its workers, and torch is not needed here.
    dtype : str
        "auto", "float32", "bfloat16" or "float16". "auto" takes half
        precision where the hardware is faster with it.

    Raises
    ------
    UnknownModelError
        The name is not registered, or its weights are not on this computer.
    CheckpointError
        The file is missing, damaged, unsafe or of an unknown kind.
    ClusterError
        No scheduler or no worker answers.
    """
    from napari_segany.cluster.connection import is_address
    from napari_segany.models import registry

    if is_address(device):
        from napari_segany.cluster.remote import load_remote

        return load_remote(str(name), device, dtype)
    return registry.load_model(name, device=device, dtype=dtype)


def download_model(
    name: str, token: str | None = None, progress: Callable[[int, int], bool | None] | None = None
) -> Path:
    """Fetch the weights of a registered model from its publisher, resuming where an earlier attempt stopped.

    Parameters
    ----------
    name : str
    token : str, optional
        Of an account that has agreed to the licence, for gated models; the variable ``HF_TOKEN`` by default.
    progress : callable, optional
        Called with (bytes done, bytes in all); stops the download by returning False.

    Raises
    ------
    UnknownModelError, DownloadError
    """
    from napari_segany.models import registry

    return registry.download_model(name, token, progress)


def import_model(path: str | Path, name: str | None = None) -> ModelInfo:
    """Check a checkpoint file and keep a copy of it under a name.

    Raises
    ------
    CheckpointError, StorageError
    """
    from napari_segany.models import registry

    return registry.import_model(Path(path), name)


def free_memory(model: ImageModel) -> int | None:
    """Bytes that can still be had where a model computes, None where that is not known."""
    where = getattr(model, "device", None)
    if where is None or isinstance(where, str):
        # A model on another computer only has the name of its device.
        return None
    from napari_segany.models import device

    return device.free_memory(where)


@lru_cache(maxsize=1)
def _default_model() -> ImageModel:
    return load_model(DEFAULT_MODEL)


def resolve_model(model: ModelLike | None) -> ImageModel:
    """A model from what callers may give for one."""
    if model is None:
        return _default_model()
    return load_model(model) if isinstance(model, str | Path) else model


def _resolve_embedding(image: np.ndarray | Embedding, model: ImageModel, intensity: IntensityRange | None) -> Embedding:
    if isinstance(image, Embedding):
        return image
    return model.embed(np.asarray(image), intensity)


def _store(embeddings: str | Path | None) -> EmbeddingCache | None:
    from napari_segany.io.embeddings import EmbeddingStore

    return None if embeddings is None else EmbeddingStore(embeddings)


def embed(image: np.ndarray, model: ModelLike | None = None, intensity: IntensityRange | None = None) -> Embedding:
    """Encode an image once, to be prompted many times.

    Parameters
    ----------
    image : (H, W) or (H, W, C) array, C <= 4, any real or bool dtype
    model : model, name or path, optional
        nano by default.
    intensity : IntensityRange, optional
        What becomes black and white; percentiles of the image by default.
    """
    return resolve_model(model).embed(np.asarray(image), intensity)


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
    network = resolve_model(model)
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
    network = resolve_model(model)
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
    progress: Callable[[int, int], bool | None] | None = None,
    detector: ModelLike | None = None,
    text: str | None = None,
    region: Sequence[float] | None = None,
    embeddings: str | Path | None = None,
) -> Instances:
    """Segment every object of an image.

    Images longer than ``settings.tile`` are segmented in overlapping tiles, one
    at a time, and objects are put together across their seams.

    Parameters
    ----------
    image : (H, W[, C]) array or Embedding
        An array may lie on disk; only a tile of it is read at a time.
    settings : EverythingSettings, optional
        Given, they ask for a grid of clicks; else the model's own way is taken.
    progress : callable, optional
        Called with (prompts answered, prompts in all), or (tiles done, tiles in all). False ends the search with what
        was found until then.
    detector : model, name or path, optional
        Its boxes are prompted instead of a grid, which is many times faster: "nano", or SAM 3 with a phrase.
    text : str, optional
        What the detector looks for.
    region : (y0, x0, y1, x1), optional
        Look only there, half-open and in pixels of the whole image. What is found is what the part cut out of the
        image shows at the image's intensities, placed in the whole; an object at the region's edge is cut there.
    embeddings : folder, optional
        Where what was made of each tile is kept, so that the next search is fast, for a word too; see `Session`.

    Raises
    ------
    InvalidImageError
    InvalidPromptError
        The detector needs a phrase, does not know this one, or it or a region was given an embedding instead of the
        image.
    UnsupportedError
        The detector only answers prompts.
    """
    network = resolve_model(model)
    if text is not None and detector is None:
        raise InvalidPromptError("Only a detector looks for words: pass detector=..., or use find.")
    if detector is not None and isinstance(image, Embedding):
        raise InvalidPromptError("A detector needs the image itself, not its embedding.")
    if region is not None and isinstance(image, Embedding):
        raise InvalidPromptError(NO_REGION)
    what = EverythingSearch(settings, None if detector is None else resolve_model(detector), text)
    if not isinstance(image, Embedding):
        pixels = check_pixels(image)
        place = None if region is None else check_region(pixels.shape[:2], region)
        if place is not None or max(pixels.shape[:2]) > what.sides(network)[0]:
            return search(network, pixels, what, intensity, progress, place, embeddings=_store(embeddings))
        if what.detector is not None or embeddings is not None:
            cache = _store(embeddings) or NoCache()
            return what.begin(network, pixels, intensity, cache, progress)(np.asarray(pixels))
    return _everything(network, _resolve_embedding(image, network, intensity), settings, progress)


def find(
    image: np.ndarray | Embedding,
    text: str | None = None,
    exemplars: Sequence[Sequence[float]] | np.ndarray | None = None,
    negatives: Sequence[Sequence[float]] | np.ndarray | None = None,
    threshold: float | None = None,
    model: ModelLike | None = None,
    settings: FindSettings | None = None,
    intensity: IntensityRange | None = None,
    progress: Callable[[int, int], bool | None] | None = None,
    region: Sequence[float] | None = None,
    embeddings: str | Path | None = None,
) -> Instances:
    """Find every object of a concept.

    Images longer than ``settings.tile`` are searched in overlapping tiles, one
    at a time, and objects are put together across their seams.

    Parameters
    ----------
    image : (H, W[, C]) array or Embedding
        An array may lie on disk; only a tile of it is read at a time.
    text : str, optional
        What to look for. nano knows a few words (``model.words``), SAM 3 any phrase.
    exemplars, negatives : N x (y0, x0, y1, x1), optional
        Boxes around objects to find more of, and around things that are something else.
    threshold : float, optional
        Objects with a lower score are left out; that of `settings` when absent.
    model : model, name or path, optional
        nano by default.
    settings : FindSettings, optional
    intensity : IntensityRange, optional
        Used when `image` is an array.
    progress : callable, optional
        Called with (tiles done, tiles in all) where there are tiles. False ends the search with what was found until
        then.
    region : (y0, x0, y1, x1), optional
        Look only there; see `everything`. Examples may lie anywhere.
    embeddings : folder, optional
        See `everything`.

    Raises
    ------
    InvalidImageError
    InvalidPromptError
        Nothing to look for, a word the model does not know, a phrase that is
        too long, a box outside the image, or a region of an embedding.
    UnsupportedError
        The model does not find concepts.
    """
    network = resolve_model(model)
    if not isinstance(image, Embedding):
        image = check_pixels(image)
    shape = image.image_shape if isinstance(image, Embedding) else (image.shape[0], image.shape[1])
    settings = settings or FindSettings()
    if threshold is not None:
        settings = replace(settings, threshold=threshold)
    shown, others = (
        np.zeros((0, 4)) if boxes is None or len(boxes) == 0 else check_boxes(shape, boxes)
        for boxes in (exemplars, negatives)
    )
    if region is not None and isinstance(image, Embedding):
        raise InvalidPromptError(NO_REGION)
    place = None if region is None else check_region(shape, region)
    words, kept = checked_text(text), _store(embeddings)
    return _find(network, image, words, shown, others, settings, intensity, progress, place, kept)


def _checked(image: np.ndarray | Embedding) -> tuple[np.ndarray | Embedding, tuple[int, int]]:
    if isinstance(image, Embedding):
        return image, image.image_shape
    array = check_image(image)
    return array, (array.shape[0], array.shape[1])


def open_stack(
    stack: Any, axis: int | str = 0, axes: str | None = None, index: Mapping[str, int] | None = None, level: int = 0
) -> Frames:
    """Open an array or path as planes, without reading it; see `Session` for the arguments.

    Level 0 is the full resolution of a multiscale image.
    """
    from napari_segany.io.frames import open_frames

    return open_frames(stack, axis=axis, axes=axes, index=index, level=level)


def kept_embeddings(gigabytes: float) -> EmbeddingCache | None:
    """Where embeddings of all images are kept on this computer, beside the models; None when that cannot be.

    Parameters
    ----------
    gigabytes : float
        How many of them; what was not used for longest goes.
    """
    from napari_segany.io.embeddings import EmbeddingStore
    from napari_segany.models.registry import models_folder

    try:
        return EmbeddingStore(models_folder().parent / "embeddings", int(1e9 * gigabytes))
    except StorageError as error:
        warnings.warn(f"{error} Embeddings are not kept.", stacklevel=2)
        return None


def precompute(
    stack: Any,
    embeddings: str | Path,
    model: ModelLike | None = None,
    axis: int | str = 0,
    axes: str | None = None,
    index: Mapping[str, int] | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    scheduler: str | None = None,
    resources: Mapping[str, float] | None = None,
) -> int:
    """Encode every plane of a stack ahead of the work on it.

    What is there already is passed over, so a run that was stopped or killed
    goes on where it was.

    Parameters
    ----------
    stack, axis, axes, index
        See `Session`.
    embeddings : folder
        See `Session`.
    model : model, name or path, optional
        nano by default.
    limit : int, optional
        Bytes to keep in the folder, 50 GB by default.
    progress : callable, optional
        Called with (planes done, planes in all).
    scheduler, resources
        See `Session`; the workers write into the same folder.

    Returns
    -------
    int
        Planes that were encoded now.

    Raises
    ------
    InvalidImageError
    StorageError
        The planes do not fit into `limit`, or the folder cannot be written.
    """
    from napari_segany.io.embeddings import LIMIT, EmbeddingStore
    from napari_segany.io.frames import Frames

    frames = stack if isinstance(stack, Frames) else open_stack(stack, axis, axes, index)
    store = EmbeddingStore(embeddings, LIMIT if limit is None else limit)
    if scheduler is not None:
        from napari_segany.cluster.precompute import precompute as precompute_there

        name = DEFAULT_MODEL if model is None else str(model)
        return precompute_there(
            scheduler, frames.reference(), name, store.folder.resolve(), store.limit, progress, resources
        )
    network = resolve_model(model)
    made = 0
    for frame in range(len(frames)):
        before = store.used
        made += store.precompute(network, frames[frame], frames.intensity)
        needed = (store.used - before) * len(frames)
        if needed > store.limit:
            raise StorageError(
                f"The embeddings of {len(frames)} planes take {needed / 1e9:.2g} GB and the limit of {store.folder} "
                f"is {store.limit / 1e9:.2g} GB; raise it, or take fewer planes."
            )
        if progress is not None:
            progress(frame + 1, len(frames))
    return made


def write_labels(
    labels: Any,
    path: str | Path,
    axes: str | None = None,
    scale: Sequence[float] | None = None,
    translate: Sequence[float] | None = None,
) -> Path:
    """Write labels as OME-Zarr (``.zarr``), a label image as TIFF or PNG, too.

    Parameters
    ----------
    labels : integer array-like (H, W), (N, H, W) or (T, Z, H, W), or Instances
        Stacks are read and written one frame at a time.
    path : str or Path
    axes, scale, translate : optional
        One letter, the size of a voxel and the place of the first one for each axis; kept in OME-Zarr.

    Raises
    ------
    InvalidLabelsError
        No labels, or the folder holds some of another shape.
    StorageError
        An unknown ending, or the place cannot be written.
    """
    from napari_segany.io.folder import write_folder
    from napari_segany.io.labels import write_image

    path = Path(path)
    # Of found objects a plane may be larger than the memory.
    if isinstance(labels, Instances) or path.suffix != ".zarr":
        return write_image(labels, path)
    return write_folder(path, labels, axes, scale, translate)


def is_ours(path: str | Path) -> bool:
    """Whether a folder holds labels that this package wrote; looks at names only."""
    from napari_segany.io.folder import is_ours as ours

    return ours(Path(path))


def open_folder(path: str | Path) -> tuple[Shown | None, Shown]:
    """Open image and labels of a folder that `is_ours`, without reading them; see `napari_segany.io.folder`."""
    from napari_segany.io.folder import open_folder as open_ours

    return open_ours(Path(path))


def export_tracks(labels: Any, output: str | Path, parents: Mapping[int, int] | None = None) -> int:
    """Write objects over time for tracking programs: GEFF, or the format of the Cell Tracking Challenge.

    Parameters
    ----------
    labels : integer array (T, [Z,] H, W), or path
        Objects keep their ids along the first axis. A path leads to a saved
        session, whose divisions are known, or to any label image.
    output : path
        Ends with ".geff" for a graph (needs the extra "tracking"), else a
        folder for masks and ``res_track.txt``. It must be new or empty.
    parents : dict of object id -> object id, optional
        Objects and those that they come from, for an array.

    Returns
    -------
    Number of objects.

    Raises
    ------
    InvalidLabelsError, StorageError, UnsupportedError
    """
    from napari_segany.io.tracks import TrackedLabels, open_tracked, write_tracks

    if isinstance(labels, str | Path):
        tracked = open_tracked(Path(labels))
    else:
        tracked = TrackedLabels(labels, {(child, 0): parent for child, parent in (parents or {}).items()})
    return len(set(write_tracks(tracked, Path(output)).object_ids.tolist()))


class Session(ConceptSession):
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
    labels : None, array, path or LabelStore
        Where labels go: memory, an integer array of the stack's shape, a
        ``.zarr`` written plane by plane as OME-Zarr labels, or a store of
        your own.
    axes : str, optional
        Names of the array's axes, such as "tzyx", when they are not in the file.
    index : dict of axis name -> int, optional
        Position on every further axis, for arrays of more than three dimensions.
    embeddings : folder, optional
        Where embeddings are kept, so that no plane is encoded twice; see `precompute`.
    scheduler : str, optional
        Address of a Dask scheduler, such as "tcp://host:8786", whose workers
        propagate, each some of the objects. They open the stack and load the
        model by themselves, so both must have a path or name that leads there.
    resources : mapping, optional
        What a worker must offer to be given work, such as ``{"GPU": 1}``.

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
        index: Mapping[str, int] | None = None,
        embeddings: str | Path | None = None,
        scheduler: str | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        from napari_segany.io.embeddings import EmbeddingStore
        from napari_segany.io.frames import Frames
        from napari_segany.io.labels import ZarrLabels
        from napari_segany.io.session_store import Recorder, save_state, set_aside_damaged

        network = resolve_model(model)
        frames = stack if isinstance(stack, Frames) else open_stack(stack, axis, axes, index)
        store = _open_labels(labels, frames)
        self._stack = frames
        self.scheduler, self.resources = scheduler, resources
        self._model_name = str(model) if isinstance(model, str | Path) else network.name
        self._recorder = None
        try:
            if isinstance(labels, str | Path):
                set_aside_damaged(Path(labels))
                self._recorder = Recorder(Path(labels))
            cache = None if embeddings is None else EmbeddingStore(embeddings)
            super().__init__(frames, network, store, self._recorder, cache)
            self.settings = replace(self.settings, depth=frames.depth)
            if self._recorder is not None and not (Path(labels) / "segany" / "session.json").exists():
                # From now on a killed session can be opened again.
                save_state(Path(labels), self.state())
                self._recorder.restart()
        except BaseException:
            if self._recorder is not None:
                self._recorder.close()
            if store is not labels and isinstance(store, ZarrLabels):
                store.close()
            raise

    def _start(self, anchors: dict[int, dict[int, Prompt | Carried]], span: range) -> Runs:
        if self.scheduler is None:
            return super()._start(anchors, span)
        from napari_segany.cluster.propagate import ClusterRun
        from napari_segany.cluster.work import Stack

        image = self._stack.reference()
        if image.path is None:
            raise UnsupportedError("Give the path of the stack, so that every worker can open it.")
        name, stack, asked = self._model_name, Stack(image), self.resources
        return ClusterRun(self.scheduler, stack, name, anchors, span, self._mask_of, self.settings, asked)

    def state(self) -> SessionState:
        """Everything of this session but its pixels."""
        return SessionState(
            self._stack.reference(),
            self.model.name,
            finished=set(self.finished),
            **{table: dict(getattr(self, table)) for table in TABLES},
        )

    def adapt(
        self, name: str | None = None, steps: int = 120, progress: Callable[[Any], bool | None] | None = None
    ) -> ImageModel:
        """Teach the session's model the objects that are `confirmed`, on the planes that have most of them.

        Parameters
        ----------
        name, steps, progress
            See `napari_segany.training.fit`, as for what is returned and raised.
            The session itself goes on with the model it has; see `use_model`.
        """
        from napari_segany import training

        counts = [np.count_nonzero(np.unique(self.confirmed(frame))) for frame in range(len(self.frames))]
        most = sorted(range(len(counts)), key=lambda frame: -counts[frame])[:ADAPT_PLANES]
        # A plane without labels only if there is no other, for the sentence that then comes.
        chosen = sorted(frame for frame in most if counts[frame]) or most[:1]
        images, labels = [self.frames[frame] for frame in chosen], [self.confirmed(frame) for frame in chosen]
        return training.fit(images, labels, self.model, name, steps, progress=progress)

    def save(self, path: str | Path) -> Path:
        """Save the labels as OME-Zarr (0.5) and the session beside them.

        Parameters
        ----------
        path : folder ending in ``.zarr``
            Where the labels already go, or a new one, to which they are copied.

        Raises
        ------
        StorageError
            The folder cannot be written.
        """
        from napari_segany.io.labels import ZarrLabels
        from napari_segany.io.session_store import save_state

        path = Path(path)
        properties = {
            track.object_id: {"score": round(float(np.mean(list(track.scores.values()))), 4), "model": self.model.name}
            for track in self.tracks
        }
        if isinstance(self.store, ZarrLabels) and self.store.path.resolve() == path.resolve():
            self.store.finish(properties)
        else:
            copy = ZarrLabels(path, self.store.shape, self.store.dtype, self._stack.axis_names, self._stack.scale)
            try:
                for frame in range(len(self.frames)):
                    copy.write(frame, self.store.read(frame))
                copy.finish(properties)
            finally:
                copy.close()
        with self._lock:
            # Nothing may be journaled between the state and the new journal.
            save_state(path, self.state())
            if self._recorder is not None:
                self._recorder.restart()
        return path

    def export_tracks(self, output: str | Path) -> int:
        """Write labels, divisions and scores for tracking programs; see `napari_segany.export_tracks`."""
        from napari_segany.io.labels import ZarrLabels
        from napari_segany.io.tracks import TrackedLabels, write_tracks

        on_disk = self.store.path / "labels" / self.store.name if isinstance(self.store, ZarrLabels) else None
        tracked = TrackedLabels(self.labels, self.parents, self.scores, self._stack.scale, on_disk)
        return len(set(write_tracks(tracked, Path(output)).object_ids.tolist()))

    @classmethod
    def open(
        cls,
        path: str | Path,
        stack: Any = None,
        model: ModelLike | None = None,
        embeddings: str | Path | None = None,
        scheduler: str | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> Session:
        """Open a saved session, or one whose program was killed.

        Parameters
        ----------
        path : folder written by `save`, or given as `labels`
        stack : array-like or path, optional
            Needed when the session was made from an array in memory, or the image has moved.
        model : model, name or path, optional
            The one used last by default.
        embeddings, scheduler, resources
            See `Session`.

        Raises
        ------
        StorageError
            No session there, a damaged one, or its image is gone.
        InvalidImageError
            `stack` has another shape than the session's image.
        """
        from napari_segany.io.session_store import load_state

        path = Path(path)
        state = load_state(path)
        image = state.image
        if stack is None and image.path is None:
            raise StorageError(f"The session in {path} was made from an array in memory: pass it again as stack=...")
        frames = open_stack(image.path if stack is None else stack, image.axis or 0, image.axes, image.index)
        if frames.shape != image.shape:
            raise InvalidImageError(
                f"The session was made on a stack of shape {image.shape}, this one has {frames.shape}."
            )
        frames.intensity = image.intensity
        network = state.model if model is None else model
        session = cls(
            frames, model=network, labels=path, embeddings=embeddings, scheduler=scheduler, resources=resources
        )
        if image.path is None:
            # The names of its axes may have been guessed.
            session.settings = replace(session.settings, depth=None)
        for table in TABLES:
            getattr(session, table).update(getattr(state, table))
        session.finished.update(state.finished)
        session._report_missing(path)
        return session

    def _report_missing(self, path: Path) -> None:
        """Say which frames are gone that objects were written into: they read as if nothing were there."""
        from napari_segany.io.labels import ZarrLabels

        written = {frame for _, frame in (*self.scores, *self.accepted)}
        missing = self.store.missing(sorted(written)) if isinstance(self.store, ZarrLabels) else []
        if missing:
            self.finished -= set(missing)
            listed = ", ".join(map(str, missing[:10])) + (" and more" if len(missing) > 10 else "")
            warnings.warn(
                f"The labels of frame {listed} in {path} are gone; accept or propagate the objects there again.",
                stacklevel=3,
            )

    def close(self) -> None:
        """Release files and locks; labels and session stay on disk."""
        from napari_segany.io.labels import ZarrLabels

        if self._recorder is not None:
            self._recorder.close()
        if isinstance(self.store, ZarrLabels):
            self.store.close()
        self._stack.close()


class VolumeSession(_VolumeSession):
    """Every object of a concept in volumes over time; see `track`.

    Parameters
    ----------
    stack : array-like or path
        (T, Z, H, W[, C]), read one plane at a time.
    model : model, name or path, optional
        nano by default.
    labels : path ending in ``.zarr``, optional
        Where labels (T, Z, H, W) go as OME-Zarr; memory by default.
    axes : str, optional
        Names of the array's axes, when they are not in the file; "tzyx" for four.
    index : dict of axis name -> int, optional
        Position on every further axis.

    Raises
    ------
    InvalidImageError
        There are no axes "t" and "z".
    InvalidLabelsError, StorageError
        The output cannot be written, or holds other labels.
    """

    def __init__(
        self,
        stack: Any,
        model: ModelLike | None = None,
        labels: str | Path | None = None,
        axes: str | None = None,
        index: Mapping[str, int] | None = None,
    ) -> None:
        from napari_segany.io.volumes import MemoryVolumes, VolumeLabels, open_volumes

        self._source, planes, shape, self._scale = open_volumes(stack, axes, index)
        store = MemoryVolumes(shape) if labels is None else VolumeLabels(Path(labels), shape, self._scale)
        super().__init__(planes, shape[0], resolve_model(model), store)

    def export_tracks(self, output: str | Path) -> int:
        """Write labels, divisions and scores for tracking programs; see `napari_segany.export_tracks`."""
        from napari_segany.io.tracks import TrackedLabels, write_tracks
        from napari_segany.io.volumes import VolumeLabels

        on_disk = self.store.folder if isinstance(self.store, VolumeLabels) else None
        tracked = TrackedLabels(self.labels, self.parents, self.scores, self._scale, on_disk)
        return len(set(write_tracks(tracked, Path(output)).object_ids.tolist()))

    def close(self) -> None:
        """Note parents and scores beside the labels, and release files and locks."""
        from napari_segany.io.volumes import VolumeLabels

        if isinstance(self.store, VolumeLabels):
            self.store.describe(
                {
                    track.object_id: {
                        "parent": track.parent,
                        "score": round(float(np.mean(list(track.scores.values()))), 4),
                        "model": self.model.name,
                    }
                    for track in self.tracks
                }
            )
            self.store.close()
        self._source.close()


def has_volumes(stack: Any, axes: str | None = None, index: Mapping[str, int] | None = None) -> bool:
    """Whether a stack goes on in "t" and in "z", so that it is one for `VolumeSession`."""
    from napari_segany.io.volumes import has_volumes as has

    return has(stack, axes, index or {})


def _open_labels(labels: Any, frames: Frames) -> LabelStore:
    from napari_segany.io.labels import MemoryLabels, ZarrLabels, check_writable

    shape = (frames.shape[0], frames.shape[1], frames.shape[2])
    if isinstance(labels, LabelStore):
        return labels
    if labels is None:
        return MemoryLabels(np.zeros(shape, dtype=np.int32))
    if isinstance(labels, str | Path):
        path = Path(labels)
        if path.suffix != ".zarr" and not exists(path):
            raise StorageError(f"Labels of a stack are a folder of zarr: end its name with .zarr, not {path.name!r}.")
        check_writable(path)
        return ZarrLabels(path, shape, np.int32, frames.axis_names, frames.scale)
    return MemoryLabels(np.asarray(labels))
