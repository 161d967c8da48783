"""Objects along the stack: what is doubtful, giving them to each other, splitting, filling in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import napari_segany as segany
from napari_segany.core.errors import InvalidPromptError
from napari_segany.session.doubts import find_doubts
from napari_segany.session.track_session import blend
from tests.fakes import DiscModel, disc

SHAPE = (40, 80)


def planes(count: int = 8) -> np.ndarray:
    """Two discs that walk to the right, one above the other."""
    labels = np.zeros((count, *SHAPE), np.int32)
    for t in range(count):
        labels[t][disc(SHAPE, (10, 12 + 4 * t), 6)] = 1
        labels[t][disc(SHAPE, (28, 12 + 4 * t), 6)] = 2
    return labels


def found(labels: np.ndarray, scores: dict | None = None) -> list[tuple[int, int, str]]:
    return [(doubt.object_id, doubt.frame, doubt.reason) for doubt in find_doubts(labels, scores or {})]


def test_steady_objects_are_not_doubted() -> None:
    assert found(planes(), {(1, t): 0.9 for t in range(8)}) == []


def test_a_switch_is_noticed_on_both_objects() -> None:
    labels = planes()
    labels[5:] = np.array([0, 2, 1])[labels[5:]]
    assert found(labels) == [(1, 5, "switch"), (2, 5, "switch")]


def test_jumps_sizes_gaps_and_low_scores() -> None:
    labels = planes()
    labels[3][labels[3] == 2] = 0
    labels[6][labels[6] == 1] = 0
    labels[6][disc(SHAPE, (10, 70), 6)] = 1
    labels[5][disc(SHAPE, (28, 32), 11)] = 2
    scores = {(1, t): s for t, s in enumerate([0.9, 0.4, 0.2, 0.3, 0.9, 0.9, 0.9, 0.1])}
    assert found(labels, scores) == [
        (1, 6, "jump"),
        (1, 7, "jump"),
        (2, 5, "size"),
        (2, 6, "size"),
        (2, 4, "gap"),
        (1, 2, "score"),
        (1, 7, "score"),
    ]


def session(labels: np.ndarray | Path) -> segany.Session:
    stack = np.random.default_rng(0).random((8, *SHAPE))
    return segany.Session(stack, model=DiscModel(), labels=labels)


def test_objects_taper_off_without_doubt() -> None:
    labels = np.zeros((5, *SHAPE), np.int32)
    for t, radius in enumerate([3, 8, 9, 8, 3]):
        labels[t][disc(SHAPE, (20, 40), radius)] = 1
    assert found(labels) == []


def test_accepted_masks_are_right() -> None:
    labels = planes()
    labels[5:] = np.array([0, 2, 1])[labels[5:]]
    s = session(labels)
    s.accept(1, 5, mask=labels[5] == 1)
    assert [(doubt.object_id, doubt.reason) for doubt in s.doubts()[:1]] == [(2, "switch")]


def test_a_switch_is_mended_by_splitting_and_giving() -> None:
    labels = planes()
    truth = labels.copy()
    labels[5:] = np.array([0, 2, 1])[labels[5:]]
    wrong = labels.copy()
    s = session(labels)
    s.prompt(1, 6, points=[(28, 36)])
    new = s.split(1, 5)
    assert new == 3 and (3, 6) in s.prompts and (1, 6) not in s.prompts
    s.reassign(2, 1, 5)
    s.reassign(new, 2)
    np.testing.assert_array_equal(s.labels, truth)
    assert (2, 6) in s.prompts
    for _ in range(3):
        s.undo()
    np.testing.assert_array_equal(s.labels, wrong)
    assert set(s.prompts) == {(1, 6)}
    with pytest.raises(InvalidPromptError, match="not on these planes"):
        s.reassign(9, 1)
    with pytest.raises(InvalidPromptError, match="object 1 already"):
        s.reassign(1, 1)


def test_a_merge_is_in_the_journal(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).random((8, *SHAPE))
    path = tmp_path / "out.zarr"
    s = segany.Session(stack, model=DiscModel(), labels=path)
    for i in (1, 2):
        s.prompt(i, 3, points=[(10, 20 * i)])
        s.accept(i, 3)
    s.reassign(2, 1)
    labels = np.array(s.labels[3])
    s.close()
    again = segany.Session.open(path, stack=stack, model=DiscModel())
    assert set(again.accepted) == {(1, 3)} and again.clicks == {(1, 3): 1}
    np.testing.assert_array_equal(again.labels[3], labels)
    assert labels[10, 20] == labels[10, 40] == 1
    again.close()


def test_planes_between_are_filled_in() -> None:
    labels = planes()
    s = session(np.where(labels == 2, 2, 0))
    for frame in (1, 5):
        s.accept(1, frame, mask=labels[frame] == 1)
    assert s.interpolate(1) == [2, 3, 4]
    for frame in (2, 3, 4):
        now, wanted = np.asarray(s.labels[frame]) == 1, labels[frame] == 1
        assert (now & wanted).sum() / (now | wanted).sum() > 0.9
        assert (np.asarray(s.labels[frame]) == 2).sum() == (labels[frame] == 2).sum()
    s.undo()
    assert not any((np.asarray(s.labels[frame]) == 1).any() for frame in (2, 3, 4))
    with pytest.raises(InvalidPromptError, match="two planes first"):
        s.interpolate(2)


def test_a_blend_grows_from_the_one_to_the_other() -> None:
    small, large = disc(SHAPE, (20, 20), 4), disc(SHAPE, (20, 40), 10)
    areas = [blend(small, large, share).sum() for share in (0, 0.25, 0.5, 0.75, 1)]
    assert areas == sorted(areas) and areas[0] == small.sum() and areas[-1] == large.sum()
    ys, xs = np.nonzero(blend(small, large, 0.5))
    np.testing.assert_allclose((ys.mean(), xs.mean()), (20, 30), atol=0.3)
