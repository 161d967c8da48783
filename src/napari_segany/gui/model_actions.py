"""What a person does with models: fetch one from its publisher, or bring one along."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]

from napari_segany import api
from napari_segany.core.protocols import ModelInfo
from napari_segany.gui.long_task import LongTask


class ModelActions(QObject):
    """Downloads and imports, neither of which keeps anybody waiting.

    Attributes
    ----------
    downloading, importing : LongTask
    """

    #: Name of a model that has come to this computer.
    arrived = QtSignal(str)

    def __init__(self) -> None:
        super().__init__()
        self.downloading, self.importing = LongTask(), LongTask()

    def download(self, info: ModelInfo, token: str) -> None:
        """Fetch a model's weights; what has arrived when it is cancelled is kept for the next time."""
        self.downloading.start(
            f"Downloading {info.name}",
            partial(api.download_model, info.name, token.strip() or None),
            lambda _: self._on_arrived(info.name),
        )

    def import_file(self, path: Path) -> None:
        """Check a checkpoint and keep a copy of it under the name of the file."""
        self.importing.start(
            f"Importing {path.name}", lambda _: api.import_model(path), lambda info: self._on_arrived(info.name)
        )

    def close(self) -> None:
        """Stop what runs and tell nobody."""
        for task in (self.downloading, self.importing):
            task.blockSignals(True)
            task.cancel()
        self.blockSignals(True)

    def _on_arrived(self, name: str) -> None:
        show_info(f'The model "{name}" is ready.')
        self.arrived.emit(name)
