"""The dock widget: its slots read the controls, make one call and stop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from napari.layers import Layer
from napari.utils.notifications import show_warning
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QFrame, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_segany import api
from napari_segany.core.protocols import WEIGHT_SUFFIXES
from napari_segany.gui.adapt_section import AdaptSection
from napari_segany.gui.controller import Controller
from napari_segany.gui.controls import Section
from napari_segany.gui.find_section import FindSection
from napari_segany.gui.keys import Keys
from napari_segany.gui.models_section import ModelsSection
from napari_segany.gui.preferences import preference
from napari_segany.gui.sections import ImageSection, PromptSection, PropagateSection
from napari_segany.gui.tracks_section import TracksSection

#: Until a section that was unfolded has its place, milliseconds.
LAYOUT_DELAY = 50


class SegmentWidget(QWidget):
    """Prompt objects, and propagate them through a stack.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.controller = Controller(napari_viewer)
        self.images = ImageSection(napari_viewer, self)
        self.prompts = PromptSection(self)
        self.concepts = FindSection(self)
        self.propagate = PropagateSection(self)
        self.tracks = TracksSection(self)
        self.models, self.adapt = ModelsSection(self), AdaptSection(self)
        # On a small screen the lower sections must be within reach.
        area, inside, outside = QScrollArea(self), QWidget(), QVBoxLayout(self)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(inside)
        for section in (self.images, self.prompts, self.concepts, self.propagate, self.tracks, self.models, self.adapt):
            layout.addWidget(section)
        layout.addStretch(1)
        area.setWidget(inside)
        self._area = area
        self._revealed: Section = self.images
        self._scroll_soon = QTimer(self)
        self._scroll_soon.setSingleShot(True)
        self._scroll_soon.timeout.connect(self._scroll)
        area.setMinimumWidth(inside.minimumSizeHint().width() + area.verticalScrollBar().sizeHint().width())
        outside.setContentsMargins(0, 0, 0, 0)
        outside.addWidget(area)
        self.setAcceptDrops(True)
        self._list_models()
        self._connect_controls()
        self._connect_controller()
        masks = self.controller.masks
        self.keys = Keys(
            napari_viewer,
            {
                "toggle_sign": self.controller.toggle_sign,
                "accept": masks.accept,
                "accept_all": masks.accept_all,
                "next_object": self.controller.next_object,
                "next_candidate": masks.next_candidate,
                "undo": masks.undo,
                "redo": masks.redo,
                "most_uncertain": self.controller.stack.most_uncertain,
                "accept_suggestion": self.controller.concepts.accept_current,
                "reject_suggestion": self.controller.concepts.reject_current,
            },
        )
        self._viewer = napari_viewer
        napari_viewer.events.theme.connect(self._show_icons)
        self._show_icons()
        self._docked = False
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._close = self._closer()
        # A function that does not belong to the widget, which Qt would not call any more.
        self.destroyed.connect(self._close)
        self._on_model()
        self.controller.stacks.choose_autosave(self.images.autosave.isChecked())
        self._on_image(self.images.image.layer)
        self._on_output(self.images.output.layer)

    def _connect_controls(self) -> None:
        controller, images, prompts, propagate = self.controller, self.images, self.prompts, self.propagate
        masks, stack, concepts, find = controller.masks, controller.stack, controller.concepts, self.concepts
        models, stacks = self.models, controller.stacks
        find.threshold.valueChanged.connect(concepts.choose_threshold)
        find.only_seen.toggled.connect(concepts.choose_only_seen)
        find.table.cellClicked.connect(lambda row, _: concepts.select(row))
        images.image.layer_changed.connect(self._on_image)
        images.axis.currentIndexChanged.connect(lambda _: controller.choose_axis(images.axis.currentData()))
        images.output.layer_changed.connect(self._on_output)
        images.model.currentIndexChanged.connect(lambda _: self._on_model())
        models.device_changed.connect(self._on_model)
        models.precision.currentIndexChanged.connect(lambda _: self._on_model())
        images.autosave.toggled.connect(stacks.choose_autosave)
        for box in (images.low, images.high):
            box.valueChanged.connect(lambda _: stacks.choose_percentiles(images.low.value(), images.high.value()))
        for tool in ("points", "boxes", "lasso", "scribble", "brush"):
            getattr(prompts, tool).clicked.connect(lambda _=False, tool=tool: controller.use_tool(tool))
        prompts.object_id.valueChanged.connect(controller.set_object)
        prompts.one_each.toggled.connect(controller.choose_one_each)
        prompts.uncertainty.toggled.connect(controller.show_uncertainty)
        prompts.overwrite.toggled.connect(masks.choose_overwrite)
        prompts.candidates.currentRowChanged.connect(masks.choose_candidate)
        prompts.strategy.currentIndexChanged.connect(lambda _: masks.choose_strategy(prompts.chosen_strategy))
        propagate.timeline.clicked.connect(stack.go_to)
        self.tracks.doubts.currentRowChanged.connect(controller.tracks.go_to)
        self.tracks.show_tracks.toggled.connect(controller.track_layer.choose)
        buttons: dict[QPushButton, Callable[[], None]] = {
            prompts.label: masks.take_label,
            prompts.sign: controller.toggle_sign,
            prompts.next_object: controller.next_object,
            prompts.other: masks.next_candidate,
            prompts.accept: masks.accept,
            prompts.accept_all: masks.accept_all,
            prompts.undo: masks.undo,
            prompts.redo: masks.redo,
            find.example: lambda: concepts.draw("examples"),
            find.counter: lambda: concepts.draw("counter-examples"),
            find.run: lambda: concepts.find(find.text.currentText()),
            find.track: self._on_track,
            find.accept: concepts.accept,
            find.accept_selected: lambda: concepts.accept(find.selected_rows),
            propagate.run: self._on_propagate,
            propagate.pause: controller.propagation.pause,
            propagate.cancel: controller.propagation.cancel,
            propagate.resume: stack.resume,
            propagate.update_labels: stack.update,
            propagate.uncertain: stack.most_uncertain,
            find.rest: concepts.propose,
            find.stop: concepts.stop,
            find.accept_one: concepts.accept_current,
            find.reject_one: concepts.reject_current,
            self.tracks.check: controller.tracks.check,
            self.tracks.split: controller.tracks.split,
            self.tracks.give: lambda: controller.tracks.give(self.tracks.number.value()),
            self.tracks.fill: controller.tracks.fill,
            self.tracks.export: self._on_export,
            self.adapt.run: self._on_adapt,
            self.adapt.cancel: controller.adapting.learning.cancel,
            models.use: self._on_use,
            models.download: self._on_download,
            models.cancel: controller.models.downloading.cancel,
            models.bring: self._on_import,
        }
        for button, action in buttons.items():
            # Without the state of the button, which Qt hands over.
            button.clicked.connect(lambda _=False, action=action: action())

    def _connect_controller(self) -> None:
        controller = self.controller
        controller.status_changed.connect(self.images.status.setText)
        controller.object_changed.connect(self._show_object)
        controller.answer_changed.connect(self.prompts.answer.setText)
        controller.candidates_changed.connect(self.prompts.show_candidates)
        controller.course_changed.connect(self.propagate.timeline.show_course)
        controller.intensity_changed.connect(self.images.intensity.setText)
        controller.sign_changed.connect(self.prompts.show_sign)
        controller.view_changed.connect(self._show_view)
        controller.found_changed.connect(self._show_found)
        controller.search_progressed.connect(self.concepts.show_progress)
        controller.track_progressed.connect(self._show_tracked)
        controller.words_changed.connect(self.concepts.offer_words)
        controller.output_changed.connect(lambda: self.images.output.choose(controller.output.layer))
        controller.propagation.running_changed.connect(self.propagate.show_running)
        controller.propagation.running_changed.connect(self.concepts.show_running)
        controller.propagation.progressed.connect(self.propagate.show_progress)
        controller.memory_changed.connect(self.models.memory.setText)
        for queue in (controller.jobs, controller.propagation):
            queue.out_of_memory.connect(self._on_out_of_memory)
        controller.doubts_changed.connect(self.tracks.show_doubts)
        controller.tracks_shown_changed.connect(self.tracks.show_tracks.setChecked)
        controller.clicks_changed.connect(self.adapt.clicks.setText)
        controller.adapting.learned.connect(self.adapt.result.setText)
        controller.adapting.learning.running_changed.connect(self.adapt.show_running)
        controller.adapting.learning.progressed.connect(self.adapt.show_progress)
        controller.models.arrived.connect(self._list_models)
        controller.models.downloading.running_changed.connect(self.models.show_running)
        controller.models.downloading.progressed.connect(self.models.show_progress)

    def _show_tracked(self, done: int, total: int) -> None:
        # What a cancelled run still tells is of no interest.
        if self.controller.propagation.running:
            self.concepts.show_progress(done, total, "planes")

    def reveal(self, section: Section) -> None:
        """Unfold a section and bring it into view."""
        section.head.setChecked(True)
        self._revealed = section
        # Its place is known once it is laid out.
        self._scroll_soon.start(LAYOUT_DELAY)

    def _scroll(self) -> None:
        self._area.verticalScrollBar().setValue(self._revealed.y())

    # -- slots ------------------------------------------------------------------------------------

    def _on_image(self, layer: Layer | None) -> None:
        self.controller.choose_image(layer)

    def _on_output(self, layer: Layer | None) -> None:
        self.controller.choose_output(layer)

    def _on_model(self) -> None:
        name, models = self.images.model.currentText(), self.models
        if name:
            self.controller.stacks.choose_model(name, models.device.currentText(), models.precision.currentText())

    def _on_out_of_memory(self, sentence: str) -> None:
        """Go on on the CPU when a GPU's memory ran out; elsewhere say so."""
        where = self.controller.stacks.model.where
        if not where.startswith(("cuda", "mps")):
            show_warning(sentence)
            return
        show_warning(f"The memory of {where} ran out: the CPU computes from now on, prompts stay and are asked again.")
        self.models.device.setCurrentText("cpu")
        self.controller.sync()

    def _on_use(self) -> None:
        chosen = self.models.chosen
        if chosen is not None:
            self.images.model.setCurrentText(chosen.name)

    def _on_download(self) -> None:
        chosen = self.models.chosen
        if chosen is not None:
            self.controller.models.download(chosen, self.models.token.text())

    def _on_import(self) -> None:
        patterns = " ".join(f"*{suffix}" for suffix in WEIGHT_SUFFIXES)
        paths, _ = QFileDialog.getOpenFileNames(self, "Import models", "", f"Checkpoints ({patterns})")
        self.controller.models.import_files([Path(path) for path in paths])

    def _on_export(self) -> None:
        kinds = ("Folder of the Cell Tracking Challenge (*)", "Graph (*.geff)")
        name, kind = QFileDialog.getSaveFileName(self, "Export tracks", "", ";;".join(kinds))
        if name:
            path = Path(name)
            self.controller.tracks.export(path.with_suffix(".geff") if kind == kinds[1] else path)

    def _on_adapt(self) -> None:
        self.controller.adapting.adapt(self.adapt.name.text(), self.adapt.steps.value())

    def _on_propagate(self) -> None:
        controls = self.propagate
        self.controller.stack.propagate(
            controls.first.value(),
            controls.last.value() + 1,
            controls.chosen_direction,
            controls.only_current.isChecked(),
        )

    def _on_track(self) -> None:
        first, last = self.propagate.first.value(), self.propagate.last.value()
        self.controller.concepts.track(
            self.concepts.text.currentText(), first, last + 1, self.concepts.divisions.isChecked()
        )

    # -- dropped files ----------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802
        """Take checkpoints; all else is napari's."""
        event.setAccepted(bool(_checkpoints(event)))

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        """Import the checkpoints that were dropped."""
        self.controller.models.import_files(_checkpoints(event))

    # -- showing ----------------------------------------------------------------------------------

    def _show_icons(self) -> None:
        self.prompts.show_icons(get_theme(self._viewer.theme).icon.as_hex())

    def _list_models(self, chosen: str = "") -> None:
        """List the models; one that has just come is used at once."""
        infos = api.list_models()
        kept = self.images.model.currentText() or preference("defaults", "model", infos[0].name)
        self.images.offer_models([info.name for info in infos if info.installed], chosen or kept)
        self.models.show_models(infos, self.images.model.currentText())
        if chosen:
            self._on_model()

    def _show_object(self, object_id: int) -> None:
        self.prompts.object_id.blockSignals(True)
        self.prompts.object_id.setValue(object_id)
        self.prompts.object_id.blockSignals(False)

    def _show_found(self) -> None:
        concepts = self.controller.concepts
        self.concepts.show_found(None if concepts.result is None else concepts.chosen())

    def _show_view(self) -> None:
        location = self.controller.location
        self.images.list_axes(*((location.axes(), location.axis) if location else ([], None)))
        view = self.controller.view()
        self.propagate.set_length(1 if view is None else view.stack_shape[0])

    # -- closing ----------------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        """Close down when the dock that held the widget lets go of it, which napari does without a close event."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self._close()
                self.deleteLater()
        return super().event(event)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """Close down."""
        self._close()
        super().closeEvent(event)

    def _closer(self) -> Callable[[], None]:
        """Return a function that shuts everything down when it is first called."""
        steps: list[Callable[[], object]] = [
            partial(self._viewer.events.theme.disconnect, self._show_icons),
            self.keys.release,
            self.images.image.release,
            self.images.output.release,
            self.controller.close,
        ]
        controller = self.controller

        def close() -> None:
            # When Python itself ends, Qt may have taken everything away before.
            while steps and isalive(controller):
                steps.pop(0)()

        return close


def _checkpoints(event: QDropEvent) -> list[Path]:
    """Checkpoints among the files that are dragged."""
    paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
    return [path for path in paths if path.suffix in WEIGHT_SUFFIXES]
