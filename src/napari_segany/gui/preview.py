"""The masks that are not accepted yet, above the image: they can be painted on; and how sure the model is of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_segany.core.state import Key
from napari_segany.gui.plane_layers import PlaneLayers
from napari_segany.gui.stack_view import StackView


class Preview(PlaneLayers):
    """A labels layer of one plane, and the overlay of uncertainty.

    Parameters
    ----------
    viewer : napari viewer
    image : Image

    Attributes
    ----------
    place : (StackView, int) or None
        Stack and frame that are shown.
    """

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        super().__init__(viewer, image)
        self.layer: Labels | None = None
        self.overlay: Image | None = None
        self.place: tuple[StackView, int] | None = None
        self._shown = np.zeros((0, 0), dtype=np.int32)

    def show(self, view: StackView, frame: int, plane: np.ndarray, brush: bool = False) -> None:
        """Show object ids (H, W) over one frame; the layer is made for the first of them, or for the brush."""
        if self.layer is None:
            if not plane.any() and not brush:
                return
            # A copy, since the brush paints into the array of the layer.
            self.layer = Labels(
                view.expand(plane).copy(), opacity=0.6, name="Preview", **self.over(view, frame, "preview")
            )
            self.add(self.layer)
        self.put(self.layer, view, frame, plane)
        self.place, self._shown = (view, frame), plane

    def painted(self) -> dict[Key, np.ndarray]:
        """Masks (H, W) bool of the objects that were painted on since they were shown."""
        if self.layer is None or self.place is None:
            return {}
        now = self._plane()
        changed = now != self._shown
        if not changed.any():
            return {}
        ids = np.union1d(now[changed], self._shown[changed])
        self._shown = now.copy()
        return {(int(i), self.place[1]): now == i for i in ids if i > 0}

    def paint(self, view: StackView, frame: int, object_id: int, plane: np.ndarray) -> None:
        """Take the brush in hand for an object."""
        self.show(view, frame, plane, brush=True)
        assert self.layer is not None
        self.viewer.layers.selection.active = self.layer
        self.layer.selected_label = object_id
        self.layer.mode = "paint"

    def show_uncertainty(self, view: StackView, frame: int, plane: np.ndarray | None) -> None:
        """Show values (H, W) in 0-1 over one frame; None for none."""
        if plane is None:
            self.remove(self.overlay)
            self.overlay = None
            return
        if self.overlay is None:
            place = self.over(view, frame, "uncertainty")
            look: dict[str, Any] = {"colormap": "inferno", "blending": "additive", "contrast_limits": (0, 1)}
            self.overlay = Image(view.expand(plane), name="Uncertainty", opacity=0.7, **look, **place)
            self.add(self.overlay)
        self.put(self.overlay, view, frame, plane)

    def drop(self, layer: Layer) -> bool:
        """Let go of a layer that was deleted; whether it was one of ours."""
        if layer is self.layer:
            self.layer = self.place = None
        elif layer is self.overlay:
            self.overlay = None
        else:
            return False
        return True

    def close(self) -> None:
        """Take the layers away."""
        for layer in (self.layer, self.overlay):
            self.remove(layer)
        self.layer = self.overlay = self.place = None

    def _plane(self) -> np.ndarray:
        assert self.layer is not None and self.place is not None
        height, width = self.place[0].stack_shape[1:]
        return np.asarray(self.layer.data).reshape(height, width)
