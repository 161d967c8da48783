"""Icons of the tools, drawn in the colour of the theme."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap

#: Side in pixels; drawn on a grid of 16 units.
SIDE = 32


def tool_icon(tool: str, colour: str) -> QIcon:
    """Icon of "points", "boxes", "lasso", "scribble", "brush" or "label" in a colour such as "#f0f0f0"."""
    picture = QPixmap(SIDE, SIDE)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.scale(SIDE / 16, SIDE / 16)
    painter.setPen(QPen(QColor(colour), 1.4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    DRAWINGS[tool](painter, QColor(colour))
    painter.end()
    return QIcon(picture)


def _points(painter: QPainter, colour: QColor) -> None:
    painter.drawEllipse(QPointF(8, 8), 6, 6)
    painter.setBrush(colour)
    painter.drawEllipse(QPointF(8, 8), 1.6, 1.6)


def _boxes(painter: QPainter, colour: QColor) -> None:
    painter.drawRect(QRectF(2.5, 4, 11, 8))
    painter.setBrush(colour)
    for x, y in ((2.5, 4), (13.5, 4), (2.5, 12), (13.5, 12)):
        painter.drawRect(QRectF(x - 0.7, y - 0.7, 1.4, 1.4))


def _lasso(painter: QPainter, colour: QColor) -> None:
    path = QPainterPath(QPointF(5, 10))
    path.cubicTo(0, 7, 4, 2, 8, 2.5)
    path.cubicTo(15, 2.5, 16, 9, 10, 10.5)
    path.cubicTo(8, 11, 6, 11, 5, 10)
    path.cubicTo(4, 11.5, 6, 13, 4, 14.5)
    painter.drawPath(path)


def _scribble(painter: QPainter, colour: QColor) -> None:
    path = QPainterPath(QPointF(2, 11))
    path.cubicTo(4, 2, 6, 3, 6.5, 8)
    path.cubicTo(7, 14, 9, 13, 10, 8)
    path.cubicTo(11, 4, 13, 4, 14, 6)
    painter.drawPath(path)


def _brush(painter: QPainter, colour: QColor) -> None:
    painter.drawLine(QPointF(13.5, 2.5), QPointF(7.5, 8.5))
    painter.setBrush(colour)
    path = QPainterPath(QPointF(7.5, 8))
    path.cubicTo(9.5, 11, 6.5, 14, 2.5, 13.5)
    path.cubicTo(4.5, 12.5, 3, 9, 7.5, 8)
    painter.drawPath(path)


def _label(painter: QPainter, colour: QColor) -> None:
    path = QPainterPath(QPointF(2.5, 8))
    for x, y in ((7, 3), (13.5, 3), (13.5, 9.5), (8.5, 13.5)):
        path.lineTo(x, y)
    path.closeSubpath()
    painter.drawPath(path)
    painter.drawEllipse(QPointF(10.8, 5.7), 0.8, 0.8)


DRAWINGS: dict[str, Callable[[QPainter, QColor], None]] = {
    "points": _points,
    "boxes": _boxes,
    "lasso": _lasso,
    "scribble": _scribble,
    "brush": _brush,
    "label": _label,
}
