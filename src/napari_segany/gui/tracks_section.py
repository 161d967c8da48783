"""The part of the widget about objects along the stack; it holds no behaviour."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import QGridLayout, QListWidget, QSpinBox, QWidget

from napari_segany.gui.controls import Section, button


class TracksSection(Section):
    """The list of places to check, and edits of whole objects."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("Tracks", parent, opened=False)
        self.check = button(
            "Check here",
            "List likely identity switches, jumps, sudden sizes, gaps and low scores; click one to see.",
        )
        self.doubts = QListWidget(self)
        self.doubts.setFixedHeight(100)
        self.doubts.setToolTip("What matters most comes first. What you have accepted is taken as right.")
        self.split = button("Split here", "From this plane on the object becomes another one.")
        self.give = button("Give to", "Make this object that number on all planes; merges it with what has the number.")
        self.number = QSpinBox(self)
        self.number.setRange(1, 2**31 - 1)
        self.number.setPrefix("object ")
        self.fill = button(
            "Fill in", "Interpolate the object between the planes on which you accepted it, for thin structures."
        )
        self.show_tracks = button(
            "Show tracks", "A Tracks layer of all objects with their divisions, kept up to date.", checkable=True
        )
        self.export = button(
            "Export…", "Write masks and table as the Cell Tracking Challenge wants them, or a graph (GEFF)."
        )
        grid = QGridLayout(self.body)
        grid.addWidget(self.check, 0, 0)
        grid.addWidget(self.fill, 0, 1)
        grid.addWidget(self.split, 0, 2)
        grid.addWidget(self.doubts, 1, 0, 1, 3)
        grid.addWidget(self.give, 2, 0)
        grid.addWidget(self.number, 2, 1, 1, 2)
        grid.addWidget(self.show_tracks, 3, 0)
        grid.addWidget(self.export, 3, 1, 1, 2)

    def show_doubts(self, lines: Sequence[str]) -> None:
        """List places to check."""
        self.doubts.clear()
        self.doubts.addItems(list(lines))
