"""Generated stacks in napari's File > Open Sample."""

from __future__ import annotations

import numpy as np

from napari_segany import samples

LayerData = tuple[np.ndarray, dict[str, object], str]


def nuclei_3d() -> list[LayerData]:
    """Make bright nuclei in a volume."""
    return _layers("nuclei-3d", "z")


def cells_timelapse() -> list[LayerData]:
    """Make cells that move and divide."""
    return _layers("cells-timelapse", "t")


def membranes_3d() -> list[LayerData]:
    """Make cells with stained membranes in a volume."""
    return _layers("membranes-3d", "z")


def _layers(name: str, axis: str) -> list[LayerData]:
    stack, _ = samples.stack(name)
    return [(stack, {"name": name, "axis_labels": (axis, "y", "x")}, "image")]
