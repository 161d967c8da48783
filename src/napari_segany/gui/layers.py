"""The layers a person draws prompts in, read as prompts and written back; the preview above the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Shapes
from psygnal import Signal

from napari_segany.core.state import Key
from napari_segany.gui.geometry import alignment, map_coords
from napari_segany.gui.stack_view import StackView

Sign = Literal["positive", "negative"]
SIGN_COLOURS = {"positive": "#00e676", "negative": "#ff1744"}
BOX_COLOUR = "#ffd740"
#: napari draws pixel 0 from -0.5 to 0.5; a half-open box begins at 0 there.
EDGE = 0.5


@dataclass(frozen=True)
class Drawn:
    """The prompts of one object on one frame as they stand in the layers.

    Attributes
    ----------
    points : N x (y, x)
    labels : N x {0, 1}
    box : (y0, x0, y1, x1) half-open, or None
    """

    points: tuple[tuple[float, ...], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, ...] | None = None


class PromptLayers:
    """Points, boxes and preview of one image layer.

    Parameters
    ----------
    viewer : napari viewer
    image : Image
        Prompts that an earlier widget left for this image are taken up again.
    """

    #: Something was added, moved or deleted by hand.
    changed = Signal()

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        self.viewer, self.image = viewer, image
        self.points: Points | None = self._left_behind("points")
        self.boxes: Shapes | None = self._left_behind("boxes")
        self.preview: Labels | None = None
        self._silent = False
        for layer in (self.points, self.boxes):
            if layer is not None:
                layer.events.data.connect(self._on_data)

    # -- making and removing ------------------------------------------------------------------

    def ensure(self) -> None:
        """Make the layers that are missing; the active layer stays the active one."""
        columns: dict[str, Any] = {"object_id": np.zeros(0, dtype=int), "orientation": np.zeros(0, dtype=object)}
        start = {"object_id": 1, "orientation": ""}
        if self.boxes is None:
            self.boxes = Shapes(
                ndim=self.image.ndim,
                features=columns,
                feature_defaults=start,
                edge_color=BOX_COLOUR,
                face_color="transparent",
                edge_width=max(1.0, min(self.image.extent.data[1][-2:]) / 250),
                name="Boxes",
                metadata=self._tag("boxes"),
                **alignment(self.image),
            )
            self._add(self.boxes)
            self.boxes.events.data.connect(self._on_data)
        if self.points is None:
            self.points = Points(
                ndim=self.image.ndim,
                features={**columns, "sign": np.zeros(0, dtype=object)},
                feature_defaults={**start, "sign": "positive"},
                face_color="sign",
                face_color_cycle=SIGN_COLOURS,
                border_color="black",
                size=max(2.0, max(self.image.extent.data[1][-2:]) / 60),
                # Zoomed in, a point must not hide the object it lies on.
                canvas_size_limits=(2, 13),
                name="Prompts",
                metadata=self._tag("points"),
                **alignment(self.image),
            )
            self._add(self.points)
            self.points.events.data.connect(self._on_data)

    def take_in_hand(self, tool: str) -> None:
        """Let the mouse draw "points" or "boxes"."""
        self.ensure()
        assert self.points is not None and self.boxes is not None
        self.viewer.layers.selection.active = self.points if tool == "points" else self.boxes
        if tool == "points":
            self.points.mode = "add"
        else:
            self.boxes.mode = "add_rectangle"

    def put_down(self) -> None:
        """Let the mouse draw nothing."""
        for layer in (self.points, self.boxes):
            if layer is not None:
                layer.mode = "pan_zoom"

    def drop(self, layer: Layer) -> bool:
        """Let go of a layer that was deleted; whether it was one of ours."""
        for role in ("points", "boxes", "preview"):
            if getattr(self, role) is layer:
                layer.events.data.disconnect(self._on_data)
                setattr(self, role, None)
                return True
        return False

    def close(self) -> None:
        """Take the preview away and listen no more; the prompts stay."""
        for layer in (self.points, self.boxes):
            if layer is not None:
                layer.events.data.disconnect(self._on_data)
        if self.preview is not None and self.preview in self.viewer.layers:
            self.viewer.layers.remove(self.preview)
        self.points = self.boxes = self.preview = None

    # -- reading and writing prompts ------------------------------------------------------------

    def set_next(self, object_id: int, sign: Sign, view: StackView) -> None:
        """Set what the next point or box drawn will mean."""
        common = {"object_id": object_id, "orientation": view.orientation}
        if self.points is not None:
            self.points.feature_defaults = {**common, "sign": sign}
        if self.boxes is not None:
            self.boxes.feature_defaults = common

    def highest_id(self) -> int:
        """Return the largest object id that has a point or a box; 0 without any."""
        tables = [layer.features for layer in (self.points, self.boxes) if layer is not None and len(layer.data)]
        return max((int(table["object_id"].max()) for table in tables), default=0)

    def read(self, view: StackView) -> tuple[dict[Key, Drawn], list[str]]:
        """Return prompts by object id and frame, and a sentence for each thing that cannot be one."""
        refused: list[str] = []
        points: dict[Key, list[tuple[tuple[float, ...], int]]] = {}
        boxes: dict[Key, tuple[float, ...]] = {}
        for index, key, (y, x) in self._points_in(view):
            if -EDGE <= y < view.stack_shape[1] - EDGE and -EDGE <= x < view.stack_shape[2] - EDGE:
                assert self.points is not None
                sign = self.points.features["sign"].iloc[index]
                points.setdefault(key, []).append(((float(y), float(x)), int(sign == "positive")))
            else:
                refused.append(f"The point at (y={y:.1f}, x={x:.1f}) lies outside the image and is not used.")
        for _, key, kind, corners in self._boxes_in(view):
            if kind == "rectangle":
                boxes[key] = tuple(float(v) for v in (*(corners.min(axis=0) + EDGE), *(corners.max(axis=0) + EDGE)))
            else:
                refused.append(
                    f"A {kind} cannot be a prompt yet, only a rectangle; the one at {corners[0]} is not used."
                )
        drawn = {}
        for key in {**points, **boxes}:
            found = points.get(key, [])
            drawn[key] = Drawn(tuple(p for p, _ in found), tuple(s for _, s in found), boxes.get(key))
        return drawn, refused

    def replace(self, view: StackView, key: Key, drawn: Drawn | None) -> None:
        """Make the layers show other prompts for one object on one frame."""
        self.ensure()
        assert self.points is not None and self.boxes is not None
        with self._quietly():
            self.points.remove([i for i, found, _ in self._points_in(view) if found == key])
            self.boxes.remove([i for i, found, _, _ in self._boxes_in(view) if found == key])
            if drawn is None:
                return
            for point, label in zip(drawn.points, drawn.labels, strict=True):
                self.set_next(key[0], "positive" if label else "negative", view)
                self.points.add(self._from_image(view.place(key[1], np.array([point])), self.points))
            if drawn.box is not None:
                self.set_next(key[0], "positive", view)
                y0, x0, y1, x1 = np.array(drawn.box) - EDGE
                corners = np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])
                self.boxes.add(self._from_image(view.place(key[1], corners), self.boxes), shape_type="rectangle")
            self.points.selected_data, self.boxes.selected_data = set(), set()

    def keep_last_box(self, view: StackView) -> None:
        """Remove rectangles that a later one of the same object on the same frame has replaced."""
        last = {key: i for i, key, kind, _ in self._boxes_in(view) if kind == "rectangle"}
        stale = [i for i, key, kind, _ in self._boxes_in(view) if kind == "rectangle" and i != last[key]]
        if self.boxes is not None and stale:
            with self._quietly():
                self.boxes.remove(stale)

    def focus(self, object_id: int) -> None:
        """Show the prompts of one object and hide those of the others."""
        if self.points is not None and len(self.points.data):
            self.points.shown = (self.points.features["object_id"] == object_id).to_numpy()
        if self.boxes is not None and len(self.boxes.data):
            own = (self.boxes.features["object_id"] == object_id).to_numpy()
            colours = np.array(self.boxes.edge_color)
            colours[:, 3] = own
            self.boxes.edge_color = colours

    # -- preview --------------------------------------------------------------------------------

    def show_preview(self, view: StackView, frame: int, plane: np.ndarray) -> None:
        """Show object ids (H, W) over one frame; the layer is only as large as that plane."""
        first = [0 if isinstance(part, slice) else part for part in view.index(frame)]
        translate = np.asarray(self.image.translate) + np.asarray(self.image.scale) * first
        data = view.expand(plane)
        if self.preview is None:
            if not plane.any():
                return
            place = {**alignment(self.image), "translate": translate}
            self.preview = Labels(data, opacity=0.6, name="Preview", metadata=self._tag("preview"), **place)
            self._add(self.preview)
            return
        if not np.array_equal(self.preview.translate, translate):
            self.preview.translate = translate
        # napari takes 15 ms to show even the same data again.
        if not np.array_equal(self.preview.data, data):
            self.preview.data = data

    # -- inside -----------------------------------------------------------------------------------

    def _points_in(self, view: StackView) -> list[tuple[int, Key, np.ndarray]]:
        """Index, key and (y, x) of every point that belongs to a stack, free of the world's rounding errors."""
        if self.points is None or len(self.points.data) == 0:
            return []
        frames, places, here = view.locate(map_coords(np.asarray(self.points.data), self.points, self.image))
        ids = self.points.features["object_id"].to_numpy()
        here &= (self.points.features["orientation"] == view.orientation).to_numpy()
        return [(int(i), (int(ids[i]), int(frames[i])), np.round(places[i], 6)) for i in np.flatnonzero(here)]

    def _boxes_in(self, view: StackView) -> list[tuple[int, Key, str, np.ndarray]]:
        """Index, key, kind and corners (N, 2) of every shape that belongs to a stack."""
        found: list[tuple[int, Key, str, np.ndarray]] = []
        if self.boxes is None:
            return found
        table = self.boxes.features
        for index, (corners, kind) in enumerate(zip(self.boxes.data, self.boxes.shape_type, strict=True)):
            frames, places, here = view.locate(map_coords(np.asarray(corners), self.boxes, self.image))
            if here.all() and table["orientation"].iloc[index] == view.orientation:
                key = int(table["object_id"].iloc[index]), int(frames[0])
                found.append((index, key, str(kind), np.round(places, 6)))
        return found

    def _from_image(self, coords: np.ndarray, layer: Layer) -> np.ndarray:
        return map_coords(coords, self.image, layer)

    def _add(self, layer: Layer) -> None:
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        if layer is self.preview:
            # Prompts stay on top, where they can be seen and taken hold of.
            above = [self.viewer.layers.index(x) for x in (self.points, self.boxes) if x in self.viewer.layers]
            self.viewer.layers.move(len(self.viewer.layers) - 1, min(above, default=len(self.viewer.layers) - 1))
        self.viewer.layers.selection.active = active

    def _tag(self, role: str) -> dict[str, Any]:
        return {"segany": role, "image": self.image.unique_id}

    def _left_behind(self, role: str) -> Any:
        return next((layer for layer in self.viewer.layers if layer.metadata == self._tag(role)), None)

    def _on_data(self, event: Any) -> None:
        finished = str(getattr(event, "action", "changed")) in ("added", "changed", "removed")
        if finished and not self._silent:
            self.changed.emit()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        self._silent = True
        try:
            yield
        finally:
            self._silent = False
