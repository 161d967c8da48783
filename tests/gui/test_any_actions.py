"""A person who clicks, accepts, undoes, leafs and propagates at random, in the real window, against plain arrays.

``STEPS=50`` in the environment does fifty times as much.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

SHAPE = (4, 40, 60)
ACTIONS = 60 * int(os.environ.get("STEPS", "1"))


class Person:
    """Gestures in the window, and what the labels have to be after each of them."""

    def __init__(self, bench: Any, seed: int) -> None:
        self.bench, self.rng = bench, np.random.default_rng(seed)
        self.labels = np.zeros(SHAPE, np.int64)
        self.past: list[np.ndarray] = []
        self.future: list[np.ndarray] = []
        self.frame = 0

    @property
    def shown(self) -> np.ndarray:
        """What the labels layer holds."""
        return np.asarray(self.bench.output) if "Segmentation" in self.bench.viewer.layers else np.zeros(SHAPE, int)

    def did(self, labels: np.ndarray) -> None:
        self.past.append(self.labels)
        self.future.clear()
        self.labels = labels

    def click(self) -> None:
        self.bench.click(self.frame, *(self.rng.integers(0, extent) for extent in SHAPE[1:]))
        self.did(self.labels)

    def accept(self) -> None:
        current = self.bench.controller.object_id
        preview = self.bench.preview()
        self.bench.key("J")
        if preview.ndim == 2 and (preview == current).any():
            labels = self.labels.copy()
            plane = labels[self.frame]
            plane[plane == current] = 0
            plane[(preview == current) & (plane == 0)] = current
            self.did(labels)

    def undo(self) -> None:
        self.bench.key("U")
        if self.past:
            self.future.append(self.labels)
            self.labels = self.past.pop()

    def redo(self) -> None:
        self.bench.key("Shift-U")
        if self.future:
            self.past.append(self.labels)
            self.labels = self.future.pop()

    def leaf(self) -> None:
        self.frame = int(self.rng.integers(SHAPE[0]))
        self.bench.viewer.dims.set_current_step(0, self.frame)
        self.bench.settle()

    def next_object(self) -> None:
        self.bench.key("K")

    def propagate(self) -> None:
        if not self.past:
            return
        before = self.labels
        self.bench.propagate()
        after = self.shown.copy()
        if not np.array_equal(before, after):
            self.did(after)
        taken = (before > 0) & (after != before) & (after > 0)
        assert not taken.any(), "an object took pixels of another"


@pytest.mark.parametrize("seed", range(2))
def test_labels_are_what_plain_arrays_say(open_bench: Any, seed: int) -> None:
    bench = open_bench(np.zeros(SHAPE, np.uint8), axis_labels=("z", "y", "x"))
    bench.viewer.dims.set_current_step(0, 0)
    bench.press("points")
    bench.settle()
    person = Person(bench, seed)
    actions = {"click": 6, "accept": 5, "undo": 3, "redo": 2, "leaf": 3, "next_object": 1}
    names, weights = list(actions), np.array(list(actions.values())) / sum(actions.values())
    done = []
    for _ in range(ACTIONS):
        done.append(str(person.rng.choice(names, p=weights)))
        getattr(person, done[-1])()
        np.testing.assert_array_equal(person.shown, person.labels, err_msg=f"after {done}")
    assert person.labels.any() and done.count("undo") > 3
