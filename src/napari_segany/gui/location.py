"""Where the viewer stands on an image layer."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image

from napari_segany.core.boxes import Box, meeting
from napari_segany.gui.geometry import check_image, check_transform, data_shape
from napari_segany.gui.stack_view import StackView, propagation_axes, resolve_view


class Location:
    """Reads the stack and the frame on display from a viewer.

    Parameters
    ----------
    viewer : napari viewer
    image : Image

    Attributes
    ----------
    axis : int or None
        Axis of the image to propagate along; None where there is no choice, or none was made.
    """

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        self.viewer, self.image = viewer, image
        self.axis: int | None = None

    @property
    def displayed(self) -> list[int]:
        """Axes of the image on the canvas; negative where the image lacks a displayed axis."""
        offset = self.viewer.dims.ndim - self.image.ndim
        return [axis - offset for axis in self.viewer.dims.displayed]

    def view(self) -> StackView:
        """Return the stack on display.

        Raises
        ------
        InvalidImageError, UnsupportedError
            See `check_image`, `check_transform` and `resolve_view`.
        """
        check_image(self.image)
        view = resolve_view(data_shape(self.image), self.displayed, self._position(), self.axis)
        check_transform(self.image, view.plane)
        return view

    def frame(self, view: StackView) -> int:
        """Return the frame on display."""
        if view.axis is None:
            return 0
        return int(np.clip(np.floor(self._position()[view.axis] + 0.5), 0, view.stack_shape[0] - 1))

    def seen(self, view: StackView) -> Box | None:
        """What the canvas shows of a plane, the box (y0, x0, y1, x1) around it in whole pixels; None beside it."""
        viewer: Any = self.viewer
        # Before napari 0.9 there was no scene and no canvas.
        camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
        size = viewer.canvas.size if hasattr(viewer, "canvas") else viewer._canvas_size
        half = np.array(size) / camera.zoom / 2
        corners = []
        for sign in product((-1, 1), repeat=2):
            world = np.array(viewer.dims.point, dtype=float)
            world[list(viewer.dims.displayed)] = np.array(camera.center[-2:]) + half * sign
            corners.append(np.asarray(self.image.world_to_data(world))[list(view.plane)])
        low, high = np.floor(np.min(corners, axis=0) + 0.5), np.ceil(np.max(corners, axis=0) + 0.5)
        height, width = view.stack_shape[1:]
        return meeting((int(low[0]), int(low[1]), int(high[0]), int(high[1])), (0, 0, height, width))

    def go_to(self, view: StackView, frame: int) -> None:
        """Show another frame of the stack."""
        if view.axis is not None:
            position = self._position()
            position[view.axis] = frame
            offset = self.viewer.dims.ndim - self.image.ndim
            self.viewer.dims.set_point(view.axis + offset, self.image.data_to_world(position)[view.axis])

    def axes(self) -> list[tuple[int, str]]:
        """List the axes that masks can be propagated along, with a name and a length to show."""
        if self.viewer.dims.ndisplay != 2:
            return []
        shape, names = data_shape(self.image), [str(name) for name in self.image.axis_labels]
        # napari's names for axes that have none are "-3", "-2", "-1".
        names = [f"axis {axis}" if name.lstrip("-").isdigit() else name for axis, name in enumerate(names)]
        return [(axis, f"{names[axis]} ({shape[axis]})") for axis in propagation_axes(shape, self.displayed)]

    def _position(self) -> list[float]:
        return [float(v) for v in self.image.world_to_data(self.viewer.dims.point)]
