"""Teaching a model in the window, and going through what is suggested with two keys."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QThreadPool

from napari_segany import api, samples, training
from napari_segany.core.errors import InvalidLabelsError
from napari_segany.core.protocols import ModelInfo
from napari_segany.gui.loss_plot import LossPlot
from napari_segany.training.adapt import FitReport
from tests.fakes import DiscModel
from tests.gui.test_find import Seen, islands, seen  # noqa: F401


class Teacher:
    """Stands for `training.fit`: it tells steps, waits, and gives a model that was taught."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.given: dict[str, Any] = {}

    def __call__(self, images: Any, labels: Any, base: Any, name: str, steps: int, progress: Any) -> Any:
        self.given = {"images": images, "labels": labels, "name": name}
        if not any(own.any() for own in labels):
            raise InvalidLabelsError("There are 0 labelled objects; label at least two, better ten.")
        for step in range(1, steps + 1):
            if progress(FitReport(step, steps, 1.0 / step)) is False:
                return base
            self.go_on.wait(10)
        provenance = {
            "base": "disc", "objects": 3, "held_out": 1, "steps": steps, "before": 0.5, "after": 0.75, "note": "",
        }  # fmt: skip
        can = DiscModel.capabilities
        api.list_models().append(ModelInfo(name, "fake", can, 0, "your own", True, False, provenance=provenance))
        model = DiscModel(name)
        model.provenance = provenance  # type: ignore[attr-defined]
        return model


@pytest.fixture
def teacher(monkeypatch: Any) -> Teacher:
    made = Teacher()
    monkeypatch.setattr(training, "fit", made)
    return made


def adapt(bench: Any, name: str, steps: int = 3) -> None:
    bench.widget.adapt.name.setText(name)
    bench.widget.adapt.steps.setValue(steps)
    bench.widget.adapt.run.click()
    bench.settle()


def wait(bench: Any) -> None:
    bench.qtbot.waitUntil(lambda: not bench.controller.adapting.learning.running, timeout=10_000)
    bench.settle()


def test_model_learns_what_was_accepted_and_answers_at_once(open_bench: Any, teacher: Teacher) -> None:
    image = np.random.default_rng(0).random((4, 40, 60))
    bench = open_bench(image)
    for frame, y, x in [(1, 10, 10), (1, 30, 40), (2, 10, 30)]:
        bench.viewer.dims.set_current_step(0, frame)
        bench.controller.use_tool("points")
        bench.click(frame, y, x)
        bench.key("J")
    bench.controller.set_object(1)
    bench.widget.propagate.only_current.setChecked(True)
    bench.propagate()
    adapt(bench, "mine")
    wait(bench)
    # The planes accepted on, without what was only propagated there.
    np.testing.assert_array_equal(teacher.given["images"], image[1:3])
    assert [sorted(np.unique(own)) for own in teacher.given["labels"]] == [[0, 1, 2], [0, 3]]
    assert bench.controller.stacks.model.name == "mine"
    assert len(bench.widget.adapt.plot.losses) == 3
    text = bench.widget.adapt.result.text()
    assert "from disc" in text and "3 objects" in text and "IoU 0.50 before, 0.75 now" in text
    models = bench.widget.models
    assert models.chosen.name == "mine" and models.taught.text() == text
    models.table.selectRow(0)
    assert models.taught.text() == ""


@pytest.fixture
def learning_bench(open_bench: Any, teacher: Teacher) -> Any:
    """A window in which a model has begun to learn one object, and waits after the first step."""
    # As on a computer with one core.
    QThreadPool.globalInstance().setMaxThreadCount(1)
    bench = open_bench(np.random.default_rng(0).random((40, 60)))
    bench.controller.use_tool("points")
    bench.click(10, 10)
    bench.key("J")
    teacher.go_on.clear()
    adapt(bench, "mine", steps=100)
    bench.qtbot.waitUntil(lambda: len(bench.widget.adapt.plot.losses) == 1)
    return bench


def test_learning_is_cancelled(learning_bench: Any, teacher: Teacher, warnings_shown: list[str]) -> None:
    bench = learning_bench
    assert bench.widget.adapt.cancel.isEnabled() and not bench.widget.adapt.run.isEnabled()
    bench.click(30, 30)
    assert bench.preview()[30, 30], "clicks are answered while a model learns"
    bench.widget.adapt.cancel.click()
    teacher.go_on.set()
    wait(bench)
    assert len(bench.widget.adapt.plot.losses) <= 2 and "cancelled" in warnings_shown[-1]
    assert bench.controller.stacks.model.name == "disc"


