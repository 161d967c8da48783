"""nano's memory: objects that move, hide, leave, and are followed both ways."""

import numpy as np
import pytest
import torch

from napari_segany import Session
from napari_segany.core.masks import mask_iou
from napari_segany.core.prompts import MASK_LOGIT, Prompt
from napari_segany.core.settings import PropagationSettings
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.tracker import GAP
from napari_segany.models.nano.weights import load_nano
from napari_segany.models.nano.windows import moved_along
from napari_segany.training.generate.stacks import cells_timelapse
from tests.fakes import disc

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shipped() -> NanoModel:
    return load_nano(CPU, torch.float32)


def discs(centres: list[tuple[float, float] | None], radius: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """Frames with one bright disc each, or none, on a dim noisy ground; and the discs."""
    rng = np.random.default_rng(0)
    truth = np.stack([np.zeros((128, 128), bool) if c is None else disc((128, 128), c, radius) for c in centres])
    return (rng.normal(40, 5, truth.shape) + 120 * truth).clip(0, 255).astype(np.uint8), truth


def followed(stack: np.ndarray, truth: np.ndarray, model: NanoModel, start: int = 0, **settings: bool) -> np.ndarray:
    session = Session(stack, axis=0, model=model)
    session.settings = PropagationSettings(depth=False, **settings)
    session.accept(1, start, mask=truth[start])
    list(session.propagate())
    return np.asarray(session.labels) == 1


def test_an_object_is_followed_both_ways(shipped: NanoModel) -> None:
    stack, truth = discs([(40 + 4 * t, 50 + 3 * t) for t in range(10)])
    found = followed(stack, truth, shipped, start=5)
    assert min(mask_iou(f, t) for f, t in zip(found, truth, strict=True)) > 0.8


def test_a_short_gap_is_bridged_and_a_long_one_ends_the_object(shipped: NanoModel) -> None:
    place: list[tuple[float, float] | None] = [(60, 60)] * 12
    for hidden, back in ((GAP - 1, True), (GAP + 2, False)):
        centres = [None if 4 <= t < 4 + hidden else c for t, c in enumerate(place)]
        stack, truth = discs(centres)
        stack[4 : 4 + hidden] = 0
        found = followed(stack, truth, shipped)
        assert not found[4 : 4 + hidden].any()
        assert (mask_iou(found[-1], truth[-1]) > 0.8) == back


def test_planes_that_are_not_numbers_hide_the_object_and_nothing_else(shipped: NanoModel) -> None:
    stack, truth = discs([(60, 60)] * 6)
    damaged = stack.astype(np.float32)
    damaged[3] = np.nan
    found = followed(damaged, truth, shipped)
    assert not found[3].any() and mask_iou(found[5], truth[5]) > 0.8


def test_motion_finds_what_moves_farther_than_its_own_size(shipped: NanoModel) -> None:
    steps = np.cumsum([0, 6, 9, 12, 14, 16, 16])
    stack, truth = discs([(64, 20 + x) for x in steps], radius=8.0)
    found = followed(stack, truth, shipped, motion=True)
    assert np.mean([mask_iou(f, t) for f, t in zip(found, truth, strict=True)]) > 0.7


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_last_outline_is_moved_a_share_of_the_way_to_where_the_object_is(share: float) -> None:
    last, now = disc((64, 64), (20, 30), 8), disc((64, 64), (28, 26), 8)
    depth = np.where(last, 1.0, -1.0)
    moved = moved_along(depth, last, now, share) > 0
    assert mask_iou(moved, disc((64, 64), (20 + 8 * share, 30 - 4 * share), 8)) > 0.95
    assert np.array_equal(moved_along(depth, last, np.zeros_like(now), share), depth), "there is nowhere to go"


def test_cells_keep_their_identity(shipped: NanoModel) -> None:
    stack, truth = cells_timelapse(np.random.default_rng(2), (12, 128, 128))
    session = Session(stack, axis=0, model=shipped)
    there = [int(i) for i in np.unique(truth)[1:] if (truth == i).any(axis=(1, 2)).all()][:6]
    for object_id in there:
        session.accept(object_id, 6, mask=truth[6] == object_id)
    list(session.propagate())
    labels = np.asarray(session.labels)
    assert np.mean([mask_iou(labels == i, truth == i) for i in there]) > 0.8


def test_what_is_kept_does_not_grow(shipped: NanoModel) -> None:
    stack, truth = discs([(60, 60)])
    shown, tracker = shipped.embed(stack[0]), shipped.tracker(50)
    known = Prompt(mask=np.where(truth[0], MASK_LOGIT, -MASK_LOGIT).astype(np.float32))
    tracker.condition(0, shown, {1: known})
    for frame in range(1, 8):
        tracker.follow(frame, shown, [1])
    assert len(tracker.latest) == 1 and len(tracker.given[1]) == 1
