"""Keys and defaults that a person sets in the preferences of napari."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.utils.key_bindings import coerce_keybinding
from npe2 import PluginManifest

import napari_segany
from napari_segany.gui.keys import KEYS
from napari_segany.gui.timeline import Course

settings = pytest.importorskip("napari.settings", reason="napari")
if not hasattr(settings, "get_plugin_settings"):
    pytest.skip("this napari keeps no settings of plugins", allow_module_level=True)


@pytest.fixture
def preferences(plugin_settings: Any, npe2pm: Any) -> Any:
    npe2pm.register(PluginManifest.from_file(f"{napari_segany.__path__[0]}/napari.yaml"))
    return settings.get_plugin_settings("napari-segany")


def test_every_key_has_a_setting_with_the_same_default(preferences: Any) -> None:
    assert {name: getattr(preferences.shortcuts, name) for name in KEYS} == KEYS


def test_preferred_keys_are_bound_and_shown(preferences: Any, open_bench: Any) -> None:
    preferences.shortcuts.accept = "Shift-A"
    bench = open_bench(np.random.default_rng(0).random((20, 20)))
    assert "Shift-A" in bench.widget.prompts.accept.text()
    assert coerce_keybinding("J") not in bench.viewer.keymap
    bench.controller.use_tool("points")
    bench.click(10, 10)
    bench.key("Shift-A")
    assert bench.output[10, 10] == 1


def test_what_is_no_key_says_so(preferences: Any, open_bench: Any, warnings_shown: list[str]) -> None:
    preferences.shortcuts.accept = "Jump-7-"
    bench = open_bench(np.random.default_rng(0).random((20, 20)))
    assert any('"Jump-7-" is no key' in sentence for sentence in warnings_shown)
    bench.key("K")
    assert bench.controller.object_id == 1


def test_defaults_are_chosen_when_the_widget_opens(preferences: Any, open_bench: Any) -> None:
    preferences.defaults.model = "other"
    preferences.defaults.device = "cpu"
    preferences.defaults.autosave = False
    bench = open_bench()
    assert bench.controller.stacks.model.name == "other" and bench.controller.stacks.model.device == "cpu"
    assert not bench.controller.stacks.autosave and not bench.widget.images.autosave.isChecked()


def test_a_model_that_is_gone_is_not_missed(preferences: Any, open_bench: Any) -> None:
    preferences.defaults.model = "gone"
    assert open_bench().controller.stacks.model.name == "disc"


def test_icons_and_curves_follow_the_theme(open_bench: Any) -> None:
    bench = open_bench(show=True)
    timeline = bench.widget.propagate.timeline
    # Scores of a steady object: a level line.
    timeline.show_course(Course(9, dict.fromkeys(range(9), 0.5)), 0)

    def mean() -> float:
        image = bench.widget.prompts.boxes.icon().pixmap(32, 32).toImage()
        drawn = [image.pixelColor(x, y) for x in range(32) for y in range(32) if image.pixelColor(x, y).alpha() > 200]
        return float(np.mean([colour.lightness() for colour in drawn]))

    def contrast() -> float:
        bench.qtbot.wait(50)
        image, x = timeline.grab().toImage(), round(timeline.position_of(4))
        column = [image.pixelColor(x, y).getRgb()[:3] for y in range(image.height())]
        brightness = np.array(column) @ (0.3, 0.59, 0.11)
        return float(np.ptp(brightness))

    bench.viewer.theme = "dark"
    dark = mean()
    assert contrast() > 70
    bench.viewer.theme = "light"
    assert mean() < dark - 50
    assert contrast() > 70
