"""A combo box of layers that follows the viewer."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget


class LayerChoice(QComboBox):
    """Choice among the layers of one kind.

    Parameters
    ----------
    viewer : napari viewer
    kind : type of layer
    none : str, optional
        Text of a first entry that stands for no layer. Without it the newest
        layer is chosen when the chosen one is gone.
    """

    #: The layer chosen, or None.
    layer_changed = Signal(object)

    def __init__(self, viewer: ViewerModel, kind: type[Layer], none: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer, self.kind, self.none = viewer, kind, none
        self._layers: list[Layer | None] = []
        self._chosen: Layer | None = None
        # A long layer name must not widen the whole dock.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for emitter in self._emitters():
            emitter.connect(self.refresh)
        self.activated.connect(self._on_activated)
        self.refresh()

    @property
    def layer(self) -> Layer | None:
        """The layer chosen."""
        return self._chosen

    def refresh(self, event: Any = None) -> None:
        """List the layers anew, keeping the choice when it is still there."""
        # The layers that we show something in are neither images nor places to write into.
        found = [x for x in self.viewer.layers if isinstance(x, self.kind) and "segany" not in x.metadata]
        self._layers = [*([None] if self.none else []), *found]
        self.blockSignals(True)
        self.clear()
        self.addItems([self.none if layer is None else layer.name for layer in self._layers])
        self.blockSignals(False)
        default = None if self.none or not found else found[-1]
        self.choose(self._chosen if self._chosen in found else default)

    def choose(self, layer: Layer | None) -> None:
        """Choose a layer of the list."""
        self.setCurrentIndex(self._layers.index(layer) if layer in self._layers else -1)
        if layer is not self._chosen:
            self._chosen = layer
            self.layer_changed.emit(layer)

    def release(self) -> None:
        """Stop following the viewer."""
        for emitter in self._emitters():
            emitter.disconnect(self.refresh)

    def _emitters(self) -> list[Any]:
        events = self.viewer.layers.events
        return [events.inserted, events.removed, events.reordered, events.renamed]

    def _on_activated(self, index: int) -> None:
        self.choose(self._layers[index])
