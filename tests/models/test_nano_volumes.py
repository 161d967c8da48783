"""nano's drawing of whole objects: what does not change its answer, and how well it draws."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import napari_segany as segany
from napari_segany import Session
from napari_segany.core.masks import mask_iou
from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.volume_network import VOLUME_WINDOW, VolumeNetwork, standardised
from napari_segany.models.nano.weights import load_nano, save_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shipped() -> NanoModel:
    return load_nano(CPU, torch.float32)


def ball(count: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Windows of a bright ball of a little noise, told on the plane in the middle; and the ball."""
    reach, side = VOLUME_WINDOW.reach, VOLUME_WINDOW.side
    z, y, x = np.ogrid[-reach : reach + 1, :side, :side]
    inside = (1.6 * z) ** 2 + (y - side / 2) ** 2 + (x - side / 2) ** 2 <= 100
    pixels = 0.2 + 0.5 * inside + 0.03 * np.random.default_rng(0).standard_normal((count, *inside.shape))
    given = np.zeros(pixels.shape, dtype=np.float32)
    given[:, reach] = 2.0 * inside[reach] - 1
    return pixels.astype(np.float32), given, np.ones(pixels.shape, dtype=bool), inside


def test_an_object_is_drawn_on_the_planes_around(shipped: NanoModel) -> None:
    pixels, given, seen, inside = ball()
    drawn = shipped.complete(pixels, given, seen)[0] > 0
    ious = [mask_iou(mask, truth) for mask, truth in zip(drawn, inside, strict=True) if truth.any()]
    assert np.mean(ious) > 0.8
    assert not (drawn[[0, -1]] & inside.any(axis=0)).any()


def test_brightness_and_contrast_do_not_matter(shipped: NanoModel) -> None:
    pixels, given, seen, _ = ball()
    dim = shipped.complete(0.1 + 0.5 * pixels, given, seen) > 0
    assert mask_iou(shipped.complete(pixels, given, seen) > 0, dim) > 0.97


def test_a_window_that_is_turned_gives_the_same_answer_turned(shipped: NanoModel) -> None:
    pixels, given, seen, _ = ball()
    pixels[:, :, :, 30:] *= 0.6
    pixels[:, 15:, :20] += 0.1
    drawn = shipped.complete(pixels, given, seen)
    turned = shipped.complete(*(np.rot90(values[:, ::-1], axes=(2, 3)) for values in (pixels, given, seen)))
    assert np.abs(np.rot90(drawn[:, ::-1], axes=(2, 3)) - turned).max() < 1e-3
    # The network by itself does not see to it.
    network = shipped.network.volume
    with torch.no_grad():
        alone = network(*(torch.from_numpy(values.astype(np.float32)) for values in (pixels, given, seen))).numpy()
    assert np.abs(alone - drawn).max() > 0.1


def test_windows_are_drawn_alike_alone_and_together(shipped: NanoModel) -> None:
    pixels, given, seen, _ = ball(3)
    together = shipped.complete(pixels, given, seen)
    alone = np.concatenate([shipped.complete(pixels[i : i + 1], given[i : i + 1], seen[i : i + 1]) for i in range(3)])
    assert np.abs(together - alone).max() < 1e-3


def test_what_is_not_seen_does_not_count() -> None:
    pixels, _, seen, _ = ball()
    seen[:, :5] = False
    other = np.where(seen, pixels, 7.0).astype(np.float32)
    shown = [standardised(torch.from_numpy(one), torch.from_numpy(seen).float()) for one in (pixels, other)]
    assert torch.equal(*shown)
    assert shown[0][:, 5:].mean().abs() < 1e-4 and (shown[0][:, :5] == 0).all()


def test_a_window_may_be_of_any_depth() -> None:
    network = VolumeNetwork((8, 8, 16)).eval()
    for depth in (1, 4, 25):
        shape = (2, depth, 16, 24)
        assert network(torch.rand(shape), torch.zeros(shape), torch.ones(shape)).shape == shape


def test_weights_of_before_there_were_volumes_get_those_of_the_package(shipped: NanoModel, tmp_path) -> None:
    path = tmp_path / "earlier.safetensors"
    save_weights(shipped.network, path, {"taught": "worms"})
    state = {key: value for key, value in load_file(path).items() if not key.startswith("volume.")}
    save_file(state, path, metadata={"version": "2", "config": '{"stem": 32}', "provenance": '{"taught": "worms"}'})
    model = load_nano(CPU, torch.float32, path)
    assert model.provenance == {"taught": "worms"}
    assert all(
        torch.equal(a, b)
        for a, b in zip(shipped.network.volume.parameters(), model.network.volume.parameters(), strict=True)
    )


def test_the_network_is_part_of_the_model() -> None:
    assert any(name.startswith("volume.") for name, _ in Nano().named_parameters())


@pytest.mark.parametrize("name", ["nuclei-3d", "membranes-3d"])
def test_generated_objects_are_followed_in_depth(shipped: NanoModel, name: str) -> None:
    stack, truth = segany.samples.stack(name, seed=3)
    session = Session(stack, model=shipped)
    middle = len(stack) // 2
    chosen = [i for i in np.unique(truth[middle])[1:] if (truth[middle] == i).sum() > 100][:6]
    for i in map(int, chosen):
        session.accept(i, middle, mask=truth[middle] == i)
    list(session.propagate())
    labels = np.asarray(session.labels)
    ious = [
        mask_iou(labels[z] == i, truth[z] == i)
        for i in chosen
        for z in range(len(stack))
        if z != middle and (truth[z] == i).any()
    ]
    assert np.mean(ious) > 0.7
