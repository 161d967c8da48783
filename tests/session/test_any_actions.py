"""Whatever a person does, in whatever order: the session does what a model of it as simple as can be does.

``STEPS=50`` in the environment tries fifty times as much.
"""

import copy
import json
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from napari_segany import api
from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.state import TABLES, ImageReference, SessionState
from napari_segany.io.session_store import replay
from napari_segany.io.state_codec import encode_value
from napari_segany.session.propagating_session import PropagatingSession as Session
from tests.fakes import RADIUS, DiscModel, disc
from tests.session.conftest import ArrayFrames, ArrayLabels

SHAPE = (5, 24, 30)
STACK = np.zeros(SHAPE, np.uint8)
REFERENCE = ImageReference(None, "zyx", "z", {}, SHAPE, IntensityRange((0.0,), (255.0,)))
MORE = int(os.environ.get("STEPS", "1"))

objects = st.integers(1, 3)
frames = st.integers(0, SHAPE[0] - 1)
places = st.tuples(st.integers(0, SHAPE[1] - 1), st.integers(0, SHAPE[2] - 1))
radii = st.integers(1, 9)


class Reference:
    """What a session has to remember, in plain arrays and dictionaries."""

    def __init__(self) -> None:
        self.labels = np.zeros(SHAPE, np.int32)
        self.prompts: dict[tuple[int, int], list[tuple]] = {}
        self.accepted: set[tuple[int, int]] = set()
        self.scores: dict[tuple[int, int], float] = {}

    def accept(self, key: tuple[int, int], mask: np.ndarray, score: float, overwrite: bool) -> None:
        object_id, frame = key
        plane = self.labels[frame]
        plane[plane == object_id] = 0
        plane[mask & (overwrite | (plane == 0))] = object_id
        self.accepted.add(key)
        self.scores[key] = score

    def preview(self, key: tuple[int, int]) -> np.ndarray:
        """What a model that draws discs makes of the prompts of an object."""
        mask = np.zeros(SHAPE[1:], bool)
        for place, label in self.prompts[key]:
            if label:
                mask |= disc(SHAPE[1:], place, RADIUS)
        for place, label in self.prompts[key]:
            if not label:
                mask &= ~disc(SHAPE[1:], place, RADIUS)
        return mask


