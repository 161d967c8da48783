"""The part of the widget about models; it holds no behaviour."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_segany.core.protocols import ModelInfo
from napari_segany.gui.adapt_actions import describe
from napari_segany.gui.controls import Section, button, note
from napari_segany.gui.preferences import preference

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
COLUMNS = ("model", "here", "size", "can", "licence", "family")
#: Legible on dark and on light.
LINK_COLOUR = "#2f86d6"


class ModelsSection(Section):
    """List of models, download, import, device and precision."""

    #: Another device was chosen, or the address of one was typed.
    device_changed = QtSignal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__("Models", parent, opened=False)
        self.infos: list[ModelInfo] = []
        self.table = QTableWidget(0, len(COLUMNS), self)
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.verticalHeader().setVisible(False)
        self.table.setFixedHeight(180)
        self.table.setToolTip(
            "Models that can be loaded. Image: points, boxes and masks; stack: a memory for following objects; "
            "concept: finds every object of a kind. Files of other models can be dropped here."
        )
        self.use = button("Use", "Let this model answer from now on.")
        self.download = button("Download", "Fetch the weights from their publisher; goes on where it stopped.")
        self.cancel = button("Cancel", "Stop the download; what has arrived is kept for the next time.")
        self.bring = button("Import…", "Choose a checkpoint of SAM, SAM 2, SAM 3, MobileSAM, micro-sam or nano.")
        self.token = QLineEdit(self)
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.token.setPlaceholderText("access token")
        self.token.setToolTip(
            "An access token of an account that has agreed to the licence; it is used for this download and not kept. "
            "Without one the variable HF_TOKEN counts."
        )
        self.taught = note()
        self.licence = note()
        self.licence.setOpenExternalLinks(True)
        self.progress = QProgressBar(self)
        self.device, self.precision = QComboBox(self), QComboBox(self)
        self.device.setEditable(True)
        self.device.addItems(DEVICES)
        self.device.setCurrentText(preference("defaults", "device", DEVICES[0]))
        self.device.setToolTip(
            "Where models compute; auto takes a GPU when there is one. The address of a Dask scheduler, such as "
            "tcp://host:8786, and the Enter key let a computer there do it."
        )
        # An address is not tried while it is being typed.
        self.device.currentTextChanged.connect(lambda text: self.device_changed.emit() if text in DEVICES else None)
        line = self.device.lineEdit()
        assert line is not None
        line.editingFinished.connect(self.device_changed.emit)
        self.precision.addItems(PRECISIONS)
        self.precision.setCurrentText(preference("defaults", "precision", PRECISIONS[0]))
        self.precision.setToolTip("With how many bits models compute; auto takes half of them where that is faster.")
        self.memory = note()
        grid = QGridLayout(self.body)
        grid.addWidget(self.table, 0, 0, 1, 4)
        for column, widget in enumerate((self.use, self.download, self.cancel, self.bring)):
            grid.addWidget(widget, 1, column)
        grid.addWidget(self.taught, 2, 0, 1, 4)
        grid.addWidget(self.licence, 3, 0, 1, 2)
        grid.addWidget(self.token, 3, 2, 1, 2)
        grid.addWidget(self.progress, 4, 0, 1, 4)
        computing = QHBoxLayout()
        computing.addWidget(QLabel("Compute on"))
        computing.addWidget(self.device, 1)
        computing.addWidget(QLabel("in"))
        computing.addWidget(self.precision, 1)
        grid.addLayout(computing, 5, 0, 1, 4)
        grid.addWidget(self.memory, 6, 0, 1, 4)
        self.table.itemSelectionChanged.connect(self.offer)
        self.show_running(False)

    @property
    def chosen(self) -> ModelInfo | None:
        """The model selected in the list."""
        rows = {index.row() for index in self.table.selectedIndexes()}
        return self.infos[rows.pop()] if rows else None

    def show_models(self, infos: Sequence[ModelInfo], chosen: str) -> None:
        """List models, and select one."""
        self.infos = list(infos)
        self.table.setRowCount(len(infos))
        for row, info in enumerate(self.infos):
            can = ", ".join(sorted(info.capabilities - {"image"}, reverse=True)) or "image"
            licence = f"{info.licence} (gated)" if info.gated else info.licence
            here = "yes" if info.installed else ""
            for column, text in enumerate((info.name, here, _megabytes(info.size), can, licence, info.family)):
                self.table.setItem(row, column, QTableWidgetItem(text))
            if info.name == chosen:
                self.table.selectRow(row)
        self.table.resizeColumnsToContents()
        self.offer()

    def offer(self) -> None:
        """Offer what can be done with the model selected, and say what it was taught."""
        info = self.chosen
        self.taught.setText("" if info is None or info.provenance is None else describe(info.name, info.provenance))
        absent = info is not None and not info.installed
        gated = info is not None and absent and info.gated
        self.use.setEnabled(info is not None and info.installed)
        self.download.setEnabled(absent and not self._running)
        self.token.setVisible(gated)
        self.licence.setVisible(gated)
        if info is not None and gated:
            link = f'<a href="{info.page}" style="color: {LINK_COLOUR}">{info.licence}</a>'
            self.licence.setText(f"Agree to the {link} first.")

    def show_running(self, running: bool) -> None:
        """Offer to cancel while a download runs."""
        self._running = running
        self.progress.setVisible(running)
        self.progress.setMaximum(0)
        self.cancel.setEnabled(running)
        self.offer()

    def show_progress(self, told: tuple[int, int]) -> None:
        """Bytes done of bytes in all; of an unknown number when that is 0."""
        done, total = told
        # In kilobytes, since a progress bar counts to two thousand million.
        self.progress.setMaximum(total // 1000)
        self.progress.setValue(done // 1000)
        self.progress.setFormat(f"{_megabytes(done)} of {_megabytes(total)}" if total else _megabytes(done))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size else ""
