"""The three groups of controls of the widget; they hold no behaviour."""

from __future__ import annotations

from collections.abc import Sequence

from napari.components import ViewerModel
from napari.layers import Image, Labels
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QSpinBox,
    QWidget,
)

from napari_segany.core.intensity import DEFAULT_PERCENTILES
from napari_segany.core.masks import Strategy
from napari_segany.gui.controls import Section, button, note
from napari_segany.gui.icons import DRAWINGS, tool_icon
from napari_segany.gui.keys import key_of
from napari_segany.gui.layer_choice import LayerChoice
from napari_segany.gui.preferences import preference
from napari_segany.gui.timeline import Timeline
from napari_segany.session.propagating_session import Direction

DIRECTIONS: tuple[Direction, ...] = ("both", "forward", "backward")
STRATEGIES: tuple[Strategy, ...] = ("highest", "balanced", "largest", "smallest")


class ImageSection(Section):
    """Image, axis, intensities, output and model."""

    def __init__(self, viewer: ViewerModel, parent: QWidget) -> None:
        super().__init__("Image and model", parent)
        self.image = LayerChoice(viewer, Image, parent=self)
        self.image.setToolTip("The image layer to segment.")
        self.axis = QComboBox(self)
        self.axis.setToolTip("The axis along which masks are propagated; the other axes stay where their sliders are.")
        self.axis_label = QLabel("Along")
        self.output = LayerChoice(viewer, Labels, none="new layer", parent=self)
        self.output.setToolTip("The labels layer that accepted and propagated objects are written into.")
        self.autosave = QCheckBox("save new labels and prompts while working")
        self.autosave.setChecked(preference("defaults", "autosave", True))
        self.autosave.setToolTip(
            "New labels and all prompts are kept inside an OME-Zarr image, or in <name>.segany.zarr beside another "
            "image file, and come back after a crash. Without a file of the image they are kept in memory."
        )
        self.model = QComboBox(self)
        self.model.setToolTip("The model that answers the prompts; it is loaded when it is first needed.")
        self.low, self.high = (self._percentile(value) for value in DEFAULT_PERCENTILES)
        self.low.setToolTip("This percentile of the image's values, and all below, become black for the model.")
        self.high.setToolTip("This percentile of the image's values, and all above, become white for the model.")
        self.intensity = note()
        self.intensity.setToolTip("What the model sees as black and as white, for all planes alike.")
        self.status = note()
        percentiles = QHBoxLayout()
        percentiles.addWidget(self.low, 1)
        percentiles.addWidget(QLabel("to"))
        percentiles.addWidget(self.high, 1)
        form = QFormLayout(self.body)
        form.addRow("Image", self.image)
        form.addRow(self.axis_label, self.axis)
        form.addRow("Labels", self.output)
        form.addRow(self.autosave)
        form.addRow("Model", self.model)
        form.addRow("Percentiles", percentiles)
        form.addRow(self.intensity)
        form.addRow(self.status)

    def offer_models(self, names: Sequence[str], chosen: str) -> None:
        """List the models that can answer, and choose one without telling anybody."""
        self.model.blockSignals(True)
        self.model.clear()
        self.model.addItems(list(names))
        self.model.setCurrentText(chosen)
        self.model.blockSignals(False)

    def _percentile(self, value: float) -> QDoubleSpinBox:
        box = QDoubleSpinBox(self)
        box.setRange(0.0, 100.0)
        box.setDecimals(2)
        box.setSingleStep(0.1)
        box.setValue(value)
        # While a number is typed, what stands there is not meant yet.
        box.setKeyboardTracking(False)
        return box

    def list_axes(self, axes: list[tuple[int, str]], chosen: int | None) -> None:
        """Offer axes of propagation; without a choice to make the row is hidden."""
        self.axis.blockSignals(True)
        self.axis.clear()
        self.axis.addItem("choose…", None)
        for axis, name in axes:
            self.axis.addItem(name, axis)
        self.axis.setCurrentIndex(max(0, self.axis.findData(chosen)))
        self.axis.blockSignals(False)
        for widget in (self.axis, self.axis_label):
            widget.setVisible(len(axes) > 1)


