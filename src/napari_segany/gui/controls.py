"""Pieces that the groups of controls are made of."""

from __future__ import annotations

from qtpy.QtWidgets import QPushButton

from napari_segany.gui.keys import KEYS


def button(text: str, tip: str, key: str = "", checkable: bool = False) -> QPushButton:
    """Make a button; with the name of an action its key is told."""
    button = QPushButton(f"{text} ({KEYS[key]})" if key else text)
    button.setToolTip(f"{tip} Key: {KEYS[key]}." if key else tip)
    button.setCheckable(checkable)
    return button