def test_closing_while_a_model_learns(learning_bench: Any, teacher: Teacher, qtbot: Any) -> None:
    bench = learning_bench
    learning, models = bench.controller.adapting.learning, bench.widget.models
    bench.viewer.window.remove_dock_widget(bench.widget)
    teacher.go_on.set()
    qtbot.waitUntil(lambda: not learning.running, timeout=10_000)
    assert not any(info.name == "mine" for info in models.infos), "nobody is left to use it"


def test_what_cannot_be_learned_is_one_sentence(open_bench: Any, teacher: Teacher, warnings_shown: list[str]) -> None:
    bench = open_bench(np.random.default_rng(0).random((40, 60)))
    adapt(bench, " ")
    assert "name first" in warnings_shown[-1]
    adapt(bench, "other")
    assert "already" in warnings_shown[-1]
    adapt(bench, "mine")
    wait(bench)
    assert "0 labelled objects" in warnings_shown[-1] and bench.widget.adapt.result.text() == ""


def test_nano_learns_from_a_session(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path))
    image, truth = (plane[:96, :96] for plane in samples.image("nuclei", seed=1))
    session = api.Session(image[None], labels=truth[None].astype(np.int32))
    told: list[FitReport] = []
    model = session.adapt("taught", steps=1, progress=told.append)
    assert model.name == "taught" and len(told) == 1
    assert model.provenance["objects"] + model.provenance["held_out"] == len(np.unique(truth)) - 1  # type: ignore[attr-defined]


def test_the_rest_is_suggested_and_sifted_with_two_keys(open_bench: Any, seen: Seen) -> None:  # noqa: F811
    image = islands()
    bench = open_bench(image)
    bench.controller.use_tool("boxes")
    bench.box((3.5, 4.5), (3.5, 12.5), (11.5, 12.5), (11.5, 4.5))
    bench.key("J")
    np.testing.assert_array_equal(bench.output > 0, image == 250)
    concepts = bench.widget.concepts
    concepts.threshold.setValue(0.1)
    concepts.rest.click()
    bench.settle()
    # What is labelled is no news; the best of the others is looked at.
    found = bench.viewer.layers["Found"]
    np.testing.assert_array_equal(found.data > 0, (image > 0) & (image < 250))
    assert found.data[25, 40] == found.selected_label == 1
    bench.key("Q")
    np.testing.assert_array_equal(found.data > 0, image == 60)
    bench.key("G")
    np.testing.assert_array_equal(bench.output > 0, (image == 60) | (image == 250))
    session = bench.controller.here()[0].session
    assert session.clicks == {(1, 0): 1, (2, 0): 0}
    assert bench.widget.adapt.clicks.text().startswith("0.5 clicks per accepted object")
    bench.key("U")
    np.testing.assert_array_equal(bench.output > 0, image == 250)
    assert session.clicks == {(1, 0): 1}


def test_two_quick_keys_accept_two_objects(open_bench: Any, seen: Seen) -> None:  # noqa: F811
    bench = open_bench(islands())
    bench.controller.concepts.choose_threshold(0.1)
    bench.controller.concepts.find("island")
    bench.settle()
    for _ in range(2):
        bench.controller.concepts.accept_current()
    bench.settle()
    assert sorted(np.unique(bench.output)) == [0, 1, 2]


def test_nothing_to_sift(open_bench: Any, warnings_shown: list[str]) -> None:
    bench = open_bench(islands())
    bench.key("G")
    assert "nothing to accept" in warnings_shown[-1]
    bench.key("Q")
    assert "nothing to reject" in warnings_shown[-1]


def test_the_bold_line_is_a_running_mean(qtbot: Any) -> None:
    plot = LossPlot()
    qtbot.addWidget(plot)
    for loss in (1.0, 2.0, 3.0, 6.0):
        plot.add(loss, steps=20)
    np.testing.assert_allclose(plot.running_mean(), [1.0, 1.5, 2.5, 4.5])
    plot.resize(240, 72)
    curve = plot._curve(plot.running_mean())
    assert curve[3].y() < curve[0].y(), "higher losses are higher up"
    assert not plot.grab().isNull()
