"""The masks that are not accepted yet, above the image: they can be painted on; and how sure the model is of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_segany.core.state import Key
from napari_segany.gui.geometry import alignment
from napari_segany.gui.stack_view import StackView


class Preview:
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
        self.viewer, self.image = viewer, image
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
                view.expand(plane).copy(), opacity=0.6, name="Preview", **self._over(view, frame, "preview")
            )
            self._add(self.layer)
        self._put(self.layer, view, frame, plane)
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
            self._remove(self.overlay)
            self.overlay = None
            return
        if self.overlay is None:
            place = self._over(view, frame, "uncertainty")
            look: dict[str, Any] = {"colormap": "inferno", "blending": "additive", "contrast_limits": (0, 1)}
            self.overlay = Image(view.expand(plane), name="Uncertainty", opacity=0.7, **look, **place)
            self._add(self.overlay)
        self._put(self.overlay, view, frame, plane)

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
            self._remove(layer)
        self.layer = self.overlay = self.place = None

    def _plane(self) -> np.ndarray:
        assert self.layer is not None and self.place is not None
        height, width = self.place[0].stack_shape[1:]
        return np.asarray(self.layer.data).reshape(height, width)

    def _over(self, view: StackView, frame: int, role: str) -> dict[str, Any]:
        tag = {"segany": role, "image": self.image.unique_id}
        return {**alignment(self.image), "translate": self._translate(view, frame), "metadata": tag}

    def _translate(self, view: StackView, frame: int) -> np.ndarray:
        # Rotation and shear stay within the plane, see `check_transform`.
        first = [0 if isinstance(part, slice) else part for part in view.index(frame)]
        return np.asarray(self.image.translate) + np.asarray(self.image.scale) * first

    def _put(self, layer: Image | Labels, view: StackView, frame: int, plane: np.ndarray) -> None:
        translate, data = self._translate(view, frame), view.expand(plane)
        if not np.array_equal(layer.translate, translate):
            layer.translate = translate
        # napari takes 15 ms to show even the same data again.
        if not np.array_equal(layer.data, data):
            layer.data = data.copy()

    def _add(self, layer: Layer) -> None:
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        # Prompts stay on top, where they can be seen and taken hold of.
        prompts = [x for x in self.viewer.layers if x.metadata.get("segany") in ("points", "shapes")]
        above = min(map(self.viewer.layers.index, prompts), default=len(self.viewer.layers) - 1)
        self.viewer.layers.move(len(self.viewer.layers) - 1, above)
        self.viewer.layers.selection.active = active

    def _remove(self, layer: Layer | None) -> None:
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
