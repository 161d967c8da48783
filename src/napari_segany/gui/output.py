"""The labels layer that accepted and propagated objects are written into."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from psygnal import Signal

from napari_segany.gui.geometry import alignment, check_output, data_shape
from napari_segany.gui.plane_labels import PlaneOnly
from napari_segany.gui.stack_view import StackView


def place_for_labels(image: Image, view: StackView) -> Path | None:
    """Where the labels of an image layer are kept on disk; None for a layer that was not read from a place of ours.

    Inside an OME-Zarr (0.5) stack that can be written into and in a saved session, otherwise in
    ``<name>.segany.zarr`` beside the file.
    """
    as_stored = view.plane == (image.ndim - 2, image.ndim - 1) and view.axis in (0, None) and image.ndim in (2, 3)
    path = Path(image.source.path or "")
    if not (as_stored and image.source.path and path.exists()):
        return None
    if (_is_ome_zarr(path, data_shape(image)) or has_session(path)) and os.access(path, os.W_OK):
        return path
    beside = path.with_name(f"{path.name.split('.')[0]}.segany.zarr")
    return beside if os.access(path.parent, os.W_OK) else None


def has_session(path: Path) -> bool:
    """Whether a session was saved, or left, in a folder."""
    return (path / "segany" / "session.json").exists()


def _is_ome_zarr(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a folder is an OME-Zarr 0.5 of a stack of this shape."""
    try:
        datasets = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"]
        stored = json.loads((path / datasets[0]["path"] / "zarr.json").read_text())["shape"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return False
    return len(shape) == 3 and tuple(stored) == shape


def largest_id(labels: Any) -> int:
    """Largest id in labels of any number of dimensions, read part by part."""
    return max((int(np.max(labels[i])) for i in range(labels.shape[0])), default=0)


class Output:
    """Holds the chosen labels layer, or makes one when it is first needed.

    Parameters
    ----------
    viewer : napari viewer

    Attributes
    ----------
    layer : Labels or None
    path : Path or None
        Zarr whose labels are shown in the layer, when a session writes them to disk itself.
    highest : int
        Largest id in the layer when it was chosen; new objects get larger ones.
    """

    #: Another layer, or other data in it: whoever writes into the old array must stop.
    replaced = Signal()
    #: The label that the person has chosen in the layer.
    label_selected = Signal(int)
    #: The person painted into the layer with napari's own tools.
    painted = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layer: Labels | None = None
        self.path: Path | None = None
        self.highest = 0

    def choose(self, layer: Labels | None, image: Image | None) -> None:
        """Write into another layer from now on; None for a new one.

        Raises
        ------
        InvalidLabelsError
            The layer does not fit the image; a new one will be made.
        """
        if layer is self.layer:
            return
        try:
            if layer is not None and image is not None:
                check_output(layer, image)
        except ValueError:
            self._take(None)
            raise
        self._take(layer)

    def ensure(self, image: Image) -> Labels:
        """Make a layer over the image if none is chosen; the active layer stays the active one."""
        if self.layer is None:
            self._take(self._add(np.zeros(data_shape(image), dtype=np.int32), image))
        assert self.layer is not None
        return self.layer

    def show(self, labels: Any, path: Path, image: Image, highest: int) -> None:
        """Show labels (N, H, W) that a session writes to disk."""
        labels = PlaneOnly(labels) if image.ndim == 2 else labels
        if self.layer is None or self.path is None:
            opened = self._opened(path, tuple(labels.shape))
            self._take(opened or self._add(labels, image), quietly=True)
        assert self.layer is not None
        with self.layer.events.data.blocker(self._on_data):
            self.layer.data = labels
        self.path, self.highest = path, highest

    def fit(self, image: Image | None) -> None:
        """Let go of a layer that is not of the image's shape any more."""
        if self.layer is not None and image is not None and tuple(self.layer.data.shape) != data_shape(image):
            self._take(None)

    def select(self, object_id: int) -> None:
        """Make an object the one that the layer's own tools work on."""
        if self.layer is not None and object_id <= np.iinfo(self.layer.data.dtype).max:
            with self.layer.events.selected_label.blocker(self._on_label):
                self.layer.selected_label = object_id

    def redraw(self) -> None:
        """Show what was written into the array."""
        if self.layer is not None:
            self.layer.refresh()

    def _opened(self, path: Path, shape: tuple[int, ...]) -> Labels | None:
        """The layer in which the labels of a folder are shown already, since it was opened as a whole."""
        layers = [one for one in self.viewer.layers if isinstance(one, Labels) and not one.multiscale]
        fitting = [one for one in layers if one.source.path == str(path) and tuple(one.data.shape) == shape]
        return next(iter(fitting), None)

    def _add(self, data: Any, image: Image) -> Labels:
        layer = Labels(data, name="Segmentation", **alignment(image))
        active = self.viewer.layers.selection.active
        self.viewer.layers.insert(self.viewer.layers.index(image) + 1, layer)
        self.viewer.layers.selection.active = active
        return layer

    def _take(self, layer: Labels | None, quietly: bool = False) -> None:
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
            self.layer.events.selected_label.disconnect(self._on_label)
            self.layer.events.paint.disconnect(self._on_paint)
        self.layer, self.path, self.highest = layer, None, 0
        if layer is not None:
            layer.events.data.connect(self._on_data)
            layer.events.selected_label.connect(self._on_label)
            layer.events.paint.connect(self._on_paint)
            if isinstance(layer.data, np.ndarray):
                self.highest = int(layer.data.max(initial=0))
        if not quietly:
            self.replaced.emit()

    def _on_data(self) -> None:
        self.replaced.emit()

    def _on_paint(self) -> None:
        self.painted.emit()

    def _on_label(self) -> None:
        if self.layer is not None and self.layer.selected_label > 0:
            self.label_selected.emit(int(self.layer.selected_label))
