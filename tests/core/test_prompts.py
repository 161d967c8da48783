"""Prompts are checked before a model sees them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.prompts import MASK_LOGIT, check_boxes, make_prompt


def test_labels_default_to_inside() -> None:
    prompt = make_prompt((10, 12), points=[(1, 2), (3.5, 4)])
    assert prompt.labels.tolist() == [1, 1] and not prompt.is_ambiguous
    assert make_prompt((10, 12), points=[(1, 2)]).is_ambiguous


@pytest.mark.parametrize("point", [(-0.5, -0.5), (9.49, 11.49), (0, 0)])
def test_the_edges_of_the_outermost_pixels_are_inside(point: tuple[float, float]) -> None:
    make_prompt((10, 12), points=[point])


@pytest.mark.parametrize("point", [(-0.6, 0), (9.5, 0), (0, 11.5), (np.inf, 0)])
def test_points_outside_are_refused(point: tuple[float, float]) -> None:
    with pytest.raises(InvalidPromptError):
        make_prompt((10, 12), points=[point])


@pytest.mark.parametrize(("labels", "points"), [([1, 2], [(1, 1), (2, 2)]), ([1], [(1, 1), (2, 2)]), ([1], None)])
def test_labels_must_fit(labels: list[int], points: list | None) -> None:
    with pytest.raises(InvalidPromptError):
        make_prompt((10, 12), points=points, labels=labels)


@given(st.tuples(*[st.floats(-50, 50)] * 4))
def test_boxes_are_inside_or_refused(box: tuple[float, float, float, float]) -> None:
    try:
        (clipped,) = check_boxes((10, 12), [box])
    except InvalidPromptError:
        return
    y0, x0, y1, x1 = clipped
    assert 0 <= y0 < y1 <= 10 and 0 <= x0 < x1 <= 12


def test_masks_become_logits() -> None:
    mask = np.zeros((10, 12), dtype=np.uint16)
    mask[2:4, 2:4] = 7
    logits = make_prompt((10, 12), mask=mask).mask
    assert logits is not None and logits.dtype == np.float32
    assert set(np.unique(logits)) == {-MASK_LOGIT, MASK_LOGIT} and (logits > 0).sum() == 4
    with pytest.raises(InvalidPromptError, match="finite"):
        make_prompt((10, 12), mask=np.full((10, 12), np.nan))


def test_merging_adds_points_and_takes_the_later_box() -> None:
    first = make_prompt((10, 12), points=[(1, 1)], box=(0, 0, 5, 5))
    second = make_prompt((10, 12), points=[(2, 2)], labels=[0], box=(1, 1, 6, 6))
    both = first.merged(second)
    assert both.labels.tolist() == [1, 0] and both.box is not None and both.box[0] == 1
