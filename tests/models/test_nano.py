"""nano: conformance, its windows, and its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_segany.core.errors import CheckpointError
from napari_segany.core.prompts import make_prompt
from napari_segany.models import registry
from napari_segany.models.nano import embedding as embedding_module
from napari_segany.models.nano.embedding import NanoEmbedding
from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.prompt_maps import WINDOW, WindowPrompts, render
from napari_segany.models.nano.views import COMFORTABLE_SIZE, View, comfortable_level, nearer, vote
from napari_segany.models.nano.weights import load_nano, save_weights
from tests.models.conformance import ImageModelConformance, picture
from tests.models.conftest import CPU


@pytest.fixture(scope="module")
def shipped() -> NanoModel:
    return load_nano(CPU, torch.float32)


class TestNano(ImageModelConformance):
    @pytest.fixture
    def model(self, shipped: NanoModel) -> NanoModel:
        return shipped


def test_size_of_network_and_file() -> None:
    assert 3e6 < sum(p.numel() for p in Nano().parameters()) < 10e6
    source = Path(registry.__file__).parent / "nano" / "nano.safetensors"
    assert source.stat().st_size < 20e6


def test_weights_come_back(tmp_path: Path) -> None:
    network = Nano()
    save_weights(network, tmp_path / "mine.safetensors")
    again = registry.load_model(tmp_path / "mine.safetensors", device="cpu", dtype="float32")
    assert again.family == "nano" and again.name == "mine"
    for name, value in again.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("damage", ["cut", "foreign", "no numbers"])
def test_damaged_weights_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(Nano(), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        save_file({"x": torch.zeros(2)}, path)
    else:
        save_file(Nano().state_dict(), path)
    with pytest.raises(CheckpointError):
        load_nano(CPU, torch.float32, path)


def prompts(**given: torch.Tensor) -> WindowPrompts:
    base = {
        "points": torch.zeros(1, 1, 2),
        "labels": torch.full((1, 1), -1),
        "boxes": torch.full((1, 4), torch.nan),
        "masks": torch.zeros(1, 1, WINDOW // 4, WINDOW // 4),
        "has_mask": torch.zeros(1),
    }
    return WindowPrompts(**{**base, **given})


def test_clicks_are_drawn_where_they_are_and_padding_is_not() -> None:
    points, labels = torch.tensor([[[40.0, 100.0], [200.0, 20.0], [1.0, 1.0]]]), torch.tensor([[1, 0, -1]])
    maps = render(prompts(points=points, labels=labels))
    assert maps.shape == (1, 8, 64, 64)
    for channel, (x, y) in ((0, (40, 100)), (1, (40, 100)), (2, (200, 20)), (3, (200, 20))):
        peak = divmod(int(maps[0, channel].argmax()), WINDOW // 4)
        assert abs(peak[0] - y / 4) <= 1 and abs(peak[1] - x / 4) <= 1
    assert maps[0, 4:].abs().max() == 0 and maps[0, 0, 0, 0] < 1e-3


def test_boxes_cover_their_cells_in_proportion() -> None:
    maps = render(prompts(boxes=torch.tensor([[8.0, 16.0, 26.0, 40.0]])))
    assert maps[0, 4].sum() * 16 == pytest.approx(18 * 24) and (maps[0, 5] == 1).all()
    assert maps[0, 4, 5, 6] == pytest.approx(0.5)


def test_a_windows_grid_leads_back_to_the_image() -> None:
    shape = (300, 400)
    for level in (-2, 0, 1):
        view = View.at((120.0, 200.0), level)
        grid = view.grid(shape)
        inside = np.full((64, 64), -1.0, np.float32)
        inside[20:44, 28:36] = 1.0
        box, _ = grid.patch(inside)
        scale = 2.0**level
        edges = [(view.origin[0] + 80) * scale, (view.origin[1] + 112) * scale, (view.origin[0] + 176) * scale]
        np.testing.assert_allclose(box[:3], np.clip(edges, 0, 400), atol=2 * max(scale, 1))


@pytest.mark.parametrize("level", [-2, 0, 1])
def test_what_a_window_shows_beyond_the_edge_reaches_no_pixel(level: int) -> None:
    shape = (90, 101)
    view = View.at((88.0, 3.0), level)
    rows, cols = view.cells(shape)
    logits = np.full((64, 64), -50.0, np.float32)
    logits[rows, cols] = 1.0
    (y0, x0, y1, x1), mask = view.grid(shape).patch(logits)
    assert (x0, y1) == (0, 90) and mask.all() and (mask.shape == (y1 - y0, x1 - x0))
    assert (view.grid(shape).upsample(logits) == 1).all()


def test_objects_are_seen_at_a_comfortable_size() -> None:
    for size in (5, 20, 72, 150, 600):
        seen = size * 2.0 ** -comfortable_level(size, coarsest=5)
        assert COMFORTABLE_SIZE / 2 < seen < COMFORTABLE_SIZE * 1.5 or size == 5
    assert comfortable_level(5000, coarsest=2) == 2


def test_what_is_thin_in_a_box_is_looked_at_from_nearer() -> None:
    view = View.at((96.0, 80.0), 0)
    logits = np.full((4, 64, 64), -5.0, dtype=np.float32)
    scores = np.full(4, 0.8, dtype=np.float32)
    assert nearer(view, (logits, scores)) == view
    disc, rod = logits.copy(), logits.copy()
    y, x = np.mgrid[:64, :64] - 31.5
    disc[0][np.hypot(y, x) < 7] = 5.0
    rod[0][(np.abs(y) < 2) & (np.abs(x) < 8)] = 5.0
    assert nearer(view, (disc, scores)) == view
    closer = nearer(view, (rod, scores))
    assert closer == View.at((96.0, 80.0), -1)
    # Never so near that its length does not fit into the window.
    rod[0][(np.abs(y) < 2)] = 5.0
    assert nearer(view, (rod, scores)) == view


def test_beyond_the_edge_of_the_image_a_window_shows_its_ground() -> None:
    shown: list[torch.Tensor] = []
    nano = load_nano(CPU, torch.float32)
    nano.network.encoder.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    image = np.full((300, 300), 40, dtype=np.uint8)
    image[:, 290:] = 200
    embedding = nano.embed(image)
    nano.predict(embedding, [make_prompt((300, 300), points=[(150, 295)])])
    windows = torch.cat([given for given in shown if given.shape[-1] == WINDOW and given.shape[-2] == WINDOW])
    assert len(windows) > 1
    # In the middle row: the edge lies at the middle of the window, bright before it and ground behind.
    middle = windows[:, 0, WINDOW // 2]
    assert (middle[:, 3 * WINDOW // 4 :] == middle[:, -1:]).all()
    assert (middle[:, -1] < middle[:, WINDOW // 2 - 8]).all()


def test_what_was_taught_before_the_judge_saw_agreement_still_answers(tmp_path: Path) -> None:
    path = tmp_path / "earlier.safetensors"
    network = load_nano(CPU, torch.float32).network
    network.judge.mlp[0] = torch.nn.Linear(17, 48)
    save_weights(network, path)
    earlier, image = load_nano(CPU, torch.float32, path), picture(90, 130)
    (answer,) = earlier.predict(earlier.embed(image), [make_prompt((90, 130), points=[(45, 60)])])
    assert answer.masks.shape == (3, 90, 130)
    assert torch.equal(earlier.network.decoder.to_weights.weight, network.decoder.to_weights.weight)


def test_looks_vote_for_a_level() -> None:
    def look(level: int, size: int, score: float) -> tuple[View, tuple[np.ndarray, np.ndarray]]:
        logits = np.full((4, 64, 64), -1.0, np.float32)
        cells = size // 8
        logits[0, 32 - cells : 32 + cells, 32 - cells : 32 + cells] = 1.0
        return View.at((100, 100), level), (logits, np.full(4, score, np.float32))

    looks = [look(-2, 160, 0.5), look(-1, 80, 0.9), look(0, 16, 0.6)]
    assert vote(looks, 3) == looks[1][0]
    assert vote([look(0, 24, 0.9), look(-1, 40, 0.9)], 3).level in (-1, -2)


def test_windows_cut_from_a_level_or_from_the_image_agree(shipped: NanoModel) -> None:
    image = picture(400, 500)
    whole, alone = shipped.embed(image), shipped.embed(image)
    views = [View(-1, (64, 104))]
    with torch.inference_mode():
        # The level of half size is computed whole for one and in a single window for the other.
        whole.encode_level(shipped.network.encoder, -1)
        a = whole.windows(shipped.network.encoder, views)[1]
        assert -1 not in alone.levels
        b = alone.windows(shipped.network.encoder, views)[1]
    assert -1 not in alone.levels, "one window must not cost a whole level"
    middle = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    assert torch.corrcoef(torch.stack([a[middle].flatten(), b[middle].flatten()]))[0, 1] > 0.9


def test_large_images_are_encoded_in_tiles(shipped: NanoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(200, 330)
    whole = shipped.embed(image)
    monkeypatch.setattr(embedding_module, "TILE", 128)
    monkeypatch.setattr(embedding_module, "HALO", 64)
    tiled = shipped.embed(image)
    a, b = whole.levels[0].coarse, tiled.levels[0].coarse
    assert a.shape == b.shape
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.8


def test_what_is_blank_is_not_magnified(shipped: NanoModel) -> None:
    from napari_segany import samples

    image = np.random.default_rng(0).normal(30.0, 1.0, (448, 448))
    image[32:128, 32:128] = samples.image("nuclei", seed=1)[0][:96, :96]
    sparse, fresh = shipped.embed(image), shipped.embed(image)
    boxes = shipped.propose_boxes(sparse)
    magnified = {level: features for level, features in sparse.levels.items() if level < 0}
    assert len(boxes) > 2 and magnified
    assert all(features.known is not None and features.known.mean() < 0.4 for features in magnified.values())
    with torch.inference_mode():
        for level in magnified:
            fresh.encode_level(shipped.network.encoder, level)
    whole = shipped.propose_boxes(fresh)
    near = [np.abs(whole - box).max(axis=1).min() for box in boxes]
    assert len(whole) == pytest.approx(len(boxes), abs=2) and np.mean(np.array(near) <= 2) > 0.8
    # A box where nothing was encoded is answered all the same.
    prompt = make_prompt((448, 448), box=(350, 350, 364, 366))
    (known,), (alone,) = shipped.predict(sparse, [prompt]), shipped.predict(shipped.embed(image), [prompt])
    np.testing.assert_allclose(known.logits, alone.logits, atol=1e-3)


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_parts_to_encode_cover_what_was_asked_for_once(share: float) -> None:
    known = np.random.default_rng(1).random((19, 33)) < share
    times = np.zeros(known.shape, dtype=int)
    for y0, x0, y1, x1 in embedding_module._parts(known):
        assert max(y1 - y0, x1 - x0) * embedding_module.SQUARE <= embedding_module.TILE
        times[y0:y1, x0:x1] += 1
    assert times.max() == 1 and (times[known] == 1).all()
    assert times.sum() < 0.3 * known.size or share > 0.02


def test_proposed_boxes_are_around_objects(shipped: NanoModel) -> None:
    from napari_segany import samples
    from napari_segany.core.boxes import box_iou
    from napari_segany.core.masks import bounding_box

    image, truth = samples.image("nuclei", seed=1)
    boxes = shipped.propose_boxes(shipped.embed(image))
    assert (boxes >= 0).all() and (boxes[:, 2:] <= 256).all() and (boxes[:, :2] < boxes[:, 2:]).all()
    found = [box_iou(np.array(bounding_box(truth == i), float), boxes).max() for i in range(1, truth.max() + 1)]
    assert np.mean(np.array(found) > 0.4) > 0.5


def test_objects_of_a_few_pixels_are_proposed_too(shipped: NanoModel) -> None:
    from skimage.transform import resize

    from napari_segany import samples
    from napari_segany.core.boxes import box_iou
    from napari_segany.core.masks import bounding_box

    image, truth = samples.image("nuclei", seed=1)
    image, truth = (
        resize(one, (96, 96), order=order, preserve_range=True, anti_aliasing=bool(order)).astype(one.dtype)
        for order, one in ((1, image), (0, truth))
    )
    boxes = shipped.propose_boxes(shipped.embed(image))
    own = [np.array(bounding_box(truth == i), float) for i in np.unique(truth)[1:]]
    assert np.median([max(box[2:] - box[:2]) for box in own]) < 12
    assert np.mean([box_iou(box, boxes).max() > 0.4 for box in own]) > 0.5


def test_embeddings_remember_their_image(shipped: NanoModel) -> None:
    embedding = shipped.embed(picture(50, 60))
    assert isinstance(embedding, NanoEmbedding) and embedding.image_shape == (50, 60)
    (answer,) = shipped.predict(embedding, [make_prompt((50, 60), box=(0, 0, 50, 60))])
    assert answer.best.shape == (50, 60)
