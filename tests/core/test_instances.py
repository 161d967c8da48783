"""Many objects of one image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_segany.core.boxes import box_iou
from napari_segany.core.instances import Instances, non_maximum_suppression
from napari_segany.core.masks import bounding_box


def instances_of(masks: list[np.ndarray], scores: list[float]) -> Instances:
    found = []
    for mask in masks:
        box = bounding_box(mask)
        found.append((box, mask[box[0] : box[2], box[1] : box[3]]))
    return Instances.from_patches(masks[0].shape, found, scores)


def test_masks_come_back_and_the_better_object_wins() -> None:
    a, b = np.zeros((10, 12), bool), np.zeros((10, 12), bool)
    a[1:6, 1:6], b[4:9, 4:9] = True, True
    found = instances_of([a, b], [0.9, 0.5])
    assert len(found) == 2 and found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.mask(0), a)
    np.testing.assert_array_equal(found.mask(1), b)
    assert found.labels[4, 4] == 1 and found.labels[8, 8] == 2


def test_no_objects() -> None:
    none = Instances.from_patches((5, 6), [], [])
    assert len(none) == 0 and none.boxes.shape == (0, 4) and none.labels.shape == (5, 6)


boxes = st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 15)] * 2), min_size=1, max_size=25)


@given(boxes, st.floats(0.1, 0.9))
def test_suppression_keeps_no_overlapping_pair_and_covers_all(raw: list[tuple], threshold: float) -> None:
    array = np.array([(y, x, y + h, x + w) for y, x, h, w in raw], dtype=np.float64)
    scores = np.random.default_rng(len(raw)).random(len(raw))
    kept = non_maximum_suppression(array, scores, threshold)
    for i in kept:
        others = [j for j in kept if j != i]
        assert (box_iou(array[i], array[others]) <= threshold).all()
    for i in set(range(len(raw))) - set(kept):
        better = [j for j in kept if scores[j] >= scores[i]]
        assert (box_iou(array[i], array[better]) > threshold).any()


def test_box_iou_counts_pixels() -> None:
    first = np.array([0.0, 0, 10, 10])
    assert box_iou(first, np.array([[0.0, 5, 10, 15], [20, 20, 30, 30]])) == pytest.approx([1 / 3, 0])
