"""The layers a person draws prompts in, read as prompts and written back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer, Points, Shapes
from napari.utils.colormaps import label_colormap
from psygnal import Signal

from napari_segany.core.state import Key
from napari_segany.gui.drawn import Drawn, Line, ellipse
from napari_segany.gui.geometry import alignment, map_coords
from napari_segany.gui.stack_view import StackView

Sign = Literal["positive", "negative"]
SIGN_COLOURS = {"positive": "#00e676", "negative": "#ff1744"}
NEGATIVE_RGB = (1.0, 0.09, 0.27)
#: napari draws pixel 0 from -0.5 to 0.5; a half-open box begins at 0 there.
EDGE = 0.5
#: Tool -> what the mouse does in the layer of shapes.
SHAPE_MODES = {"boxes": "add_rectangle", "lasso": "add_polygon_lasso", "scribble": "add_path"}
#: Kinds of shape that are strokes; all others are areas.
STROKES = ("path", "line")


class Shape(NamedTuple):
    """A shape that belongs to the stack on display, and where it is in its layer."""

    at: int
    key: Key
    kind: str
    inside: bool
    corners: np.ndarray

    @property
    def is_box(self) -> bool:
        """Whether it is the box around an object; a negative rectangle is an area."""
        return self.kind == "rectangle" and self.inside


class PromptLayers:
    """Points and shapes of one image layer.

    Parameters
    ----------
    viewer : napari viewer
    image : Image
        Prompts that an earlier widget left for this image are taken up again.
    """

    #: Something was added, moved or deleted by hand.
    changed = Signal()
    #: Another tool was taken in hand, which may have left the features of a selected prompt for the next one.
    tool_changed = Signal()

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        self.viewer, self.image = viewer, image
        self.points: Points | None = self._left_behind("points")
        self.shapes: Shapes | None = self._left_behind("shapes")
        self._silent = False
        for layer in self._both():
            self._listen(layer)

    @cached_property
    def _colours(self) -> Any:
        # Those of a new labels layer; napari imports a lot to make them.
        return label_colormap(49)

    # -- making and removing ------------------------------------------------------------------

    def ensure(self) -> None:
        """Make the layers that are missing; the active layer stays the active one."""
        text, whole = np.zeros(0, dtype=object), np.zeros(0, dtype=int)
        common: dict[str, Any] = {
            "ndim": self.image.ndim,
            "features": {"object_id": whole, "sign": text, "frame": whole, "orientation": text},
            "feature_defaults": {"object_id": 1, "sign": "positive", "frame": 0, "orientation": ""},
            **alignment(self.image),
        }
        extent = self.image.extent.data[1][-2:]
        if self.shapes is None:
            self.shapes = Shapes(
                **common,
                edge_color="white",
                face_color="transparent",
                edge_width=max(1.0, min(extent) / 250),
                name="Shapes",
                metadata=self._tag("shapes"),
            )
            self._add(self.shapes)
        if self.points is None:
            self.points = Points(
                **common,
                face_color="sign",
                face_color_cycle=SIGN_COLOURS,
                border_color="white",
                border_width=0.2,
                size=max(2.0, max(extent) / 60),
                # Zoomed in, a point must not hide the object it lies on.
                canvas_size_limits=(2, 13),
                name="Prompts",
                metadata=self._tag("points"),
            )
            self._add(self.points)

    def take_in_hand(self, tool: str) -> None:
        """Let the mouse draw "points", "boxes", "lasso" or "scribble"."""
        self.ensure()
        assert self.points is not None and self.shapes is not None
        if tool == "points":
            self.viewer.layers.selection.active = self.points
            self.points.mode = "add"
        else:
            self.viewer.layers.selection.active = self.shapes
            self.shapes.mode = SHAPE_MODES[tool]

    def put_down(self) -> None:
        """Let the mouse draw nothing."""
        for layer in self._both():
            layer.mode = "pan_zoom"

    def drop(self, layer: Layer) -> bool:
        """Let go of a layer that was deleted; whether it was one of ours."""
        for role in ("points", "shapes"):
            if getattr(self, role) is layer:
                self._listen_no_more(layer)
                setattr(self, role, None)
                return True
        return False

    def close(self) -> None:
        """Listen no more; the prompts stay."""
        for layer in self._both():
            self._listen_no_more(layer)
        self.points = self.shapes = None

    # -- reading and writing prompts ------------------------------------------------------------

    def set_next(self, object_id: int, sign: Sign, view: StackView, frame: int) -> None:
        """Set what the next point or shape drawn will mean."""
        start = {"object_id": object_id, "sign": sign, "frame": frame, "orientation": view.orientation}
        for layer in self._both():
            layer.feature_defaults = start

    def highest_id(self) -> int:
        """Return the largest object id that has a prompt; 0 without any."""
        tables = [layer.features for layer in self._both() if len(layer.data)]
        return max((int(table["object_id"].max()) for table in tables), default=0)

    def read(self, view: StackView) -> tuple[dict[Key, Drawn], list[str]]:
        """Return prompts by object id and frame, and a sentence for each thing that cannot be one."""
        refused: list[str] = []
        points: dict[Key, list[tuple[tuple[float, float], int]]] = {}
        boxes: dict[Key, tuple[float, ...]] = {}
        lines: dict[Key, list[Line]] = {}
        for _, key, inside, (y, x) in self._points_in(view):
            if -EDGE <= y < view.stack_shape[1] - EDGE and -EDGE <= x < view.stack_shape[2] - EDGE:
                points.setdefault(key, []).append(((float(y), float(x)), int(inside)))
            else:
                refused.append(f"The point at (y={y:.1f}, x={x:.1f}) lies outside the image and is not used.")
        for shape in self._shapes_in(view):
            corners = shape.corners
            if shape.is_box:
                boxes[shape.key] = tuple(
                    float(v) for v in (*(corners.min(axis=0) + EDGE), *(corners.max(axis=0) + EDGE))
                )
                continue
            corners = ellipse(corners) if shape.kind == "ellipse" else corners
            vertices = tuple((float(y), float(x)) for y, x in corners)
            lines.setdefault(shape.key, []).append(Line(vertices, shape.inside, shape.kind not in STROKES))
        drawn = {}
        for key in {**points, **boxes, **lines}:
            found = points.get(key, [])
            drawn[key] = Drawn(
                tuple(p for p, _ in found), tuple(s for _, s in found), boxes.get(key), tuple(lines.get(key, ()))
            )
        return drawn, refused

    def replace(self, view: StackView, key: Key, drawn: Drawn | None) -> None:
        """Make the layers show other prompts for one object on one frame."""
        self.ensure()
        assert self.points is not None and self.shapes is not None
        with self._quietly():
            self.points.remove([i for i, found, _, _ in self._points_in(view) if found == key])
            self.shapes.remove([shape.at for shape in self._shapes_in(view) if shape.key == key])
        if drawn is not None:
            self.add(view, key, drawn)

    def add(self, view: StackView, key: Key, drawn: Drawn) -> None:
        """Draw prompts for one object on one frame, beside those that are there."""
        self.ensure()
        assert self.points is not None and self.shapes is not None
        with self._quietly():
            for point, label in zip(drawn.points, drawn.labels, strict=True):
                self._next_is(view, key, bool(label))
                self.points.add(self._from_image(view.place(key[1], np.array([point])), self.points))
            if drawn.box is not None:
                y0, x0, y1, x1 = np.array(drawn.box) - EDGE
                self._add_shape(view, key, True, "rectangle", [(y0, x0), (y0, x1), (y1, x1), (y1, x0)])
            for line in drawn.lines:
                self._add_shape(view, key, line.inside, "polygon" if line.filled else "path", line.vertices)
            self.points.selected_data, self.shapes.selected_data = set(), set()

    def one_box_each(self, view: StackView, next_id: Callable[[], int] | None) -> bool:
        """See to it that no object has two boxes on a frame; whether something was changed.

        Parameters
        ----------
        next_id : callable, optional
            Gives the ids of the further boxes' objects. Without it the last box replaces those before.
        """
        boxes = [shape for shape in self._shapes_in(view) if shape.is_box]
        kept = {shape.key: shape.at for shape in (boxes if next_id is None else reversed(boxes))}
        further = [shape.at for shape in boxes if shape.at != kept[shape.key]]
        if self.shapes is None or not further:
            return False
        with self._quietly():
            if next_id is None:
                self.shapes.remove(further)
            else:
                ids = self.shapes.features["object_id"].to_numpy(copy=True)
                for index in further:
                    ids[index] = next_id()
                    # At once, since the next id is larger than all ids drawn.
                    self.shapes.features["object_id"] = ids
        return True

    def show(self, view: StackView, object_id: int, hidden: Collection[int]) -> None:
        """Colour prompts by object, and show those of one object and of all that are not `hidden`."""
        if self.points is not None and len(self.points.data):
            table = self.points.features
            ids = table["object_id"].to_numpy()
            seen = (ids == object_id) | ~np.isin(ids, list(hidden))
            if not np.array_equal(self.points.shown, seen):
                self.points.shown = seen
            colours = self._colours.map(ids)
            if not np.allclose(self.points.border_color, colours):
                self.points.border_color = colours
            for index, (_, frame), _, _ in self._points_in(view):
                table.loc[index, "frame"] = frame
        if self.shapes is not None and len(self.shapes.data):
            table = self.shapes.features
            ids = table["object_id"].to_numpy()
            seen = (ids == object_id) | ~np.isin(ids, list(hidden))
            edge = np.asarray(self._colours.map(ids), dtype=float)
            edge[:, 3] = seen
            if not np.allclose(self.shapes.edge_color, edge):
                self.shapes.edge_color = edge
            face = edge.copy()
            negative = (table["sign"] == "negative").to_numpy()
            face[negative, :3] = NEGATIVE_RGB
            filled = np.array([kind not in (*STROKES, "rectangle") for kind in self.shapes.shape_type]) | negative
            face[:, 3] = 0.2 * (seen & filled)
            if not np.allclose(self.shapes.face_color, face):
                self.shapes.face_color = face
            for shape in self._shapes_in(view):
                table.loc[shape.at, "frame"] = shape.key[1]

    # -- inside -----------------------------------------------------------------------------------

    def _points_in(self, view: StackView) -> list[tuple[int, Key, bool, np.ndarray]]:
        """Index, key, sign and (y, x) of every point that belongs to a stack, free of the world's rounding errors."""
        if self.points is None or len(self.points.data) == 0:
            return []
        frames, places, here = view.locate(map_coords(np.asarray(self.points.data), self.points, self.image))
        table = self.points.features
        ids, inside = table["object_id"].to_numpy(), (table["sign"] == "positive").to_numpy()
        here &= (table["orientation"] == view.orientation).to_numpy()
        return [
            (int(i), (int(ids[i]), int(frames[i])), bool(inside[i]), np.round(places[i], 6))
            for i in np.flatnonzero(here)
        ]

    def _shapes_in(self, view: StackView) -> list[Shape]:
        found: list[Shape] = []
        if self.shapes is None:
            return found
        table = self.shapes.features
        for index, (corners, kind) in enumerate(zip(self.shapes.data, self.shapes.shape_type, strict=True)):
            frames, places, here = view.locate(map_coords(np.asarray(corners), self.shapes, self.image))
            row = table.iloc[index]
            if here.all() and row["orientation"] == view.orientation:
                key = int(row["object_id"]), int(frames[0])
                found.append(Shape(index, key, str(kind), row["sign"] == "positive", np.round(places, 6)))
        return found

    def _add_shape(self, view: StackView, key: Key, inside: bool, kind: str, corners: Any) -> None:
        assert self.shapes is not None
        self._next_is(view, key, inside)
        placed = view.place(key[1], np.asarray(corners, dtype=np.float64))
        self.shapes.add(self._from_image(placed, self.shapes), shape_type=kind)

    def _next_is(self, view: StackView, key: Key, inside: bool) -> None:
        self.set_next(key[0], "positive" if inside else "negative", view, key[1])

    def _both(self) -> list[Any]:
        return [layer for layer in (self.points, self.shapes) if layer is not None]

    def _from_image(self, coords: np.ndarray, layer: Layer) -> np.ndarray:
        return map_coords(coords, self.image, layer)

    def _add(self, layer: Layer) -> None:
        active = self.viewer.layers.selection.active
        self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = active
        self._listen(layer)

    def _tag(self, role: str) -> dict[str, Any]:
        return {"segany": role, "image": self.image.unique_id}

    def _left_behind(self, role: str) -> Any:
        return next((layer for layer in self.viewer.layers if layer.metadata == self._tag(role)), None)

    def _listen(self, layer: Layer) -> None:
        layer.events.data.connect(self._on_data)
        layer.events.mode.connect(self._on_mode)

    def _listen_no_more(self, layer: Layer) -> None:
        layer.events.data.disconnect(self._on_data)
        layer.events.mode.disconnect(self._on_mode)

    def _on_mode(self) -> None:
        self.tool_changed.emit()

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
