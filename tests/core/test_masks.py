"""Masks: resampling, candidates and clean-up."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional as F

from napari_segany.core.masks import (
    Candidates,
    LogitsGrid,
    bounding_box,
    clear_specks,
    interior_point,
    linear_interpolation,
    mask_iou,
    paste,
    remove_small_parts,
)


@given(st.integers(1, 40), st.integers(1, 90))
def test_interpolation_equals_torch(n_in: int, n_out: int) -> None:
    signal = np.random.default_rng(n_in * 100 + n_out).normal(size=n_in).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(signal)[None, None], size=n_out, mode="linear", align_corners=False)
    np.testing.assert_allclose(linear_interpolation(n_in, n_out) @ signal, expected[0, 0].numpy(), rtol=1e-5, atol=2e-5)


def test_interpolation_of_a_part_equals_cutting_the_whole() -> None:
    whole = linear_interpolation(16, 64)
    part = linear_interpolation(16, 20, start=2.0, stop=7.0)
    np.testing.assert_allclose(part, whole[8:28], atol=1e-6)


def candidates(seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    logits = ndimage.gaussian_filter(rng.normal(size=(3, 16, 20)), (0, 2, 2)).astype(np.float32) * 20
    grid = LogitsGrid((70, 90), (5, 7), linear_interpolation(16, 48), linear_interpolation(20, 60))
    return Candidates(logits, np.array([0.5, 0.9, 0.7], dtype=np.float32), grid)


@pytest.mark.parametrize("seed", range(10))
def test_patches_equal_the_whole_resampled(seed: int) -> None:
    c = candidates(seed)
    for k in range(3):
        full = np.zeros((70, 90), dtype=bool)
        full[5:53, 7:67] = c.grid.upsample(c.logits[k]) > 0
        np.testing.assert_array_equal(c.masks[k], full)
        box, patch = c.patch(k)
        assert box == bounding_box(full)
        np.testing.assert_array_equal(paste((70, 90), box, patch), full)


def test_strategies() -> None:
    c = candidates()
    areas = (c.logits > 0).sum(axis=(1, 2))
    np.testing.assert_array_equal(c.best, c.masks[1])
    np.testing.assert_array_equal(c.select("largest"), c.masks[areas.argmax()])
    np.testing.assert_array_equal(c.select("smallest"), c.masks[areas.argmin()])
    with pytest.raises(ValueError, match="Unknown strategy"):
        c.select("nicest")  # type: ignore[arg-type]


def test_uncertainty_is_high_where_candidates_disagree() -> None:
    grid = LogitsGrid((8, 8), (0, 0), np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32))
    logits = np.full((2, 8, 8), -20, dtype=np.float32)
    logits[:, :4] = 20
    logits[1, 4:6] = 20
    u = Candidates(logits, np.ones(2, dtype=np.float32), grid).uncertainty
    assert (u[4:6] > 0.99).all() and (u[:4] < 0.01).all() and (u[6:] < 0.01).all()


def test_an_empty_mask_has_an_empty_patch() -> None:
    grid = LogitsGrid((8, 8), (0, 0), np.eye(8, dtype=np.float32), np.eye(8, dtype=np.float32))
    c = Candidates(np.full((1, 8, 8), -1, dtype=np.float32), np.ones(1, dtype=np.float32), grid)
    assert c.patch(0)[0] == (0, 0, 0, 0) and not c.best.any() and c.stability()[0] == 0


def test_stability_is_the_share_that_survives() -> None:
    grid = LogitsGrid((4, 4), (0, 0), np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
    logits = np.array([[[2, 2, 0.5, -0.5]] * 4], dtype=np.float32)
    assert Candidates(logits, np.ones(1, dtype=np.float32), grid).stability(1.0)[0] == pytest.approx(0.5)


def test_small_holes_and_islands_go() -> None:
    mask = np.zeros((30, 30), dtype=bool)
    mask[5:20, 5:20] = True
    mask[8:10, 8:10] = False  # hole of 4
    mask[12:17, 12:17] = False  # hole of 25
    mask[25, 25] = True
    clean = remove_small_parts(mask, 10)
    assert clean[8:10, 8:10].all() and not clean[12:17, 12:17].any() and not clean[25, 25]
    assert remove_small_parts(np.pad(np.ones((1, 1), bool), 3), 10).any(), "the only island stays"


@given(st.integers(0, 10_000))
def test_interior_point_is_inside_and_deepest(seed: int) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(20, 24)), 2) > 0.03
    if mask.any():
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        assert depth[interior_point(mask)] == depth.max()


def test_mask_iou() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(1 / 3)


def test_specks_are_cleared_and_small_objects_are_not() -> None:
    logits = np.full((12, 12), -5.0, dtype=np.float32)
    logits[2:9, 2:9] = 5.0
    logits[5, 5] = -5.0  # a hole
    logits[10, 10] = 5.0  # an island
    cleared = clear_specks(logits, 4)
    assert cleared[5, 5] == pytest.approx(0.1) and cleared[10, 10] == pytest.approx(-0.1)
    changed = cleared != logits
    assert changed.sum() == 2
    tiny = np.full((12, 12), -5.0, dtype=np.float32)
    tiny[3, 3:5] = 5.0
    np.testing.assert_array_equal(clear_specks(tiny, 4), tiny)
    np.testing.assert_array_equal(clear_specks(logits, 0), logits)
