"""Objects of volumes over time: found in depth, linked in time, divided."""

import numpy as np
import pytest

from napari_segany.core.errors import InvalidPromptError, UnsupportedError
from napari_segany.core.settings import TrackSettings
from napari_segany.io.volumes import MemoryVolumes
from napari_segany.session.volume_session import VolumeSession
from tests.session.conftest import ArrayFrames
from tests.session.test_finding import Islands


def boxes(*solids: dict[int, tuple[slice, slice, slice]], times: int = 5) -> np.ndarray:
    """A stack (T, Z, Y, X) in which each solid fills a box at the times it names."""
    stack = np.zeros((times, 6, 48, 64), dtype=np.uint8)
    for solid in solids:
        for time, window in solid.items():
            stack[(time, *window)] = 255
    return stack


def run(stack: np.ndarray, settings: TrackSettings | None = None) -> VolumeSession:
    session = VolumeSession(lambda t: ArrayFrames(stack[t]), len(stack), Islands(), MemoryVolumes(stack.shape))  # type: ignore[arg-type]
    visited = [time for time, _ in session.track("island", settings=settings)]
    assert visited == list(range(len(stack)))
    return session


def moving(y: int, speed: int, depth: slice = slice(1, 5)) -> dict[int, tuple[slice, slice, slice]]:
    return {t: (depth, slice(y, y + 10), slice(4 + speed * t, 16 + speed * t)) for t in range(5)}


def test_objects_keep_their_ids_in_depth_and_over_time() -> None:
    stack = boxes(moving(2, 3), moving(20, 8, slice(0, 3)), moving(36, 0))
    session = run(stack)
    labels = np.asarray(session.labels)
    np.testing.assert_array_equal(labels > 0, stack > 0)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for y in (5, 25, 40):
        assert len(np.unique(labels[:, :, y][labels[:, :, y] > 0])) == 1
    assert [(track.first, track.last, track.parent) for track in session.tracks] == [(0, 4, 0)] * 3


def test_objects_above_one_another_are_two() -> None:
    """They are one in every view from above; only depth tells them apart."""
    place = slice(10, 22), slice(10, 22)
    low, high = (dict.fromkeys(range(5), (depth, *place)) for depth in (slice(0, 2), slice(4, 6)))
    session = run(boxes(low, high), TrackSettings(keep_alive=0))
    labels = np.asarray(session.labels)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert set(np.unique(labels[:, 0])) == {0, 1} and set(np.unique(labels[:, 5])) == {0, 2}


def test_a_division_in_depth_makes_two_daughters() -> None:
    place = slice(10, 22), slice(10, 22)
    whole = dict.fromkeys(range(3), (slice(0, 6), *place))
    low, high = (dict.fromkeys((3, 4), (depth, *place)) for depth in (slice(0, 2), slice(4, 6)))
    session = run(boxes(whole, low, high), TrackSettings(divisions=True, keep_alive=0))
    assert [(t.object_id, t.first, t.last, t.parent) for t in session.tracks] == [
        (1, 0, 2, 0),
        (2, 3, 4, 1),
        (3, 3, 4, 1),
    ]
    assert all(track.parent == 0 for track in run(boxes(whole, low, high), TrackSettings(keep_alive=0)).tracks)


def test_objects_appear_vanish_and_outlive_a_gap() -> None:
    seen = moving(2, 1)
    gap = {t: window for t, window in moving(30, 1).items() if t != 2}
    late = {t: window for t, window in moving(16, 0).items() if t >= 3}
    session = run(boxes(seen, gap, late))
    assert [(track.first, track.last) for track in session.tracks] == [(0, 4), (0, 4), (3, 4)]
    assert 2 not in np.asarray(session.labels)[2]


def test_bad_requests_are_one_sentence() -> None:
    stack = boxes(moving(2, 1))
    session = VolumeSession(lambda t: ArrayFrames(stack[t]), len(stack), Islands(), MemoryVolumes(stack.shape))  # type: ignore[arg-type]
    for call, error, words in (
        (lambda: session.track(), InvalidPromptError, "Say what to look for"),
        (lambda: session.track("island", at=(7, 0)), InvalidPromptError, "no plane 0 at time 7"),
        (lambda: session.track(exemplars=[(1, 1, 1, 4)]), InvalidPromptError, "covers no"),
        (lambda: session.track("island", settings=TrackSettings.published()), UnsupportedError, "no volumes"),
    ):
        with pytest.raises(error, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
