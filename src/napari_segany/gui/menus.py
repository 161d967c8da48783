"""Entries in the menus of napari: each opens the widget where it is about."""

from __future__ import annotations

from napari.viewer import Viewer


def follow(viewer: Viewer) -> None:
    """Open the widget at what follows objects along the stack."""
    _reveal(viewer, "tracks")


def models(viewer: Viewer) -> None:
    """Open the widget at its models."""
    _reveal(viewer, "models")


def _reveal(viewer: Viewer, section: str) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("napari-segany", "Segment")
    widget.reveal(getattr(widget, section))
