"""Generated stacks in napari's File > Open Sample."""

from __future__ import annotations

from typing import Any

from napari_segany import samples


def nuclei_3d() -> list[tuple[Any, dict[str, Any], str]]:
    """Bright nuclei in a volume."""
    stack, _ = samples.stack("nuclei-3d", seed=0)
    return [(stack, {"name": "nuclei-3d", "axis_labels": ("z", "y", "x")}, "image")]
