"""Generated images, simulated people, and a few steps of training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from napari_segany import samples
from napari_segany.core.errors import StorageError
from napari_segany.core.masks import mask_iou as overlap
from napari_segany.training.clicks import first_prompts, with_correction
from napari_segany.training.crops import (
    NEAR,
    _redrawn,
    between_objects,
    draw_earlier,
    draw_window,
    make_example,
    make_stack,
)
from napari_segany.training.crops import samples as sample_stream
from napari_segany.training.folder import read_folder
from napari_segany.training.generate import KINDS, generate
from napari_segany.training.generate.colony import grow_colony
from napari_segany.training.generate.shapes import draw, joined, rod
from napari_segany.training.losses import dense_loss, dice_loss, focal_loss, mask_iou, prompt_loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_every_kind_has_objects_and_is_the_same_for_the_same_seed(kind: str, seed: int) -> None:
    image, labels = generate(kind, seed, (160, 192))
    assert image.shape[:2] == labels.shape == (160, 192) and image.dtype in (np.uint8, np.uint16)
    ids = np.unique(labels)
    assert labels.dtype == np.int32 and len(ids) >= 2 and ids[-1] == len(ids) - (ids[0] == 0)
    again, same = generate(kind, seed, (160, 192))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, same)


def test_rods_of_a_colony_push_each_other_aside_and_stay_together() -> None:
    rng = np.random.default_rng(2)
    rods = grow_colony(rng, 40, 4.0, 0.1)
    assert 40 <= len(rods) < 60
    pixels = 12
    labels = np.zeros((500, 500), dtype=np.int32)
    shapes = [rod(rng, (250 + pixels * y, 250 + pixels * x), pixels * n, pixels, 0, a) for y, x, a, n in rods]
    for value, shape in enumerate(shapes, start=1):
        draw(labels, shape, value, below=True)
    drawn = sum(int((shape.depth > 0).sum()) for shape in shapes)
    assert (labels > 0).sum() > 0.9 * drawn, "rods lie on top of each other"
    assert np.hypot(rods[:, 0], rods[:, 1]).max() < 2.5 * np.sqrt(rods[:, 3].sum() / np.pi), "the colony flew apart"


def test_joined_cells_are_neighbours() -> None:
    cells = np.repeat(np.repeat(np.arange(1, 17).reshape(4, 4), 5, axis=0), 5, axis=1)
    found = joined(np.random.default_rng(0), cells, 0.4)
    assert len(np.unique(found)) < 16
    for value in np.unique(found):
        assert label(found == value, connectivity=1).max() == 1


@pytest.mark.parametrize("name", samples.STACKS)
def test_sample_stacks_keep_their_ids(name: str) -> None:
    stack, truth = samples.stack(name, seed=1)
    assert stack.shape == truth.shape and stack.ndim == 3 and truth.dtype == np.int32
    spans = [np.flatnonzero((truth == i).any(axis=(1, 2))) for i in range(1, min(truth.max(), 12) + 1)]
    assert max(len(span) for span in spans) >= 5
    assert all((np.diff(span) == 1).all() for span in spans if name == "nuclei-3d")
    with pytest.raises(ValueError, match="no sample stack"):
        samples.stack("nothing")


def test_crops_keep_image_and_labels_together() -> None:
    labels = np.zeros((200, 220), np.int32)
    labels[60:100, 70:130] = 4
    image = (labels > 0).astype(np.uint8) * 200
    for seed in range(10):
        example = make_example(image, labels)
        crop, cut = draw_window(example, np.random.default_rng(seed), 128).cut(example)
        assert crop.shape == (3, 128, 128) and (cut == 4).any()
        inside = crop[0].numpy() > 127
        assert (inside == (cut == 4)).mean() > 0.97


def test_earlier_frames_show_the_same_objects_elsewhere() -> None:
    labels = np.zeros((200, 220), np.int32)
    labels[60:100, 70:130] = 4
    example = make_example((labels > 0).astype(np.uint8) * 200, labels)
    moved = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        window = draw_window(example, rng, 128)
        _, now = window.cut(example)
        for image, earlier in draw_earlier(example, window, rng):
            assert ((image[0].numpy() > 127) == (earlier == 4)).mean() > 0.95
            moved.append(((now == 4) & (earlier == 4)).sum() / ((now == 4) | (earlier == 4)).sum())
    assert 0.2 < np.mean(moved) < 0.95


def test_planes_of_a_stack_know_their_neighbours() -> None:
    stack = np.random.default_rng(0).integers(0, 200, (9, 64, 64)).astype(np.uint8)
    labels = np.repeat(np.arange(1, 10), 64 * 64).reshape(9, 64, 64)
    labels[:, :20] = 100
    planes = make_stack(stack, labels, reach=2, every=4)
    assert [int(plane.labels[0][-1, -1]) for plane in planes] == [1, 5, 9]
    sides = [[[int(n.labels[0][-1, -1]) for n in side] for side in plane.neighbours] for plane in planes]
    assert sides == [[[], [2, 3]], [[4, 3], [6, 7]], [[8, 7], []]]
    rng = np.random.default_rng(0)
    for _ in range(8):
        shown = [seen for _, seen in draw_earlier(planes[1], draw_window(planes[1], rng, 64), rng)]
        frames = [int(seen[seen != 100].max(initial=0)) for seen in shown]
        assert frames in ([5, 5], [4, 4], [4, 3], [3, 3], [6, 6], [6, 7], [7, 7])
    drawn = sample_stream([(1.0, planes)], 0, 64, 3)
    for _ in range(5):
        sample = next(drawn)
        assert len(sample.earlier) == 2 and all(masks.shape == (3, 64, 64) for _, masks in sample.earlier)
        # Only objects that were there before can be followed, and they may have left.
        assert all(masks.any(axis=(1, 2)).all() for _, masks in sample.earlier)


def test_objects_that_change_between_frames_are_asked_for_more_often() -> None:
    labels = np.zeros((3, 64, 64), np.int32)
    for plane, length in enumerate((26, 12, 5)):
        labels[plane, 10:54, 6:26], labels[plane, 10 : 10 + length, 38:58] = 1, 2
    drawn = sample_stream([(1.0, make_stack(np.uint8(labels > 0), labels))], 0, 64, 4, sizes=(30.0, 31.0))
    ious = [
        [overlap(now, before) for now, before in zip(sample.masks, sample.earlier[0][1], strict=True)]
        for sample, _ in zip(drawn, range(40), strict=False)
    ]
    assert np.mean(np.ravel(ious) < 0.7) > 0.65, "one of two objects changes"


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(-4, 5))
def test_objects_that_are_outlined_wider_or_narrower_stay_the_same_objects(seed: int, wider: int) -> None:
    _, labels = generate("nuclei", seed, (96, 96))
    frames = [(torch.zeros(3, 96, 96), part) for part in (labels, np.roll(labels, 3, axis=0))]
    ids = np.flatnonzero(np.bincount(labels.ravel()) >= 200)
    redrawn = _redrawn(frames, wider, ids[ids > 0])
    for (_, before), (_, after) in zip(frames, redrawn, strict=True):
        small, large = (before, after) if wider > 0 else (after, before)
        assert (large[small > 0] == small[small > 0]).all()
        assert (np.bincount(after.ravel(), minlength=ids.max() + 1)[ids] > 0).all()
        assert wider or (after == before).all()


def test_simulated_prompts_say_the_truth() -> None:
    masks = np.zeros((40, 256, 256), dtype=bool)
    for i, mask in enumerate(masks):
        mask[40 + i : 120 + i, 60:160] = True
    prompts, single = first_prompts(masks, np.random.default_rng(0))
    for i in range(40):
        if prompts.labels[i, 0] == 1:
            x, y = prompts.points[i, 0].long()
            assert masks[i, y, x]
        if single[i]:
            assert prompts.boxes[i].isnan().all() and prompts.has_mask[i] == 0 and prompts.labels[i, 0] == 1
    assert 5 < int(single.sum()) < 35


def test_corrective_clicks_fall_on_the_error() -> None:
    truth = torch.zeros(2, 64, 64)
    truth[:, 10:40, 10:40] = 1.0
    answer = torch.full((2, 64, 64), -5.0)
    answer[0, 10:40, 10:20] = 5.0  # too little
    answer[1, 10:40, 10:63] = 5.0  # too much
    masks = np.ones((2, 256, 256), dtype=bool)
    prompts, _ = first_prompts(masks, np.random.default_rng(0))
    after = with_correction(prompts, truth, answer, np.random.default_rng(0))
    assert after.labels[:, -1].tolist() == [1, 0]
    (x0, y0), (x1, y1) = (after.points[:, -1] / 4).long().tolist()
    assert 20 <= x0 < 40 and 10 <= y0 < 40 and 40 <= x1 < 63 and 10 <= y1 < 40


def test_losses_prefer_the_truth() -> None:
    truth = torch.zeros(1, 16, 16)
    truth[:, 4:10, 4:10] = 1.0
    right, wrong = (truth - 0.5) * 20, (0.5 - truth) * 20
    assert focal_loss(right, truth) < 1e-3 < focal_loss(wrong, truth)
    assert dice_loss(right, truth) < 0.05 < dice_loss(wrong, truth)
    assert mask_iou(right, truth) == 1 and mask_iou(wrong, truth) == 0
    logits = torch.stack([wrong[0], wrong[0], right[0], wrong[0]])[None].requires_grad_()
    prompt_loss(logits, torch.tensor([[0.0, -5, 5, -5]]), truth, torch.tensor([True])).backward()
    assert logits.grad is not None and logits.grad[0, 1].abs().sum() < logits.grad[0, 0].abs().sum()


def test_only_what_is_near_two_objects_is_between_them() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[10:20, 5:15], labels[10:20, 16:26], labels[10:20, 45:55] = 4, 1, 2
    between = between_objects(labels)
    assert between[12:18, 13:18].all()
    assert not between[:, : 15 - NEAR].any()
    assert not between[:, 16 + NEAR :].any()


def test_an_error_between_two_objects_costs_more_than_one_elsewhere() -> None:
    target, between = torch.zeros(2, 2, 16, 16), torch.zeros(2, 16, 16)
    between[:, :, 8] = 1.0
    wrong_between, wrong_elsewhere = torch.full_like(target, -9.0), torch.full_like(target, -9.0)
    wrong_between[..., 8], wrong_elsewhere[..., 3] = 9.0, 9.0
    complete = torch.tensor([1.0, 0.0])
    losses = [float(dense_loss(logits, target, complete, between)) for logits in (wrong_between, wrong_elsewhere)]
    assert losses[0] > 5 * losses[1]
    assert float(dense_loss(wrong_between, target, torch.zeros(2), between)) == 0.0


def test_a_short_training_learns_and_can_be_taken_up_again(tmp_path: Path) -> None:
    from skimage.io import imsave

    from napari_segany.models import registry
    from napari_segany.training.run import TrainingConfig, train

    image, labels = generate("nuclei", 0)
    imsave(tmp_path / "a.png", image, check_contrast=False)
    imsave(tmp_path / "a_labels.png", labels.astype(np.uint16), check_contrast=False)
    item = {"image": "a.png", "labels": "a_labels.png", "axes": "YX", "modality": "fluorescence"}
    (tmp_path / "index.json").write_text(json.dumps([item]))
    assert list(read_folder(tmp_path)) == ["fluorescence"]
    config = TrainingConfig(minutes=0.15, crops=2, prompts=1, warmup=2, per_kind=1, generated=0.0)
    train(tmp_path, tmp_path / "out", config)
    first = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    train(tmp_path, tmp_path / "out", TrainingConfig(minutes=0.25, crops=2, prompts=1, warmup=2, generated=0.0))
    second = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    assert 0 < first["step"] < second["step"] and first["elapsed"] < second["elapsed"]
    changed = {name for name, values in first["model"].items() if not torch.equal(values, second["model"][name])}
    assert "decoder.to_weights.weight" in changed and not any("mask_iou" in name for name in changed)
    assert registry.load_model(tmp_path / "out" / "nano.safetensors", device="cpu").family == "nano"


def test_words_are_learned_from_features_that_stay(tmp_path: Path) -> None:
    from napari_segany.models.nano.concepts import CONCEPTS, ConceptHead
    from napari_segany.models.nano.weights import load_nano
    from napari_segany.training.words import train_words

    torch.manual_seed(0)
    network = load_nano(torch.device("cpu"), torch.float32).network
    network.concepts = ConceptHead(network.config.coarse)
    before = network.encoder.to_coarse.weight.clone()
    assert train_words(None, network, crops=150, epochs=30) > 1.5 / len(CONCEPTS)
    assert torch.equal(network.encoder.to_coarse.weight, before)


def test_scores_are_learned_from_answers_that_stay() -> None:
    from napari_segany.models.nano.judge import Judge
    from napari_segany.models.nano.mask_iou_head import MaskIoUHead
    from napari_segany.models.nano.network import MASKS
    from napari_segany.models.nano.weights import load_nano
    from napari_segany.training.scores import train_scores

    torch.manual_seed(0)
    network = load_nano(torch.device("cpu"), torch.float32).network
    network.decoder.mask_iou = MaskIoUHead(MASKS, network.config.coarse, network.config.decoder_width)
    network.judge = Judge(MASKS)
    before = network.decoder.to_weights.weight.clone()
    assert train_scores(None, network, images=24) > 0.3
    assert torch.equal(network.decoder.to_weights.weight, before)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    from napari_segany.core.errors import StorageError
    from napari_segany.training import train_nano

    with pytest.raises(StorageError, match="the same command goes on"):
        train_nano(None, tmp_path / ("x" * 300), minutes=0.01)


def test_numbers_of_a_training_come_from_a_file(tmp_path: Path) -> None:
    from napari_segany.training.run import TrainingConfig

    file = tmp_path / "numbers.toml"
    file.write_text("minutes = 5\nlearning_rate = 2e-3\n")
    assert TrainingConfig.read(file) == TrainingConfig(minutes=5, learning_rate=2e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("minuets = 5", "which is none of minutes"),
        ("crops = 1.5", "no int"),
        ("minutes = true", "no float"),
        ("=", "TOML"),
    ],
)
def test_a_file_that_makes_no_sense_says_so(tmp_path: Path, text: str, words: str) -> None:
    from napari_segany.training.run import TrainingConfig

    file = tmp_path / "numbers.toml"
    file.write_text(text)
    with pytest.raises(StorageError, match=words):
        TrainingConfig.read(file)


def test_the_course_is_a_log_events_and_a_picture_and_goes_on(tmp_path: Path) -> None:
    from skimage.io import imread

    from napari_segany.training.course import Course

    Course(tmp_path).add(25, {"minutes": 1.0, "loss": 2.0, "click": 0.3})
    first = imread(tmp_path / "curves.png")
    Course(tmp_path).add(50, {"minutes": 2.0, "loss": 1.0, "click": 0.6})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [25, 50]
    assert not np.array_equal(first, imread(tmp_path / "curves.png"))
    assert list((tmp_path / "events").glob("events*"))


def test_checkpoints_of_a_training_that_are_damaged_or_newer_say_so(tmp_path: Path) -> None:
    from napari_segany.core.errors import CheckpointError
    from napari_segany.training.run import TrainingConfig, read_checkpoint, train

    first = {"model": {}, "average": {}, "optimiser": {}, "step": 3, "elapsed": 1.0}
    whole = {**first, "version": 3}
    last = tmp_path / "last.pt"
    torch.save(whole, last)
    assert read_checkpoint(last)["step"] == 3
    for content, words in (
        (first, "earlier version, which trained another network"),
        ({**whole, "version": 99}, "newer version"),
        ({"model": {}}, "no checkpoint of a training"),
        ([1], "no checkpoint of a training"),
    ):
        torch.save(content, last)
        with pytest.raises(CheckpointError, match=words):
            read_checkpoint(last)
    torch.save(whole, last)
    with pytest.raises(CheckpointError, match="earlier version, which trained another network"):
        train(None, tmp_path, TrainingConfig(minutes=0.0))
    with pytest.raises(CheckpointError, match="earlier version, which trained another network"):
        train(None, tmp_path / "new", TrainingConfig(minutes=0.0), start=last)
    last.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint of a training; remove it to begin anew"):
        train(None, tmp_path, TrainingConfig(minutes=0.0))
    assert last.exists(), "nothing is thrown away"


def test_weights_are_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_segany.models.nano.network import Nano, NanoConfig
    from napari_segany.models.nano.weights import save_weights

    small = Nano(NanoConfig(8, (8, 8, 8, 8), (1, 1, 1, 1), 8, 8, 16, 1, 1))
    save_weights(small, tmp_path / "n.safetensors")
    before = (tmp_path / "n.safetensors").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(small, tmp_path / "n.safetensors")
    assert (tmp_path / "n.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["n.safetensors"]


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (None, "does not list annotated images"),
        ("[" * 99_999, "does not list annotated images"),
        ("5", "does not list annotated images"),
        ([{"labels": "a.png"}], "does not list annotated images"),
        ([{"labels": 1, "image": 2, "axes": "YX", "modality": "x"}], "are text"),
        ([{"labels": "a.png", "image": "../b.png", "axes": "YX", "modality": "x"}], "not trusted"),
        ([{"labels": "a.png", "image": "/etc/passwd", "axes": "YX", "modality": "x"}], "not trusted"),
        ([{"labels": "a.png", "image": "a.png", "axes": "YX", "modality": "x"}], "cannot be read as an image"),
    ],
)
def test_folders_that_are_damaged_or_lead_outside_are_refused(index: object, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    if index is not None:
        (tmp_path / "index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(StorageError, match=words) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)
