"""Points and boxes become masks on every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest
from tests.fakes import RADIUS, disc


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)


def test_click_preview_accept_next(open_bench):
    bench = open_bench(image(40, 60))
    bench.press("points")
    bench.settle()
    bench.click(20, 30)
    np.testing.assert_array_equal(bench.preview(), disc((40, 60), (20, 30), RADIUS))
    bench.press("accept")
    bench.settle()
    np.testing.assert_array_equal(bench.output, disc((40, 60), (20, 30), RADIUS))
    assert bench.widget.prompts.object_id.value() == 2
    assert not bench.preview().any()
