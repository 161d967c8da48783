"""How the loss falls while a model learns."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_segany.gui.controls import is_light

HEIGHT = 72
MARGIN = 4
EACH, MEAN = QColor("#4fc3f7"), QColor("#ffb300")
#: Share of the steps over which the bold line averages.
SMOOTHING = 0.1


class LossPlot(QWidget):
    """The loss of each step, thin, and its running mean, bold.

    Attributes
    ----------
    losses : list of float
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.losses: list[float] = []
        self._steps = 1
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("The loss of each step while the model learns, and its running mean. Lower is better.")

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide and low."""
        return QSize(240, HEIGHT)

    def clear(self) -> None:
        """Begin anew."""
        self.losses = []
        self.update()

    def add(self, loss: float, steps: int) -> None:
        """Add a step of so many."""
        self.losses.append(loss)
        self._steps = max(steps, len(self.losses))
        self.update()

    def running_mean(self) -> np.ndarray:
        """Mean of each step and those shortly before it, (number of losses,)."""
        losses, window = np.array(self.losses), max(1, round(SMOOTHING * self._steps))
        sums = np.concatenate([[0.0], np.cumsum(losses)])
        stop = np.arange(1, len(losses) + 1)
        start = np.maximum(stop - window, 0)
        return (sums[stop] - sums[start]) / (stop - start)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """Draw it all."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), self.palette().base())
        if self.losses:
            for values, colour, width in ((np.array(self.losses), EACH, 1.0), (self.running_mean(), MEAN, 2.0)):
                painter.setPen(QPen(colour.darker(220) if is_light(self) else colour, width))
                painter.drawPolyline(self._curve(values))
            painter.setPen(QPen(self.palette().text().color(), 1))
            text = f"step {len(self.losses)} of {self._steps}, loss {self.running_mean()[-1]:.3f}"
            flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignBottom
            painter.drawText(self.rect().adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN), flags, text)
        painter.end()

    def _curve(self, values: np.ndarray) -> QPolygonF:
        low, high = 0.0, max(self.losses)
        tall, wide = self.height() - 2 * MARGIN, self.width() - 2 * MARGIN
        share = (values - low) / max(high - low, 1e-9)
        return QPolygonF(
            [
                QPointF(MARGIN + wide * (i + 0.5) / self._steps, MARGIN + tall * (1 - up))
                for i, up in enumerate(share.tolist())
            ]
        )
