"""The part of the widget about teaching a model; it holds no behaviour."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLineEdit, QSpinBox, QWidget

from napari_segany.gui.controls import Section, button, note
from napari_segany.gui.loss_plot import LossPlot

STEPS = 120


class AdaptSection(Section):
    """Name, steps, loss, and what was learned."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("Adapt", parent, opened=False)
        self.name = QLineEdit(self)
        self.name.setPlaceholderText("name of the new model")
        self.name.setToolTip("The taught model is kept under this name, beside the one it comes from.")
        self.steps = QSpinBox(self)
        self.steps.setRange(1, 10_000)
        self.steps.setValue(STEPS)
        self.steps.setToolTip("How long to learn.")
        self.run = button(
            "Adapt",
            "Teach the model the objects in the labels that you accepted or drew, at least two, better ten. A quarter "
            "of four or more is kept back to measure what was learned.",
        )
        self.cancel = button("Cancel", "Stop learning, and keep the model as it was.")
        self.plot = LossPlot(self)
        self.result = note()
        self.clicks = note()
        buttons = QHBoxLayout()
        buttons.addWidget(self.run)
        buttons.addWidget(self.cancel)
        form = QFormLayout(self.body)
        form.addRow("Name", self.name)
        form.addRow("Steps", self.steps)
        form.addRow(buttons)
        form.addRow(self.plot)
        form.addRow(self.result)
        form.addRow(self.clicks)
        self.show_running(False)

    def show_running(self, running: bool) -> None:
        """Offer to cancel while a model learns."""
        self.run.setEnabled(not running)
        self.cancel.setEnabled(running)
        self.plot.setVisible(running or bool(self.plot.losses))
        self.result.setText("Measuring what the model can do…" if running else "")
        if running:
            self.plot.clear()

    def show_progress(self, told: tuple[Any]) -> None:
        """Plot another step."""
        (report,) = told
        self.result.setText("")
        self.plot.add(report.loss, report.steps)
