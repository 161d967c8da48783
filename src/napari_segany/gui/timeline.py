"""One object along the stack: how sure the model is of it and how large it is, plane by plane."""

from __future__ import annotations

from dataclasses import dataclass, field

from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_segany.gui.controls import is_light

HEIGHT = 72
MARGIN = 4
SCORE, AREA, PINNED = QColor("#ffb300"), QColor("#4fc3f7"), QColor("#00e676")


@dataclass(frozen=True)
class Course:
    """What is known of an object on each frame.

    Attributes
    ----------
    count : int
        Frames of the stack.
    scores : frame -> predicted IoU
    areas : frame -> pixels
    prompted, pinned : sets of frames
        Frames with prompts, and those whose mask the person has accepted.
    """

    count: int = 1
    scores: dict[int, float] = field(default_factory=dict)
    areas: dict[int, int] = field(default_factory=dict)
    prompted: frozenset[int] = frozenset()
    pinned: frozenset[int] = frozenset()


class Timeline(QWidget):
    """Bars for the area, a line for the score, marks for prompted and accepted frames; a click goes there."""

    #: Frame that was clicked on.
    clicked = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.course, self.frame = Course(), 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "The current object along the stack. Bars: area. Line: predicted IoU. Green: accepted planes, which a "
            "propagation does not change. Triangles: prompted planes. Click to go to a plane."
        )

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide and low."""
        return QSize(240, HEIGHT)

    def show_course(self, course: Course, frame: int) -> None:
        """Show an object, and where the viewer stands."""
        if (course, frame) != (self.course, self.frame):
            self.course, self.frame = course, frame
            self.update()

    def frame_at(self, x: float) -> int:
        """Frame at a horizontal position in pixels."""
        share = (x - MARGIN) / max(self.width() - 2 * MARGIN, 1)
        return min(max(int(share * self.course.count), 0), self.course.count - 1)

    def position_of(self, frame: int) -> float:
        """Horizontal position in pixels of the middle of a frame."""
        return MARGIN + (frame + 0.5) / self.course.count * (self.width() - 2 * MARGIN)

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Go to the plane under the mouse."""
        self.clicked.emit(self.frame_at(event.position().x()))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Go along with the mouse."""
        self.clicked.emit(self.frame_at(event.position().x()))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """Draw it all."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), self.palette().base())
        low, high, light = self.height() - MARGIN - 8, MARGIN, is_light(self)
        wide = max((self.width() - 2 * MARGIN) / self.course.count, 1.0)
        largest = max(self.course.areas.values(), default=0)
        for frame, area in self.course.areas.items():
            tall = (low - high) * area / largest if largest else 0
            colour = PINNED if frame in self.course.pinned else AREA
            bar = QRectF(self.position_of(frame) - wide / 2, low - tall, wide, tall)
            painter.fillRect(bar, colour if light else colour.darker(150))
        painter.setPen(QPen(SCORE.darker(220) if light else SCORE, 1.5))
        for part in self._curve(low, high):
            painter.drawPolyline(part)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self.palette().text())
        for frame in self.course.prompted:
            x = self.position_of(frame)
            painter.drawPolygon(QPolygonF([QPointF(x - 4, low + 8), QPointF(x + 4, low + 8), QPointF(x, low + 1)]))
        painter.setPen(QPen(self.palette().text().color(), 1))
        x = self.position_of(self.frame)
        painter.drawLine(QPointF(x, 0), QPointF(x, self.height()))
        painter.end()

    def _curve(self, low: float, high: float) -> list[QPolygonF]:
        """Return the score as lines that break where the object was not found."""
        parts: list[QPolygonF] = []
        before = -2
        for frame, score in sorted(self.course.scores.items()):
            if frame != before + 1:
                parts.append(QPolygonF())
            parts[-1].append(QPointF(self.position_of(frame), low - (low - high) * min(max(score, 0.0), 1.0)))
            before = frame
        return parts
