"""The labels layer that accepted and propagated objects are written into."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from psygnal import Signal

from napari_segany.gui.geometry import alignment, check_output, data_shape


class Output:
    """Holds the chosen labels layer, or makes one when it is first needed.

    Parameters
    ----------
    viewer : napari viewer

    Attributes
    ----------
    layer : Labels or None
    highest : int
        Largest id in the layer when it was chosen; new objects get larger ones.
    """

    #: Another layer, or other data in it: whoever writes into the old array must stop.
    replaced = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layer: Labels | None = None
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
            layer = Labels(np.zeros(data_shape(image), dtype=np.int32), name="Segmentation", **alignment(image))
            active = self.viewer.layers.selection.active
            self.viewer.layers.insert(self.viewer.layers.index(image) + 1, layer)
            self.viewer.layers.selection.active = active
            self._take(layer)
        assert self.layer is not None
        return self.layer

    def fit(self, image: Image | None) -> None:
        """Let go of a layer that is not of the image's shape any more."""
        if self.layer is not None and image is not None and tuple(self.layer.data.shape) != data_shape(image):
            self._take(None)

    def redraw(self) -> None:
        """Show what was written into the array."""
        if self.layer is not None:
            self.layer.refresh()

    def _take(self, layer: Labels | None) -> None:
        if self.layer is not None:
            self.layer.events.data.disconnect(self._on_data)
        self.layer, self.highest = layer, 0
        if layer is not None:
            layer.events.data.connect(self._on_data)
            self.highest = int(layer.data.max(initial=0))
        self.replaced.emit()

    def _on_data(self) -> None:
        self.replaced.emit()
