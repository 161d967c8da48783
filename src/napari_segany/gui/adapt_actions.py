"""What a person does to teach a model the structure in front of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject
from qtpy.QtCore import Signal as QtSignal  # type: ignore[attr-defined]

from napari_segany import api
from napari_segany.gui.long_task import LongTask, Report
from napari_segany.gui.open_stack import OpenStack

if TYPE_CHECKING:
    from napari_segany.gui.controller import Controller


class AdaptActions(QObject):
    """Teaching, in a thread of its own; prompts are answered meanwhile.

    Parameters
    ----------
    controller : Controller

    Attributes
    ----------
    learning : LongTask
    """

    #: What was learned, as a sentence.
    learned = QtSignal(str)

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.learning = LongTask()

    def adapt(self, name: str, steps: int) -> None:
        """Teach the model the objects of the stack on display, keep it under a name, and answer with it."""
        name = name.strip()
        if not name or any(info.name == name for info in api.list_models()):
            show_warning(f'There is a model "{name}" already.' if name else "Give the new model a name first.")
            return

        def begin(stack: OpenStack) -> None:
            def work(report: Report) -> Any:
                return stack.session.adapt(name, steps, report)

            self.learning.start("Learning", work, self._on_taught)

        self._controller.stacks.use(begin)

    def close(self) -> None:
        """Stop what runs and tell nobody."""
        self.learning.blockSignals(True)
        self.learning.cancel()
        self.blockSignals(True)

    def _on_taught(self, model: Any) -> None:
        self.learned.emit(describe(model.name, model.provenance))
        self._controller.models.arrived.emit(model.name)


def describe(name: str, provenance: Mapping[str, Any]) -> str:
    """Say what a model was taught and what came of it."""
    learned = f"{_count(provenance['objects'], 'object')} in {_count(provenance['steps'], 'step')}"
    said = f'"{name}" comes from {provenance["base"]} and learned from {learned}.'
    if provenance["before"] is not None:
        before, after = provenance["before"], provenance["after"]
        kept_back = _count(provenance["held_out"], "object")
        said += f" One click on {kept_back} kept back: IoU {before:.2f} before, {after:.2f} now."
    return f"{said} Note: {provenance['note']}." if provenance["note"] else said


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
