"""Pieces that the groups of controls are made of."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_segany.gui.keys import key_of


class Section(QWidget):
    """Controls under a title; a click on it folds them away. Sections hold no behaviour.

    Parameters
    ----------
    title : str
    parent : QWidget
    opened : bool

    Attributes
    ----------
    body : QWidget
        Holds the controls.
    """

    def __init__(self, title: str, parent: QWidget, opened: bool = True) -> None:
        super().__init__(parent)
        self.head, self.body = QToolButton(self), QWidget(self)
        self.head.setCheckable(True)
        self.head.setChecked(opened)
        self.head.setAutoRaise(True)
        self.head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.head.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.head.setStyleSheet("QToolButton { font-weight: bold; border: none; text-align: left; }")
        self.head.toggled.connect(self._fold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.head)
        layout.addWidget(self.body)
        self.set_title(title)
        self._fold(opened)

    def set_title(self, title: str) -> None:
        """Write another title."""
        self.head.setText(title)

    def _fold(self, opened: bool) -> None:
        self.head.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.body.setVisible(opened)


def button(text: str, tip: str, key: str = "", checkable: bool = False) -> QPushButton:
    """Make a button; with the name of an action its key is told."""
    made = QPushButton(f"{text} ({key_of(key)})" if key else text)
    made.setToolTip(f"{tip} Key: {key_of(key)}." if key else tip)
    made.setCheckable(checkable)
    return made


def is_light(widget: QWidget) -> bool:
    """Whether a widget has a light background, on which lines must be dark."""
    return widget.palette().base().color().lightness() > 127


def note() -> QLabel:
    """Make a line of text that wraps."""
    label = QLabel()
    label.setWordWrap(True)
    label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
    return label
