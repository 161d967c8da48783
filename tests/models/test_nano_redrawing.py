"""Outlines that people draw otherwise than nano does are kept to on the frames around."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_segany import Session
from napari_segany.core.masks import mask_iou
from napari_segany.models.nano import redrawing
from napari_segany.models.nano.redrawing import Redrawn
from napari_segany.models.nano.weights import load_nano
from napari_segany.models.nano.windows import signed_depth
from tests.fakes import disc

CELLS = (64, 64)


def compared(given_radius: float, drawn_radius: float, level: int = 0) -> Redrawn:
    drawn = disc(CELLS, (30, 30), drawn_radius)
    return Redrawn.compare(signed_depth(disc(CELLS, (30, 30), given_radius)), drawn, level, iou=1.0)


@given(radius=st.floats(5, 12), wider=st.floats(-2, 2), way=st.tuples(st.integers(-8, 8), st.integers(-8, 8)))
def test_the_outline_is_moved_as_it_was_on_the_frame_that_was_given(
    radius: float, wider: float, way: tuple[int, int]
) -> None:
    centre = (30 + way[0], 30 + way[1])
    drawn, wanted = disc(CELLS, centre, radius), disc(CELLS, centre, radius + wider)
    # Logits that rise by as much for each cell as the correction assumes.
    logits = redrawing.LOGITS_PER_CELL * np.clip(signed_depth(drawn), -3, 3)
    corrected = logits + compared(radius + wider, radius).correction(drawn, 0, signed_depth(wanted)) > 0
    assert mask_iou(corrected, wanted) >= mask_iou(drawn, wanted)
    assert mask_iou(corrected, wanted) > 0.97


@given(drawn=st.floats(5, 12), last=st.floats(5, 12), wider=st.floats(-3, 3))
def test_the_outline_never_leaves_what_lies_between_it_and_the_last_mask(
    drawn: float, last: float, wider: float
) -> None:
    now, before = (signed_depth(disc(CELLS, (30, 30), radius)) for radius in (drawn, last))
    correction = compared(drawn + wider, drawn).correction(now > 0, 0, before)
    assert (correction[before >= now] >= 0).all() and (correction[before <= now] <= 0).all()
    corrected = redrawing.LOGITS_PER_CELL * np.clip(now, -3, 3) + correction > 0
    assert (corrected >= ((now > 0) & (before > 0))).all() and (corrected <= ((now > 0) | (before > 0))).all()


def test_it_matters_less_for_another_size_and_not_at_another_zoom_or_where_nothing_is_drawn() -> None:
    redrawn, same, smaller = compared(12, 10), disc(CELLS, (30, 30), 10), disc(CELLS, (30, 30), 5)
    last = signed_depth(disc(CELLS, (30, 30), 12))
    assert 0 < redrawn.correction(smaller, 0, last).max() < 0.5 * redrawn.correction(same, 0, last).max()
    for inside, level in ((same, 1), (np.zeros(CELLS, dtype=bool), 0)):
        assert not redrawn.correction(inside, level, last).any()


def test_half_an_object_stays_half_along_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    seen = np.stack([disc((128, 128), (50 + 2 * t, 60), 14) for t in range(7)])
    truth = seen & (np.arange(128)[:, None] < 58 + 2 * np.arange(7)[:, None, None])
    stack = (rng.normal(40, 5, seen.shape) + 120 * ndimage.gaussian_filter(seen * 1.0, (0, 1, 1))).astype(np.uint8)
    model, kept = load_nano(torch.device("cpu"), torch.float32), []
    for weight in (0.0, redrawing.LOGITS_PER_CELL):
        monkeypatch.setattr(redrawing, "LOGITS_PER_CELL", weight)
        session = Session(stack, axes="tyx", model=model)
        session.accept(1, 0, mask=truth[0])
        list(session.propagate())
        kept.append(np.mean([mask_iou(f == 1, t) for f, t in zip(np.asarray(session.labels), truth, strict=True)]))
    without, with_it = kept
    assert with_it > without + 0.01 and with_it > 0.85