class InMemory(RuleBasedStateMachine):
    """One session and one reference, side by side; its journal is a list."""

    session: Session

    @initialize()
    def begin(self) -> None:
        self.now, self.past, self.future = Reference(), [], []
        self.open()

    def open(self) -> None:
        self.events: list[dict] = []
        self.store = ArrayLabels(SHAPE)
        self.session = Session(ArrayFrames(STACK), DiscModel(), self.store, self.events.extend)

    def open_again(self, save: bool) -> None:
        state = SessionState(REFERENCE, "disc")
        for event in self.events:
            value = {"value": encode_value(event["table"], event["value"])} if "table" in event else {}
            replay(state, json.loads(json.dumps({**event, **value})))
        self.session = Session(ArrayFrames(STACK), DiscModel(), self.store, self.events.extend)
        for table in TABLES:
            getattr(self.session, table).update(getattr(state, table))

    def step(self) -> None:
        """What is done next can be taken back to here."""
        self.past.append(copy.deepcopy(self.now))
        self.future.clear()

    @rule(object_id=objects, frame=frames, place=places, label=st.integers(0, 1), replace=st.booleans())
    def prompt(self, object_id: int, frame: int, place: tuple, label: int, replace: bool) -> None:
        mask = self.session.prompt(object_id, frame, points=[place], labels=[label], replace=replace)
        self.step()
        key = object_id, frame
        known = [] if replace else self.now.prompts.get(key, [])
        self.now.prompts[key] = [*known, (place, label)]
        np.testing.assert_array_equal(mask, self.now.preview(key))

    @rule(object_id=objects, frame=frames)
    def forget(self, object_id: int, frame: int) -> None:
        self.session.forget(object_id, frame)
        if (object_id, frame) in self.now.prompts:
            self.step()
            del self.now.prompts[object_id, frame]

    @rule(object_id=objects, frame=frames, overwrite=st.booleans())
    def accept(self, object_id: int, frame: int, overwrite: bool) -> None:
        key = object_id, frame
        if key not in self.now.prompts:
            try:
                self.session.accept(object_id, frame, overwrite=overwrite)
            except InvalidPromptError:
                return
            raise AssertionError("there was nothing to accept")
        self.session.accept(object_id, frame, overwrite=overwrite)
        self.step()
        self.now.accept(key, self.now.preview(key), float(np.float32(0.9)), overwrite)

    @rule(object_id=objects, frame=frames, place=places, radius=radii, overwrite=st.booleans())
    def draw(self, object_id: int, frame: int, place: tuple, radius: int, overwrite: bool) -> None:
        mask = disc(SHAPE[1:], place, radius)
        self.session.accept(object_id, frame, mask=mask, overwrite=overwrite)
        self.step()
        self.now.accept((object_id, frame), mask, 1.0, overwrite)

    @rule(object_id=objects)
    def remove(self, object_id: int) -> None:
        now = self.now
        keys = [key for key in {*now.prompts, *now.accepted, *now.scores} if key[0] == object_id]
        self.session.remove(object_id)
        if keys or (now.labels == object_id).any():
            self.step()
        self.now.labels[self.now.labels == object_id] = 0
        for key in keys:
            self.now.prompts.pop(key, None)
            self.now.scores.pop(key, None)
            self.now.accepted.discard(key)

    @precondition(lambda self: self.now.accepted or self.now.prompts)
    @rule(stop=st.integers(1, SHAPE[0]), direction=st.sampled_from(["both", "forward", "backward"]))
    def propagate(self, stop: int, direction: Any) -> None:
        """What a run finds is the tracker's affair; that it is one step, and touches nothing accepted, is checked."""
        before = copy.deepcopy(self.now)
        try:
            run = self.session.propagate(direction=direction)
        except InvalidPromptError:
            # Only what was accepted as empty is known.
            return
        visited = [frame for frame, _ in islice(run, stop)]
        run.close()
        labels = np.array(self.session.labels)
        for object_id, frame in before.accepted:
            np.testing.assert_array_equal(labels[frame] == object_id, before.labels[frame] == object_id)
        untouched = sorted(set(range(SHAPE[0])) - set(visited))
        np.testing.assert_array_equal(labels[untouched], before.labels[untouched])
        if (labels != before.labels).any() or self.session.scores != before.scores:
            self.step()
        self.now.labels, self.now.scores = labels, dict(self.session.scores)

    @rule()
    def undo(self) -> None:
        assert (self.session.undo() is None) == (not self.past)
        if self.past:
            self.future.append(self.now)
            self.now = self.past.pop()

    @rule()
    def redo(self) -> None:
        assert (self.session.redo() is None) == (not self.future)
        if self.future:
            self.past.append(self.now)
            self.now = self.future.pop()

    @rule(save=st.booleans())
    def reopen(self, save: bool) -> None:
        """Close the program, with or without saving, and go on with what is on the disk."""
        self.open_again(save)
        self.past, self.future = [], []

    @invariant()
    def agree(self) -> None:
        session, now = self.session, self.now
        np.testing.assert_array_equal(np.array(session.labels), now.labels)
        prompts = {
            key: [(tuple(point), int(label)) for point, label in zip(one.points, one.labels, strict=True)]
            for key, one in session.prompts.items()
        }
        assert prompts == now.prompts and set(session.accepted) == now.accepted and session.scores == now.scores
        known = {i for i, _ in (*now.prompts, *now.accepted, *now.scores)}
        assert session.next_object_id() == max(known, default=0) + 1


class OnDisk(InMemory):
    """The same with labels, state and journal in a folder."""

    session: api.Session

    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "work.zarr"
        self.session = api.Session(STACK, model=DiscModel(), labels=self.path)

    def open_again(self, save: bool) -> None:
        if save:
            self.session.save(self.path)
        self.session.close()
        self.session = api.Session.open(self.path, stack=STACK, model=DiscModel())

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.session.close()
            self.folder.cleanup()


def many(examples: int) -> settings:
    """So many people who do 25 things each."""
    return settings(
        max_examples=MORE * examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )


TestInMemory, TestOnDisk = InMemory.TestCase, OnDisk.TestCase
TestInMemory.settings, TestOnDisk.settings = many(60), many(3)
