"""Annotated images out of public repositories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import line

from napari_segany.training import public
from napari_segany.training.folder import read_folder, read_stacks


def rods(*ends: tuple[int, int, int, int], half_width: float = 5.0) -> np.ndarray:
    """How likely bacteria are, where rods run between two ends (y, x)."""
    nearest = np.full((120, 160), np.inf)
    for one in ends:
        spine = np.ones(nearest.shape, dtype=bool)
        spine[line(*one)] = False
        nearest = np.minimum(nearest, ndimage.distance_transform_edt(spine))
    return np.clip(half_width + 0.5 - nearest, 0, 1)


def test_rods_side_by_side_are_two_bacteria() -> None:
    touching = rods((50, 30, 50, 120), (60, 30, 60, 120))
    assert len(np.unique(ndimage.label(touching > 0.45)[0])) == 2, "a threshold takes them for one"
    labels = public.bacteria(touching)
    assert labels.max() == 2
    assert (labels[46, 40:110] != labels[64, 40:110]).all()
    assert (labels > 0).sum() == pytest.approx((touching > 0.45).sum(), rel=0.02)


def test_what_forks_is_left_out() -> None:
    forked = rods((60, 20, 60, 80), (60, 80, 20, 140), (60, 80, 100, 140), (105, 10, 105, 60))
    labels = public.bacteria(forked)
    assert labels.max() == 1 and labels[105, 30] == 1 and not labels[60, 40]


def test_nothing_is_found_in_nothing() -> None:
    assert not public.bacteria(np.zeros((40, 50))).any()


def clone(folder: Path) -> tuple[Path, Path]:
    """What the two repositories hold, on a small scale."""
    from skimage.io import imsave

    masks = folder / "misic" / "images" / "Masks"
    masks.mkdir(parents=True)
    shown = (255 * rods((50, 30, 50, 120))).astype(np.uint8)
    imsave(masks / "Exemple1_Phase_mask.tif", shown, check_contrast=False)
    imsave(masks.parent / "Exemple1_Phase.tif", 255 - shown, check_contrast=False)
    frames = np.stack([shown] * 5)
    imsave(masks / "Exemple7_time_lapse_mask.tif", frames, check_contrast=False)
    imsave(masks.parent / "Exemple7_time_lapse.tif", 255 - frames, check_contrast=False)
    for cells in (8, 16):
        stack = np.zeros((12, 40, 50), dtype=np.uint8)
        stack[3:9, 5:15, 5:15] = stack[2:8, 22:33, 20:34] = 255
        embryo = folder / "qcanet" / "example_datasets" / f"{cells}_cell_stage"
        embryo.mkdir(parents=True)
        imsave(embryo / "image.tif", stack, check_contrast=False)
        imsave(embryo / "segmentation_gt.tif", stack, check_contrast=False)
    return folder / "misic", folder / "qcanet"


def test_images_are_added_to_a_folder_and_not_twice(tmp_path: Path) -> None:
    ours, theirs = clone(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    assert public.add(folder, public.misic(ours)) == 4
    assert public.add(folder, public.qcanet(theirs)) == public.add(folder, public.qcanet(theirs)) == 2
    assert len(json.loads((folder / "index.json").read_text())) == 6
    found = read_folder(folder)
    assert len(found["phase contrast, bacteria"]) == 4
    stacks = read_stacks(folder)["fluorescence, nuclei of an embryo in depth"]
    assert [labels.max() for _, labels in stacks] == [2, 2]
