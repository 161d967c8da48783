"""The three groups of controls of the widget; they hold no behaviour."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_segany.gui.keys import KEYS
from napari_segany.gui.layer_choice import LayerChoice
from napari_segany.session.session import Direction

DEVICES = ("auto", "cpu", "cuda", "mps")
DIRECTIONS: tuple[Direction, ...] = ("both", "forward", "backward")


def _button(text: str, tip: str, key: str = "", checkable: bool = False) -> QPushButton:
    button = QPushButton(f"{text} ({KEYS[key]})" if key else text)
    button.setToolTip(f"{tip} Key: {KEYS[key]}." if key else tip)
    button.setCheckable(checkable)
    return button


def _note() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
    return label


class ImageSection(QGroupBox):
    """Image, axis, output, model and device."""

    def __init__(self, viewer: ViewerModel, parent: QWidget) -> None:
        super().__init__("Image and model", parent)
        self.image = LayerChoice(viewer, Image, parent=self)
        self.image.setToolTip("The image layer to segment.")
        self.axis = QComboBox(self)
        self.axis.setToolTip("The axis along which masks are propagated; the other axes stay where their sliders are.")
        self.axis_label = QLabel("Along")
        self.output = LayerChoice(viewer, Labels, none="new layer", parent=self)
        self.output.setToolTip("The labels layer that accepted and propagated objects are written into.")
        self.model = QComboBox(self)
        self.model.setToolTip("The model that answers the prompts; it is loaded when it is first needed.")
        self.device = QComboBox(self)
        self.device.addItems(DEVICES)
        self.device.setToolTip("Where the model computes; auto takes a GPU when there is one.")
        self.status = _note()
        model_row = QHBoxLayout()
        model_row.addWidget(self.model, 1)
        model_row.addWidget(self.device)
        form = QFormLayout(self)
        form.addRow("Image", self.image)
        form.addRow(self.axis_label, self.axis)
        form.addRow("Labels", self.output)
        form.addRow("Model", model_row)
        form.addRow(self.status)

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


class PromptSection(QGroupBox):
    """Tools, object, sign, and what to do with the mask."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("Prompt", parent)
        self.points = _button("Points", "Click on the object, and on what is not part of it.")
        self.boxes = _button("Boxes", "Drag a rectangle around the object.")
        self.sign = _button(
            "Positive", "Whether the next points lie inside or outside the object.", "toggle_sign", True
        )
        self.object_id = QSpinBox(self)
        self.object_id.setRange(1, 2**31 - 1)
        self.object_id.setPrefix("object ")
        self.object_id.setToolTip("The object being prompted; its number becomes the label.")
        self.next_object = _button("Next", "Go on to a new object.", "next_object")
        self.accept = _button("Accept", "Write the mask into the labels, and go on to a new object.", "accept")
        self.other = _button("Other mask", "Show the next of the masks that a single click may mean.", "next_candidate")
        self.undo = _button("Undo", "Take back the last prompt, acceptance or propagation.", "undo")
        self.answer = _note()
        grid = QGridLayout(self)
        for place, widget in enumerate(
            (self.points, self.boxes, self.object_id, self.next_object, self.sign, self.other, self.accept, self.undo)
        ):
            grid.addWidget(widget, place // 2, place % 2)
        grid.addWidget(self.answer, 4, 0, 1, 2)

    def show_sign(self, sign: str) -> None:
        """Say which sign the next points get."""
        self.sign.setChecked(sign == "negative")
        self.sign.setText(f"{sign.capitalize()} ({KEYS['toggle_sign']})")


class PropagateSection(QGroupBox):
    """Range, direction and progress."""

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
        self.run = _button("Propagate", "Carry the objects from their prompted planes through the range.")
        self.cancel = _button("Cancel", "Stop after the plane in work; finished planes stay.")
        self.cancel.setEnabled(False)
        self.progress = QProgressBar(self)
        self.progress.setFormat("%v of %m planes")
        self.progress.setVisible(False)
        planes = QHBoxLayout()
        planes.addWidget(self.first, 1)
        planes.addWidget(QLabel("to"))
        planes.addWidget(self.last, 1)
        form = QFormLayout(self)
        form.addRow("Planes", planes)
        form.addRow("Direction", self.direction)
        form.addRow(self.only_current)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run)
        buttons.addWidget(self.cancel)
        form.addRow(buttons)
        form.addRow(self.progress)

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
        """Offer to cancel while a propagation runs."""
        self._running = running
        self._offer()
        self.progress.setVisible(running)

    def _offer(self) -> None:
        self.run.setEnabled(self._leads_somewhere and not self._running)
        self.cancel.setEnabled(self._running)

    def show_progress(self, done: int, total: int) -> None:
        """Planes done of planes in all."""
        self.progress.setMaximum(max(done, total))
        self.progress.setValue(done)
