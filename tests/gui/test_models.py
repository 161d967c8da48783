"""Models in the window: the list, downloads from a server on this computer, files brought along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QFileDialog

from napari_segany import api
from napari_segany.core.errors import InsufficientMemoryError
from napari_segany.models import registry
from tests.fakes import DiscModel
from tests.weight_server import CONTENT, DIGEST, Server

NANO = Path(registry.__file__).parent / "nano" / "nano.safetensors"


@pytest.fixture
def shop(open_bench: Any, server: Server, tmp_path: Path, monkeypatch: Any) -> Callable[..., Any]:
    """A window whose only model to download comes from the server."""
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(api, "list_models", registry.list_models)
    nano = registry.REGISTERED[0]

    def build(sha256: str = DIGEST, url: str = server.url, gated: bool = False) -> Any:
        here = replace(nano, name="remote", family="sam3" if gated else "sam", url=url, gated=gated)
        monkeypatch.setattr(registry, "REGISTERED", [nano, here])
        monkeypatch.setattr(registry, "SHA256", {"remote": sha256})
        bench = open_bench()
        bench.widget.models.table.selectRow(1)
        return bench

    return build


def download(bench: Any) -> None:
    bench.widget.models.download.click()
    wait(bench)


def wait(bench: Any) -> None:
    models = bench.controller.models
    bench.qtbot.waitUntil(lambda: not (models.downloading.running or models.importing.running), timeout=60_000)


def row(bench: Any, number: int) -> list[str]:
    table = bench.widget.models.table
    return [table.item(number, column).text() for column in range(table.columnCount())]


def names(bench: Any) -> list[str]:
    box = bench.widget.images.model
    return [box.itemText(i) for i in range(box.count())]


def test_models_are_listed_with_what_they_can_do(shop: Any) -> None:
    bench = shop(gated=True)
    assert row(bench, 0) == ["nano", "yes", "13 MB", "stack, concept", "BSD-3-Clause", "nano"]
    assert row(bench, 1)[0] == "remote" and row(bench, 1)[1] == ""
    models = bench.widget.models
    assert models.download.isEnabled() and not models.use.isEnabled()
    models.table.selectRow(0)
    assert not models.download.isEnabled() and models.use.isEnabled()


def test_a_downloaded_model_answers_at_once(shop: Any, tmp_path: Path) -> None:
    bench, told = shop(), []
    bench.controller.models.downloading.progressed.connect(told.append)
    download(bench)
    assert (tmp_path / "cache/models/remote.pt").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert row(bench, 1)[1] == "yes"
    assert bench.widget.images.model.currentText() == bench.controller.stacks.model.name == "remote"


def test_cancel_keeps_what_has_arrived(shop: Any, server: Server, tmp_path: Path, warnings_shown: list[str]) -> None:
    bench, part = shop(), tmp_path / "cache/models/remote.pt.part"
    models, progress = bench.widget.models, bench.widget.models.progress
    server.pause = 1.0
    models.download.click()
    bench.qtbot.waitUntil(lambda: progress.value() > 0 and "of 5 MB" in progress.format(), timeout=10_000)
    assert models.cancel.isEnabled() and not models.download.isEnabled()
    models.cancel.click()
    wait(bench)
    server.pause = 0.0
    assert 0 < part.stat().st_size < len(CONTENT)
    assert "cancelled" in warnings_shown[-1] and names(bench) == ["nano"]
    download(bench)
    assert server.asked[-1].startswith("bytes=") and not part.exists()
    assert names(bench) == ["nano", "remote"]


def test_broken_connection_goes_on_the_next_time(shop: Any, server: Server, warnings_shown: list[str]) -> None:
    bench = shop()
    server.cut_after = 3_000_000
    download(bench)
    assert "try again" in warnings_shown[-1] and bench.widget.models.download.isEnabled()
    server.cut_after = 0
    download(bench)
    assert server.asked[-1].startswith("bytes=") and "remote" in names(bench)


@pytest.mark.parametrize(
    ("changed", "sentence"), [({"sha256": "0123"}, "not the file expected"), ({"path": "gone"}, "no file")]
)
def test_refusals_are_one_sentence(
    shop: Any, server: Server, changed: dict[str, str], sentence: str, warnings_shown: list[str]
) -> None:
    path = changed.pop("path", "model.pt")
    bench = shop(url=server.url.replace("model.pt", path), **changed)
    download(bench)
    assert sentence in warnings_shown[-1] and names(bench) == ["nano"]


def test_gated_models_want_a_token(shop: Any, server: Server, warnings_shown: list[str]) -> None:
    server.token = "secret"
    bench = shop(gated=True)
    models = bench.widget.models
    assert not models.token.isHidden() and server.url in models.licence.text()
    download(bench)
    assert "agree to the licence" in warnings_shown[-1]
    models.token.setText("secret")
    download(bench)
    assert "remote" in names(bench)
    assert models.token.isHidden()


def test_checkpoint_chosen_in_the_dialog(shop: Any, tmp_path: Path, monkeypatch: Any) -> None:
    bench, mine = shop(), tmp_path / "mine.safetensors"
    mine.write_bytes(NANO.read_bytes())
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *args: ([str(mine)], ""))
    bench.widget.models.bring.click()
    wait(bench)
    assert bench.widget.images.model.currentText() == bench.controller.stacks.model.name == "mine"
    assert row(bench, 2)[3:5] == ["stack, concept", "your own"]


def drop(bench: Any, *paths: Path) -> bool:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    bench.widget.dragEnterEvent(event)
    taken = event.isAccepted()
    bench.widget.dropEvent(event)
    wait(bench)
    bench.settle()
    return taken


def test_checkpoints_are_dropped_on_the_widget(shop: Any, tmp_path: Path, warnings_shown: list[str]) -> None:
    bench = shop()
    (tmp_path / "good one.safetensors").write_bytes(NANO.read_bytes())
    (tmp_path / "junk.pt").write_bytes(b"<html>")
    (tmp_path / "image.tif").write_bytes(b"")
    assert not drop(bench, tmp_path / "image.tif") and not warnings_shown
    assert drop(bench, tmp_path / "junk.pt")
    assert "junk.pt" in warnings_shown[-1] and names(bench) == ["nano"]
    # Several at once, with some among them that are none.
    (tmp_path / "another.safetensors").write_bytes(NANO.read_bytes())
    warnings_shown.clear()
    files = ("good one.safetensors", "junk.pt", "image.tif", "another.safetensors")
    assert drop(bench, *(tmp_path / name for name in files))
    assert names(bench) == ["nano", "another", "good one"]
    assert bench.widget.images.model.currentText() == "another", "the last that came"
    assert len([one for one in warnings_shown if "junk.pt" in one]) == 1


def test_precision_and_memory(shop: Any, monkeypatch: Any) -> None:
    import numpy as np

    bench, asked = shop(), []
    load = api.load_model
    monkeypatch.setattr(api, "load_model", lambda name, **how: asked.append(how) or load("disc"))
    monkeypatch.setattr(api, "free_memory", lambda model: 8_000_000_000)
    bench.widget.models.precision.setCurrentText("float32")
    bench.widget.models.device.setCurrentText("cpu")
    bench.viewer.add_image(np.random.default_rng(0).random((20, 20)))
    bench.controller.use_tool("points")
    bench.settle()
    assert asked == [{"device": "cpu", "dtype": "float32"}]
    assert bench.widget.models.memory.text() == "disc on cpu in float32, 8.0 GB of memory free"


@pytest.mark.parametrize("fails", ["embed", "predict"])
def test_when_a_gpu_runs_out_of_memory_the_cpu_goes_on(
    shop: Any, monkeypatch: Any, warnings_shown: list[str], fails: str
) -> None:
    import numpy as np

    class Full(DiscModel):
        """A model on a GPU without room."""

        device = "cuda:0"

    def refuse(*args: Any) -> None:
        raise InsufficientMemoryError("There is not enough memory for this.")

    setattr(Full, fails, refuse)
    bench = shop()
    monkeypatch.setattr(
        api, "load_model", lambda name, device, dtype: DiscModel("disc") if device == "cpu" else Full("disc")
    )
    bench.viewer.add_image(np.random.default_rng(0).random((20, 20)))
    bench.controller.use_tool("points")
    bench.settle()
    bench.click(10, 10)
    bench.settle()
    assert bench.widget.models.device.currentText() == "cpu"
    assert [text for text in warnings_shown if "memory" in text] == [
        "The memory of cuda:0 ran out: the CPU computes from now on, prompts stay and are asked again."
    ]
    assert bench.preview().any()


def test_the_address_of_another_computer_is_typed(shop: Any, monkeypatch: Any) -> None:
    import numpy as np
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    bench, asked = shop(), []
    load = api.load_model
    monkeypatch.setattr(api, "load_model", lambda name, **how: asked.append(how["device"]) or load("disc"))
    bench.viewer.add_image(np.random.default_rng(0).random((20, 20)))
    bench.controller.use_tool("points")
    bench.settle()
    line = bench.widget.models.device.lineEdit()
    line.clear()
    QTest.keyClicks(line, "tcp://10.0.0.7:8786")
    assert bench.controller.stacks.model.device == "auto", "not while it is typed"
    QTest.keyClick(line, Qt.Key.Key_Return)
    bench.settle()
    assert asked[-1] == "tcp://10.0.0.7:8786"
