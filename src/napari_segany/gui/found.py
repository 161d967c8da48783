"""Examples that a person draws, and the objects that were found by them."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Shapes
from napari.utils.colormaps import DirectLabelColormap, label_colormap
from napari.utils.notifications import show_warning

from napari_segany.gui.geometry import alignment
from napari_segany.gui.plane_layers import PlaneLayers
from napari_segany.gui.stack_view import StackView

Kind = Literal["examples", "counter-examples"]
COLOURS: dict[Kind, str] = {"examples": "#2ca02c", "counter-examples": "#d62728"}
#: Colour of the object that is looked at.
MARKED = "#ffeb3b"


class FoundLayers(PlaneLayers):
    """Two Shapes layers for examples and counter-examples, and a Labels layer for what was found.

    Parameters
    ----------
    viewer : napari viewer
    image : Image
    """

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        super().__init__(viewer, image)
        self.shapes: dict[Kind, Shapes] = {}
        self.layer: Labels | None = None

    @cached_property
    def _colours(self) -> Any:
        return label_colormap(49)

    def take_in_hand(self, kind: Kind) -> None:
        """Let the person draw rectangles of a kind; the layer is made for the first of them."""
        if kind not in self.shapes:
            layer = Shapes(
                name=kind.capitalize(),
                ndim=self.image.ndim,
                edge_color=COLOURS[kind],
                face_color="transparent",
                **alignment(self.image),
                metadata={"segany": kind, "image": self.image.unique_id},
            )
            self.shapes[kind] = layer
            self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = self.shapes[kind]
        self.shapes[kind].mode = "add_rectangle"

    def boxes(self, kind: Kind, view: StackView, frame: int) -> np.ndarray:
        """Boxes (N, 4) drawn on a frame, (y0, x0, y1, x1) with half-open edges, as far as they lie in it."""
        found = []
        for corners in self.shapes[kind].data if kind in self.shapes else []:
            frames, points, here = view.locate(np.asarray(corners, dtype=float))
            if here.all() and (frames == frame).all():
                low, high = points.min(axis=0) + 0.5, points.max(axis=0) + 0.5
                low, high = np.maximum(low, 0), np.minimum(high, view.stack_shape[1:])
                if (high > low).all():
                    found.append([*low, *high])
                else:
                    show_warning("A box that covers no pixel of the image is no example and is not used.")
        return np.array(found).reshape(-1, 4)

    def show(self, view: StackView, frame: int, labels: np.ndarray) -> None:
        """Show found objects (H, W) on a frame."""
        if self.layer is None:
            self.layer = Labels(
                view.expand(labels).copy(), opacity=0.8, name="Found", **self.over(view, frame, "found")
            )
            self.add(self.layer)
        self.put(self.layer, view, frame, labels)

    def mark(self, label: int) -> None:
        """Make one of the found objects stand out, and be the selected label of the layer."""
        if self.layer is not None:
            self.layer.selected_label = label
            ids = np.arange(1, int(np.max(self.layer.data)) + 1)
            colours: dict[int | None, Any] = {None: "transparent"}
            colours |= {int(i): (*colour[:3], 0.6) for i, colour in zip(ids, self._colours.map(ids), strict=True)}
            self.layer.colormap = DirectLabelColormap(color_dict=colours | {label: MARKED})

    def clear(self) -> None:
        """Take the found objects away; examples stay."""
        self.remove(self.layer)
        self.layer = None

    def drop(self, layer: Layer) -> bool:
        """Let go of a layer that was deleted; whether it was one of ours."""
        if layer is self.layer:
            self.layer = None
            return True
        kinds = [kind for kind, own in self.shapes.items() if own is layer]
        for kind in kinds:
            del self.shapes[kind]
        return bool(kinds)

    def close(self) -> None:
        """Take all layers away."""
        for layer in (*self.shapes.values(), self.layer):
            self.remove(layer)
        self.shapes.clear()
        self.layer = None
