"""Motion of boxes."""

import numpy as np
import pytest

from napari_segany.core.boxes import box_iou
from napari_segany.core.motion import BoxMotion


def moving(frame: float) -> np.ndarray:
    """Two boxes: one drifts and grows, one stands still."""
    return np.array([[10 + 2 * frame, 20 + 3 * frame, 30 + 2.2 * frame, 50 + 3.3 * frame], [60.0, 60.0, 80.0, 75.0]])


def test_steady_motion_is_learned_and_goes_on_without_measurements() -> None:
    motion = BoxMotion(moving(0))
    for frame in range(1, 25):
        motion.predict()
        motion.update(moving(frame), np.array([True, True]))
    np.testing.assert_allclose(motion.predict(), moving(25), atol=1.0)
    np.testing.assert_allclose(motion.predict(3), moving(28), atol=2.5)


def test_each_filter_is_on_its_own() -> None:
    together, alone = BoxMotion(moving(0)), BoxMotion(moving(0)[:1])
    for frame in range(1, 6):
        together.predict()
        alone.predict()
        together.update(moving(frame), np.array([True, frame % 2 == 0]))
        alone.update(moving(frame)[:1], np.array([True]))
    np.testing.assert_allclose(together.boxes[:1], alone.boxes)


def test_uncertainty_grows_unseen_and_shrinks_when_seen() -> None:
    motion = BoxMotion(moving(0))
    motion.predict()
    before = np.trace(motion.covariance[1])
    motion.update(moving(1), np.array([False, True]))
    after = np.trace(motion.covariance[1])
    motion.predict()
    assert after < before < np.trace(covariance_after(3)) and np.trace(motion.covariance[1]) > after


def covariance_after(frames: int) -> np.ndarray:
    motion = BoxMotion(moving(0))
    motion.predict(frames)
    return motion.covariance[1]


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [0, 5, 10, 15], 1 / 3),
        ([0, 0, 10, 10], [20, 20, 30, 30], 0.0),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0.0),
    ],
)
def test_iou_of_boxes(a: list, b: list, iou: float) -> None:
    assert box_iou(np.array(a, float), np.array(b, float)) == pytest.approx(iou)
