"""Where the viewer stands on an image layer."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image

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
