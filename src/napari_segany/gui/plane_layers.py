"""Layers that lie over one plane of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_segany.gui.geometry import alignment
from napari_segany.gui.stack_view import StackView


class PlaneLayers:
    """Makes, moves and removes them.

    Parameters
    ----------
    viewer : napari viewer
    image : Image
    """

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        self.viewer, self.image = viewer, image

    def over(self, view: StackView, frame: int, role: str) -> dict[str, Any]:
        """Keyword arguments that put a new layer over one frame, and say what it is for."""
        tag = {"segany": role, "image": self.image.unique_id}
        return {**alignment(self.image), "translate": self._translate(view, frame), "metadata": tag}

    def _translate(self, view: StackView, frame: int) -> np.ndarray:
        # Rotation and shear stay within the plane, see `check_transform`.
        first = [0 if isinstance(part, slice) else part for part in view.index(frame)]
        return np.asarray(self.image.translate) + np.asarray(self.image.scale) * first

    def put(self, layer: Image | Labels, view: StackView, frame: int, plane: np.ndarray) -> None:
        """Show a plane (H, W) on a frame."""
        translate, data = self._translate(view, frame), view.expand(plane)
        if not np.array_equal(layer.translate, translate):
            layer.translate = translate
        # napari takes 15 ms to show even the same data again.
        if not np.array_equal(layer.data, data):
            layer.data = data.copy()

    def add(self, layer: Layer) -> None:
        """Add a layer below the prompts; the active layer stays active."""
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        # Prompts stay on top, where they can be seen and taken hold of.
        prompts = [x for x in self.viewer.layers if x.metadata.get("segany") in ("points", "shapes")]
        above = min(map(self.viewer.layers.index, prompts), default=len(self.viewer.layers) - 1)
        self.viewer.layers.move(len(self.viewer.layers) - 1, above)
        self.viewer.layers.selection.active = active

    def remove(self, layer: Layer | None) -> None:
        """Take a layer away, if it is there."""
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
