"""The group of controls for concepts; it holds no behaviour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QGridLayout,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from napari_segany.core.instances import Instances
from napari_segany.core.settings import FindSettings
from napari_segany.gui.controls import Section, button

#: Words that are suggested until a model says which it knows.
SUGGESTIONS = ("nucleus", "cell")
#: Rows of the table that are filled in; more say nothing to a person.
MOST_ROWS = 200


class FindSection(Section):
    """Word, examples, threshold, and the table of what was found."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("Find", parent)
        self.text = QComboBox(self)
        self.text.setEditable(True)
        self.text.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.text.addItems(SUGGESTIONS)
        self.text.setToolTip("What to look for; empty to go by examples alone.")
        self.example = button("Example", "Drag a box around an object to find more of.")
        self.counter = button("Not this", "Drag a box around something that is not meant.")
        self.run = button("Find", "Find every object of this kind on the plane on display.")
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal, self)
        self.threshold.setRange(0.05, 1.0)
        self.threshold.setValue(FindSettings().threshold)
        self.threshold.setToolTip("Show objects from this score on; moving it does not ask the model again.")
        self.table = QTableWidget(0, 3, self)
        self.table.setHorizontalHeaderLabels(["object", "score", "area"])
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.setFixedHeight(120)
        self.accept = button("Accept all", "Write all objects shown into the labels, as new objects.")
        self.accept_selected = button("Accept selected", "Write the objects selected in the table.")
        self.track = button("Track", "Find them on every plane of the range below, and follow each through the stack.")
        self.divisions = QCheckBox("divisions")
        self.divisions.setToolTip("Tell mothers and daughters; for time, not for depth.")
        self.rest = button("The rest", "Suggest what is not in the labels yet, after the objects that are.")
        self.only_seen = QCheckBox("only what is seen")
        self.only_seen.setToolTip("Find, and The rest, look only at the part of the plane that is on the canvas.")
        self.stop = button("Stop", "End the search of a large plane, or tracking, and keep what was found until then.")
        self.stop.setEnabled(False)
        self.accept_one = button("Yes", "Accept the yellow object and look at the next.", "accept_suggestion")
        self.reject_one = button("No", "Drop the yellow object and look at the next.", "reject_suggestion")
        grid = QGridLayout(self.body)
        rows: tuple[tuple[QWidget, ...], ...] = (
            (self.text, self.example, self.counter),
            (self.run, self.track, self.divisions),
            (self.rest, self.accept_one, self.reject_one),
        )
        for row, widgets in enumerate(rows):
            for column, widget in enumerate(widgets):
                grid.addWidget(widget, row, column)
        grid.addWidget(self.only_seen, 3, 0, 1, 2)
        grid.addWidget(self.stop, 3, 2)
        grid.addWidget(QLabel("Score from"), 4, 0)
        grid.addWidget(self.threshold, 4, 1, 1, 2)
        grid.addWidget(self.table, 5, 0, 1, 3)
        grid.addWidget(self.accept, 6, 0, 1, 2)
        grid.addWidget(self.accept_selected, 6, 2)

    @property
    def selected_rows(self) -> list[int]:
        """Rows selected in the table."""
        return sorted({index.row() for index in self.table.selectedIndexes()})

    def offer_words(self, words: Sequence[str]) -> None:
        """Suggest words; what the person typed stays."""
        typed = self.text.currentText()
        self.text.clear()
        self.text.addItems(list(words) or SUGGESTIONS)
        self.text.setEditText(typed)

    def show_progress(self, done: int, total: int, what: str = "tiles") -> None:
        """Tell how many tiles of the plane were searched, or how many planes."""
        self.stop.setEnabled(done < total)
        self.set_title(f"Find: {done} of {total} {what}")

    def show_running(self, running: bool) -> None:
        """Leave nothing to stop when a run along the stack has ended."""
        if not running:
            self.stop.setEnabled(False)

    def show_found(self, found: Instances | None) -> None:
        """List objects, the best first."""
        count = 0 if found is None else min(len(found), MOST_ROWS)
        self.table.setRowCount(count)
        for row in range(count):
            assert found is not None
            values = (str(row + 1), f"{found.scores[row]:.2f}", str(int(np.count_nonzero(found.patches[row]))))
            for column, value in enumerate(values):
                self.table.setItem(row, column, QTableWidgetItem(value))
        self.stop.setEnabled(False)
        self.set_title("Find" if found is None else f"Find: {len(found)} objects")
