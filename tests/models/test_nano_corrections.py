"""Several clicks on one object, each of which may correct what was drawn before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import napari_segany as segany
from napari_segany.core.masks import bounding_box, interior_point, mask_iou, paste
from napari_segany.core.prompts import Prompt
from napari_segany.models import registry
from napari_segany.models.nano.corrections import Correction, Drawn, as_corrections
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.views import N_CELLS, OUTSIDE, View

BOX = np.array([10.0, 10.0, 90.0, 90.0])


def prompt(*clicks: tuple[float, float, int], box: np.ndarray | None = None) -> Prompt:
    places = np.array([click[:2] for click in clicks], dtype=np.float64).reshape(-1, 2)
    return Prompt(places, np.array([click[2] for click in clicks], dtype=np.int64), box)


class LeftHalf:
    """Answers every prompt with the left half of a window of 256 pixels, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []

    def __call__(self, prompts: Sequence[Prompt]) -> list[Drawn]:
        self.asked += prompts
        logits = np.full((N_CELLS, N_CELLS), -5.0, dtype=np.float32)
        logits[:, : N_CELLS // 2] = 5.0
        return [Drawn(View(0, (0, 0)), logits) for _ in prompts]


def test_only_clicks_that_contradict_are_answered_before_the_last() -> None:
    ask = LeftHalf()
    # The second click agrees with what the first found, the third and fourth do not.
    clicks = prompt((50, 50, 1), (50, 90, 1), (50, 200, 1), (50, 20, 0), (9, 9, 1))
    (found,) = as_corrections([clicks], ask, {})
    assert [len(asked.points) for asked in ask.asked] == [1, 3, 4]
    assert [isinstance(asked, Correction) for asked in ask.asked] == [False, True, True]
    assert isinstance(found, Correction) and (found.points == clicks.points).all()


def test_a_box_comes_before_its_clicks() -> None:
    ask = LeftHalf()
    found = as_corrections([prompt((50, 200, 1), (60, 60, 1), box=BOX), prompt((50, 50, 1))], ask, {})
    assert [len(asked.points) for asked in ask.asked] == [0, 1]
    assert all(asked.box is not None for asked in ask.asked)
    assert isinstance(found[0], Correction) and not isinstance(found[1], Correction)


def test_an_object_begins_with_the_first_click_on_it() -> None:
    ask = LeftHalf()
    as_corrections([prompt((5, 5, 0), (50, 50, 1), (50, 200, 1), (1, 1, 1))], ask, {})
    assert [asked.labels.tolist() for asked in ask.asked] == [[0, 1], [0, 1, 1]]


def test_what_cannot_be_corrected_stays_as_it_is() -> None:
    ask = LeftHalf()
    nothing_inside = prompt((5, 5, 0), (50, 50, 0))
    masked = Prompt(np.array([[50.0, 50], [50, 200]]), np.ones(2, np.int64), None, np.zeros((256, 256), np.float32))
    alone = [prompt((5, 5, 1)), prompt(box=BOX), nothing_inside, masked]
    assert as_corrections(alone, ask, {}) == alone and not ask.asked
    assert as_corrections([], ask, {}) == []


def test_each_further_click_costs_one_answer() -> None:
    ask, known = LeftHalf(), {}
    clicks = [(50, 50, 1), (50, 200, 1), (50, 20, 0), (80, 230, 1)]
    for count in range(1, 5):
        before = len(ask.asked)
        as_corrections([prompt(*clicks[:count])], ask, known)
        assert len(ask.asked) - before == min(count - 1, 1)


def test_a_thousand_clicks_are_no_trouble() -> None:
    many = prompt(*((50, float(x), 1) for x in np.linspace(0, 100, 1000)))
    ask = LeftHalf()
    assert isinstance(as_corrections([many], ask, {})[0], Correction) and len(ask.asked) == 1


@given(
    arrays(np.float32, (N_CELLS, N_CELLS), elements=st.floats(-8, 8, width=32)),
    st.integers(-3, 3),
    st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
)
def test_the_same_view_shows_the_same(logits: np.ndarray, level: int, origin: tuple[int, int]) -> None:
    view = View(level, (8 * origin[0], 8 * origin[1]))
    assert (view.resampled(view, logits) == logits).all()
    moved = View(level, (view.origin[0] + 16, view.origin[1] - 8)).resampled(view, logits)
    np.testing.assert_allclose(moved[:-4, 2:], logits[4:, :-2], atol=1e-4)
    assert (moved[-4:] == OUTSIDE).all() and (moved[:, :2] == OUTSIDE).all()


@pytest.fixture(scope="module")
def shipped() -> NanoModel:
    model = registry.load_model("nano", device="cpu")
    assert isinstance(model, NanoModel)
    return model


def next_click(truth: np.ndarray, drawn: np.ndarray) -> tuple[float, float, int]:
    missed, extra = truth & ~drawn, drawn & ~truth
    error = missed if missed.sum() >= extra.sum() else extra
    y, x = interior_point(error)
    return y, x, int(error is missed)


def test_corrections_draw_better_than_all_clicks_at_once(shipped: NanoModel) -> None:
    ious = []
    for kind in ("cells", "bacteria", "histology"):
        for seed in range(3):
            image, labels = segany.samples.image(kind, seed=seed)
            embedding = shipped.embed(image)
            ids, areas = np.unique(labels, return_counts=True)
            for object_id in ids[(ids > 0) & (areas > 60)][:6]:
                truth = labels == object_id
                clicks = [(*interior_point(truth), 1)]
                for _ in range(2):
                    clicks.append(next_click(truth, shipped.predict(embedding, [prompt(*clicks)])[0].best))
                own = shipped.predict(embedding, [prompt(*clicks)])[0].best
                views, looks = shipped.looks(embedding, [prompt(*clicks)])
                logits, _ = looks[0][views[0]]
                at_once = paste(truth.shape, *views[0].grid(truth.shape).patch(logits[0]))
                ious.append((mask_iou(own, truth), mask_iou(at_once, truth)))
    corrected, at_once = np.mean(ious, axis=0)
    assert corrected > at_once + 0.005


def test_an_answer_does_not_depend_on_what_was_asked_before(shipped: NanoModel) -> None:
    image, labels = segany.samples.image("cells", seed=3)
    truth = labels == np.bincount(labels[labels > 0]).argmax()
    y0, x0, y1, x1 = bounding_box(truth)
    clicks = [(*interior_point(truth), 1), (y0 + 1, x0 + 1, 0), (y1 - 2, x1 - 2, 0)]
    fresh, used = shipped.embed(image), shipped.embed(image)
    for count in (1, 2):
        shipped.predict(used, [prompt(*clicks[:count])])
    a, b = (shipped.predict(embedding, [prompt(*clicks)])[0] for embedding in (fresh, used))
    assert mask_iou(a.best, b.best) > 0.99
