"""What a person does with models: fetch one from its publisher, or bring one along."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
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
        self._to_import: deque[Path] = deque()
        self.importing.running_changed.connect(self._import_next)

    def download(self, info: ModelInfo, token: str) -> None:
        """Fetch a model's weights; what has arrived when it is cancelled is kept for the next time."""
        self.downloading.start(
            f"Downloading {info.name}",
            partial(api.download_model, info.name, token.strip() or None),
            lambda _: self._on_arrived(info.name),
        )

    def import_files(self, paths: Iterable[Path]) -> None:
        """Check checkpoints, one after the other, and keep copies of them under the names of the files."""
        self._to_import.extend(paths)
        self._import_next(self.importing.running)

    def _import_next(self, running: bool) -> None:
        if running or not self._to_import:
            return
        path = self._to_import.popleft()
        self.importing.start(
            f"Importing {path.name}", lambda _: api.import_model(path), lambda info: self._on_arrived(info.name)
        )

    def close(self) -> None:
        """Stop what runs and tell nobody."""
        self._to_import.clear()
        for task in (self.downloading, self.importing):
            task.blockSignals(True)
            task.cancel()
        self.blockSignals(True)

    def _on_arrived(self, name: str) -> None:
        show_info(f'The model "{name}" is ready.')
        self.arrived.emit(name)