class PromptSection(Section):
    """Tools, object, sign, candidates, and what to do with the mask."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("Prompt", parent)
        self.points = button("Points", "Click on the object, and on what is not part of it.")
        self.boxes = button("Boxes", "Drag a rectangle around the object.")
        self.lasso = button("Lasso", "Draw around the object; what is inside becomes a mask for the model to mend.")
        self.scribble = button("Scribble", "Draw a stroke along the object, or over what is not part of it.")
        self.brush = button("Brush", "Paint on the mask before it is accepted; the eraser takes away.")
        self.label = button(
            "From label", "Prompt with the outline of the label chosen in the active labels layer, to mend it."
        )
        self.sign = button(
            "Positive", "Whether the next prompts lie on the object or on what is not part of it.", "toggle_sign", True
        )
        self.object_id = QSpinBox(self)
        self.object_id.setRange(1, 2**31 - 1)
        self.object_id.setPrefix("object ")
        self.object_id.setToolTip("The object being prompted; its number becomes the label.")
        self.next_object = button("Next", "Go on to a new object.", "next_object")
        self.one_each = QCheckBox("one object each")
        self.one_each.setToolTip("Each point, box or outline drawn begins an object of its own.")
        self.candidates = QListWidget(self)
        self.candidates.setToolTip("The masks that a single click may mean, with their predicted IoU; choose one.")
        self.candidates.setFixedHeight(58)
        self.strategy = QComboBox(self)
        self.strategy.addItems(STRATEGIES)
        self.strategy.setToolTip("Which of the masks is shown first: the highest score, or by size.")
        self.other = button("Other", "Show the next of the masks that a single click may mean.", "next_candidate")
        self.accept = button("Accept", "Write the mask into the labels, and go on to a new object.", "accept")
        self.accept_all = button("All", "Write the masks of all objects that wait on this plane.", "accept_all")
        self.overwrite = QCheckBox("overwrite")
        self.overwrite.setToolTip("Let accepted masks take pixels from other objects; otherwise theirs are kept.")
        self.undo = button("Undo", "Take back the last prompt, acceptance or propagation.", "undo")
        self.redo = button("Redo", "Do again what was taken back.", "redo")
        self.uncertainty = QCheckBox("uncertainty")
        self.uncertainty.setToolTip("Show where the model is not sure of the current object's mask.")
        self.answer = note()
        rows: tuple[tuple[QWidget, ...], ...] = (
            (self.points, self.boxes, self.lasso),
            (self.scribble, self.brush, self.label),
            (self.object_id, self.next_object, self.sign),
            (self.candidates, self.strategy, self.one_each),
            (self.candidates, self.other, self.uncertainty),
            (self.accept, self.accept_all, self.overwrite),
            (self.undo, self.redo),
        )
        grid = QGridLayout(self.body)
        for row, widgets in enumerate(rows):
            for column, widget in enumerate(widgets):
                if widget is not self.candidates:
                    grid.addWidget(widget, row, column)
        grid.addWidget(self.candidates, 3, 0, 2, 1)
        grid.addWidget(self.answer, len(rows), 0, 1, 3)

    def show_icons(self, colour: str) -> None:
        """Draw the icons of the tools in a colour such as "#f0f0f0"."""
        for tool in DRAWINGS:
            getattr(self, tool).setIcon(tool_icon(tool, colour))

    @property
    def chosen_strategy(self) -> Strategy:
        """How a candidate is chosen."""
        return STRATEGIES[self.strategy.currentIndex()]

    def show_candidates(self, lines: list[str], chosen: int) -> None:
        """List scores, and mark the one that is shown."""
        self.candidates.blockSignals(True)
        if lines != [self.candidates.item(i).text() for i in range(self.candidates.count())]:
            self.candidates.clear()
            self.candidates.addItems(lines)
        self.candidates.setCurrentRow(chosen)
        self.candidates.blockSignals(False)

    def show_sign(self, sign: str) -> None:
        """Say which sign the next points get."""
        self.sign.setChecked(sign == "negative")
        self.sign.setText(f"{sign.capitalize()} ({key_of('toggle_sign')})")


class PropagateSection(Section):
    """Range, direction, progress, and the object along the stack."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("Propagate", parent)
        self._count = 0
        self._leads_somewhere = self._running = False
        self.first, self.last = QSpinBox(self), QSpinBox(self)
        self.first.setToolTip("First plane to visit.")
        self.last.setToolTip("Last plane to visit.")
        self.direction = QComboBox(self)
        self.direction.addItems(DIRECTIONS)
        self.direction.setToolTip("Towards higher planes (forward), lower planes (backward), or both.")
        self.only_current = QCheckBox("only this object")
        self.only_current.setToolTip("Leave all other objects as they are.")
        self.run = button("Propagate", "Carry the objects from their prompted planes through the range.")
        self.cancel = button("Cancel", "Stop after the plane in work; finished planes stay.")
        self.pause = button("Pause", "Wait after the plane in work, or go on.", checkable=True)
        self.resume = button("Resume", "Go on with a cancelled propagation where it stopped.")
        self.update_labels = button("Update", "Follow corrections up and down the stack, only as far as they reach.")
        self.uncertain = button(
            "Check", "Go to the object and plane that the model was least sure of.", "most_uncertain"
        )
        self.timeline = Timeline(self)
        self.progress = QProgressBar(self)
        self.progress.setFormat("%v of %m planes")
        self.progress.setVisible(False)
        planes = QHBoxLayout()
        planes.addWidget(self.first, 1)
        planes.addWidget(QLabel("to"))
        planes.addWidget(self.last, 1)
        form = QFormLayout(self.body)
        form.addRow("Planes", planes)
        form.addRow("Direction", self.direction)
        form.addRow(self.only_current)
        buttons = QGridLayout()
        for place, widget in enumerate(
            (self.run, self.pause, self.cancel, self.update_labels, self.resume, self.uncertain)
        ):
            buttons.addWidget(widget, place // 3, place % 3)
        form.addRow(buttons)
        form.addRow(self.progress)
        form.addRow(self.timeline)
        self._offer()

    @property
    def chosen_direction(self) -> Direction:
        """Direction of the next propagation."""
        return DIRECTIONS[self.direction.currentIndex()]

    def set_length(self, count: int) -> None:
        """Offer the planes of a stack, all of them chosen when its length is another; one plane leads nowhere."""
        self._leads_somewhere = count > 1
        self._offer()
        if count > 1 and count != self._count:
            self._count = count
            for box, value in ((self.first, 0), (self.last, count - 1)):
                box.setRange(0, count - 1)
                box.setValue(value)

    def show_running(self, running: bool) -> None:
        """Offer to pause and to cancel while a propagation runs."""
        self._running = running
        self.pause.setChecked(False)
        self._offer()
        self.progress.setVisible(running)

    def _offer(self) -> None:
        for widget in (self.run, self.resume, self.update_labels):
            widget.setEnabled(self._leads_somewhere and not self._running)
        for widget in (self.pause, self.cancel):
            widget.setEnabled(self._running)
        self.uncertain.setEnabled(self._leads_somewhere)
        self.timeline.setVisible(self._leads_somewhere)

    def show_progress(self, done: int, total: int) -> None:
        """Planes done of planes in all; of an unknown number of planes when that is 0."""
        self.progress.setMaximum(max(done, total) if total else 0)
        self.progress.setValue(done)
