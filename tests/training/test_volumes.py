"""Volumes to learn from, windows of them, and a few steps of learning to draw objects in space."""

import json
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.io import imsave

from napari_segany.models.nano.volume_network import VOLUME_WINDOW, VolumeNetwork
from napari_segany.training import volumes
from napari_segany.training.folder import read_stacks
from napari_segany.training.generate.stacks import nuclei_3d
from napari_segany.training.generate.volumes import bent, deep, tissue_3d
from napari_segany.training.volumes import Volume, Window, draw, stacked, train_volumes, volume_loss, windows


@pytest.mark.parametrize("seed", range(4))
def test_deep_volumes_have_objects_and_are_the_same_for_the_same_seed(seed: int) -> None:
    image, labels = deep(np.random.default_rng(seed))
    assert image.shape == labels.shape and image.dtype == np.uint8 and image.shape[0] >= 14
    assert len(Volume.of(image, labels).spans) >= 3
    again, same = deep(np.random.default_rng(seed))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, same)


def test_tissue_fills_space_with_cells_of_different_sizes_behind_bright_walls() -> None:
    image, labels = tissue_3d(np.random.default_rng(5), (20, 96, 96), 2.0, (8, 20))
    assert labels.min() == 1
    sizes = np.bincount(labels.ravel())[1:]
    assert np.percentile(sizes, 90) > 4 * np.percentile(sizes, 10)
    wall = np.zeros(labels.shape, dtype=bool)
    wall[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    assert image[wall].mean() > 1.2 * image[~wall].mean()


def test_what_is_bent_keeps_image_and_labels_together() -> None:
    labels = np.zeros((6, 64, 64), dtype=np.int32)
    labels[:, 20:40, 20:40] = 3
    image, moved = bent(np.random.default_rng(0), ((labels > 0) * np.uint8(200), labels), 3.0, (2.0, 12.0, 12.0))
    assert (moved != labels).mean() > 0.01
    assert ((image > 100) != (moved == 3)).mean() < 0.005


def test_windows_show_an_object_and_tell_the_truth_where_they_say_so() -> None:
    middle = VOLUME_WINDOW.reach
    told_alone = 0
    for window in islice(windows(None, 0), 60):
        assert window.pixels.shape == (VOLUME_WINDOW.depth, VOLUME_WINDOW.side, VOLUME_WINDOW.side)
        assert window.pixels.isfinite().all()
        assert (window.own <= window.seen).all() or not window.seen.amax(dim=(1, 2)).all()
        assert window.given[middle].abs().max() in (0.5, 1.0)
        known = window.told > 0
        seen = window.seen[known] > 0
        assert torch.equal((window.given[known] > 0)[seen], (window.own[known] > 0)[seen])
        told_alone += int(known.sum() == 1)
    assert told_alone > 15


def test_objects_are_shown_at_the_size_that_the_network_expects() -> None:
    volume = Volume.of(*nuclei_3d(np.random.default_rng(1)))
    rng = np.random.default_rng(2)
    sizes = [
        2 * np.sqrt(float(w.own[VOLUME_WINDOW.reach].sum()) / np.pi) for _ in range(40) if (w := draw(volume, rng))
    ]
    assert 0.8 * VOLUME_WINDOW.object_size < np.median(sizes) < 1.1 * VOLUME_WINDOW.object_size


def test_real_stacks_are_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = nuclei_3d(np.random.default_rng(0))
    imsave(tmp_path / "a.tif", image, check_contrast=False)
    imsave(tmp_path / "a_labels.tif", labels.astype(np.uint16), check_contrast=False)
    item = {"axes": "ZYX", "image": "a.tif", "labels": "a_labels.tif", "modality": "nuclei"}
    (tmp_path / "index.json").write_text(json.dumps([item]))
    monkeypatch.setattr(volumes, "REAL", 1.0)
    monkeypatch.setattr(volumes, "deep", None)
    assert len(list(islice(windows(tmp_path, 0), 3))) == 3


def window_of(own: torch.Tensor, told: int) -> Window:
    known = torch.zeros(len(own))
    known[told] = 1
    return Window(own, own, torch.ones_like(own), own, known)


def test_the_loss_is_of_each_plane_and_little_of_those_that_were_told() -> None:
    own = torch.zeros(5, 16, 16)
    own[1:4, 4:12, 4:12] = 1
    right = 20 * (2 * own - 1)
    batch = [window_of(own, told=2)]
    assert volume_loss(right[None], batch) < 1e-3
    losses = []
    for plane in (2, 3):
        wrong = right.clone()
        wrong[plane] = -20
        losses.append(float(volume_loss(wrong[None], batch)))
    assert losses[1] > losses[0] + 0.3


def test_a_network_learns_and_is_saved_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(volumes, "AT_ONCE", 4)
    monkeypatch.setattr(volumes, "WARMUP", 1)
    batch = list(islice(windows(None, 3), 4))
    monkeypatch.setattr(volumes, "windows", lambda data, seed: (w for part in repeat(batch) for w in part))
    monkeypatch.setattr(volumes, "SAVED_EVERY", 0.0)
    network = VolumeNetwork((8, 8, 16)).eval().requires_grad_(False)

    def loss() -> float:
        return float(volume_loss(network(*stacked(batch, "pixels", "given", "seen")), batch))

    before, saved = loss(), []
    train_volumes(None, network, 0.2, save=lambda: saved.append(loss()))
    assert len(saved) >= 5 and loss() < 0.9 * before


def test_only_stacks_in_depth_are_learned_from_and_deep_ones_from_three_sides(tmp_path: Path) -> None:
    shapes = {"cube": (24, 28, 26), "flat": (8, 28, 26), "film": (24, 28, 26)}
    items = []
    for name, shape in shapes.items():
        imsave(tmp_path / f"{name}.tif", np.zeros(shape, np.uint8), check_contrast=False)
        items.append({"axes": "TYX" if name == "film" else "ZYX", "image": f"{name}.tif", "labels": f"{name}.tif"})
    (tmp_path / "index.json").write_text(json.dumps([{**item, "modality": item["image"]} for item in items]))
    found = {name: [image.shape for image, _ in pairs] for name, pairs in read_stacks(tmp_path, ("ZYX",)).items()}
    assert found == {"cube.tif": [(24, 28, 26), (28, 24, 26), (26, 24, 28)], "flat.tif": [(8, 28, 26)]}
    assert "film.tif" in read_stacks(tmp_path)


def test_a_blur_across_spares_the_planes_and_what_is_told_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume.of(*nuclei_3d(np.random.default_rng(1), noise=0.01))
    seen = {}
    for most in (0.01, 0.5):
        monkeypatch.setattr(volumes, "BLUR_ACROSS", most)
        drawn = [draw(volume, np.random.default_rng(seed)) for seed in range(30)]
        seen[most] = [window for window in drawn if window is not None]
    assert len(seen[0.01]) == len(seen[0.5]) > 15
    # The same rolls of the dice: the truth is the same, and between planes there is less difference.
    assert all(torch.equal(a.own, b.own) for a, b in zip(seen[0.01], seen[0.5], strict=True))
    steps = {most: [float(w.pixels.diff(dim=0).abs().mean()) for w in ones] for most, ones in seen.items()}
    assert np.mean(steps[0.5]) < 0.95 * np.mean(steps[0.01])
