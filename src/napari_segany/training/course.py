"""The course of a training, written down while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from napari_segany.core.durable import replacing
from napari_segany.core.errors import UnsupportedError


class Course:
    """Figures over steps: ``log.jsonl``, events for TensorBoard, and ``curves.png``.

    Parameters
    ----------
    out : folder
        A training that is taken up again goes on in the same files.

    Raises
    ------
    UnsupportedError
        The packages that draw are not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            import matplotlib.figure  # noqa: F401
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UnsupportedError('Training draws curves: run pip install "napari-segany[train]" first.') from error
        out.mkdir(parents=True, exist_ok=True)
        self.out, self._log = out, out / "log.jsonl"
        self._lines = [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []
        self._events = SummaryWriter(str(out / "events"))

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Write down the figures of a step."""
        self._lines.append({"step": step, **figures})
        with self._log.open("a") as log:
            log.write(json.dumps(self._lines[-1]) + "\n")
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()
        self._draw()

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), layout="constrained")
        loss, iou = figure.subplots(1, 2)
        for name in dict.fromkeys(name for line in self._lines for name in line):
            if name not in ("step", "minutes"):
                points = [(line["step"], line[name]) for line in self._lines if name in line]
                axes = loss if name in ("loss", "dense") else iou
                axes.plot(*zip(*points, strict=True), label=name)
        for axes, title in ((loss, "loss"), (iou, "IoU of answers")):
            axes.set(title=title, xlabel="step")
            axes.legend()
        with replacing(self.out / "curves.png") as new:
            figure.savefig(new, format="png")
