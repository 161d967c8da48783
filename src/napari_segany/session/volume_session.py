"""Every object of a concept in volumes over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from napari_segany.core.concepts import Examples, checked_text
from napari_segany.core.errors import InvalidPromptError, UnsupportedError
from napari_segany.core.prompts import check_boxes
from napari_segany.core.protocols import FrameSource, ImageModel
from napari_segany.core.settings import TrackSettings
from napari_segany.core.state import Key
from napari_segany.session.finding import concept_model
from napari_segany.session.tracks import Track, tracks
from napari_segany.session.volume_tracking import VolumeLinker, find_solids


class VolumeStore(Protocol):
    """Labels (T, Z, H, W) written one time at a time."""

    @property
    def data(self) -> Any:
        """The labels as one array-like."""
        ...

    def write(self, time: int, labels: np.ndarray) -> None:
        """Replace the labels (Z, H, W) of a time."""
        ...


class VolumeSession:
    """Objects in three dimensions over time.

    Parameters
    ----------
    volumes : callable
        Gives the planes of a time.
    times : int
    model : ImageModel
    store : VolumeStore
    """

    def __init__(
        self, volumes: Callable[[int], FrameSource], times: int, model: ImageModel, store: VolumeStore
    ) -> None:
        self.volumes, self.times, self.model, self.store = volumes, times, model, store
        self.scores: dict[Key, float] = {}
        self.parents: dict[Key, int] = {}

    @property
    def labels(self) -> Any:
        """(T, Z, H, W) array-like of object ids, 0 is background."""
        return self.store.data

    @property
    def tracks(self) -> list[Track]:
        """First and last time of each object, its parent and its scores."""
        return tracks(self.scores, self.parents)

    def track(
        self,
        text: str | Sequence[str] | None = None,
        exemplars: Sequence[Sequence[float]] | np.ndarray | None = None,
        negatives: Sequence[Sequence[float]] | np.ndarray | None = None,
        at: tuple[int, int] = (0, 0),
        settings: TrackSettings | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Find every object of a concept in each volume, and give each one id over time.

        In each volume objects are found on every plane and followed in depth,
        as `Session.track` does; objects of one time are linked with those of
        the time before by the same likeness, over voxels.

        Parameters
        ----------
        text : str or several, optional
        exemplars, negatives : N x (y0, x0, y1, x1), optional
            On one plane.
        at : (t, z)
            That plane.
        settings : TrackSettings, optional
            Its `divisions` are over time.

        Yields
        ------
        time, labels
            (Z, H, W), already written.

        Raises
        ------
        InvalidPromptError, UnsupportedError
        """
        settings = settings or TrackSettings()
        if settings.rule != "assignment":
            raise UnsupportedError('SAM 3\'s own rules know no volumes; leave the rule at "assignment".')
        network = concept_model(self.model)
        time, z = at
        if not 0 <= time < self.times or not 0 <= z < len(self.volumes(time)):
            raise InvalidPromptError(f"There is no plane {z} at time {time} in this stack.")
        planes = self.volumes(time)
        shape = planes.shape[1], planes.shape[2]
        shown, others = (
            np.zeros((0, 4)) if boxes is None or len(boxes) == 0 else check_boxes(shape, boxes)
            for boxes in (exemplars, negatives)
        )
        texts = [text] if text is None or isinstance(text, str) else list(text)
        if texts in ([], [None]) and not len(shown):
            raise InvalidPromptError("Say what to look for: a word, or boxes around one or more examples.")
        examples = []
        if len(shown) + len(others):
            examples = [Examples(self.model.embed(planes[z], planes.intensity), shown, others)]
        concepts = [network.describe(checked_text(one), examples) for one in texts or [None]]
        return self._track(concepts, settings)

    def _track(self, concepts: Sequence[Any], settings: TrackSettings) -> Iterator[tuple[int, np.ndarray]]:
        linker = VolumeLinker(settings)
        self.scores.clear()
        self.parents.clear()
        for time in range(self.times):
            planes = self.volumes(time)
            found, parents = linker.link(find_solids(self.model, planes, concepts, settings))
            labels = np.zeros(planes.shape[:3], dtype=np.int32)
            for object_id, solid in found.items():
                labels[solid.window][solid.patch] = object_id
                self.scores[object_id, time] = solid.score
            self.parents |= {(child, time): parent for child, parent in parents.items()}
            self.store.write(time, labels)
            yield time, labels
