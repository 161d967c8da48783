"""Teaching nano from a few labels."""

from pathlib import Path

import numpy as np
import pytest
import torch

import napari_segany as segany
from napari_segany.core.errors import InvalidImageError, InvalidLabelsError, UnsupportedError
from napari_segany.models.sam.network import build_sam
from napari_segany.models.sam.predictor import SamModel
from napari_segany.training import lessons
from napari_segany.training.adapt import FitReport


def rings(count: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bright rings on a dim ground, labelled with their holes: nano takes the ring or the hole, not both."""
    rng = np.random.default_rng(seed)
    image = rng.normal(60, 6, (300, 300))
    labels = np.zeros((300, 300), np.int32)
    ys, xs = np.ogrid[:300, :300]
    cells = rng.permutation(16)[:count]
    for number, cell in enumerate(cells, start=1):
        y, x = 38 + 75 * (cell // 4) + rng.integers(-6, 7), 38 + 75 * (cell % 4) + rng.integers(-6, 7)
        r = np.hypot(ys - y, xs - x)
        size = rng.uniform(18, 27)
        image += 90 * (np.abs(r - size + 4) < 4)
        labels[r < size] = number
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path))
    return tmp_path


def test_a_taught_model_is_saved_listed_and_loaded_with_its_provenance(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, labels = rings()
    reports: list[FitReport] = []
    model = segany.training.fit(image, labels, name="rings", steps=3, crops=2, progress=reports.append)
    assert [report.step for report in reports] == [1, 2, 3] and all(np.isfinite(r.loss) for r in reports)
    assert model.name == "rings" and model.provenance["base"] == "nano"
    assert (model.provenance["objects"], model.provenance["held_out"]) == (8, 2)
    assert {"before", "after", "date"} <= model.provenance.keys()
    (listed,) = [info for info in segany.list_models() if info.name == "rings"]
    assert listed.installed and listed.family == "nano" and listed.provenance == model.provenance
    # A folder of the same name lies where a script runs.
    monkeypatch.chdir(cache)
    (cache / "rings").mkdir()
    loaded = segany.load_model("rings")
    assert loaded.name == "rings" and loaded.provenance == model.provenance
    for a, b in zip(model.network.parameters(), loaded.network.parameters(), strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=1e-2, atol=1e-3)
    for spoiled in ('{"family": "nano", "provenance": {"base": "nano"}}', '{"family": "nano", "provenance": "nano"}'):
        (cache / "models" / "rings.json").write_text(spoiled)
        assert next(info for info in segany.list_models() if info.name == "rings").provenance is None


def test_cancelling_gives_the_model_from_before_and_saves_nothing(cache: Path) -> None:
    base = segany.load_model("nano")
    before = [p.clone() for p in base.network.parameters()]
    assert (
        segany.training.fit(*rings(), base=base, name="half", steps=5, crops=1, progress=lambda r: r.step < 2) is base
    )
    assert all(torch.equal(a, b) for a, b in zip(before, base.network.parameters(), strict=True))
    assert not list(cache.rglob("*.safetensors"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = lessons.train_step, iter(range(1, 10))

    def step(*args: object) -> object:
        loss, figures = real(*args)  # type: ignore[arg-type]
        return (loss * float("nan"), figures) if next(steps) == 2 else (loss, figures)

    monkeypatch.setattr(lessons, "train_step", step)
    model = segany.training.fit(*rings(), steps=5, crops=1)
    assert model.provenance["steps"] == 1 and "not finite at step 2" in model.provenance["note"]
    assert all(torch.isfinite(p).all() for p in model.network.parameters())


@pytest.mark.parametrize(
    ("images", "labels", "error", "words"),
    [
        (np.zeros((9, 9)), [], InvalidLabelsError, "1 images and 0 label images"),
        (np.zeros((9, 9)), np.zeros((9, 8), int), InvalidLabelsError, "of the image's shape"),
        (np.zeros((9, 9)), np.zeros((9, 9)), InvalidLabelsError, "whole numbers"),
        (np.zeros((9, 9)), np.zeros((9, 9), int), InvalidLabelsError, "0 labelled objects"),
        (np.zeros((9, 9)), np.eye(9, dtype=int), InvalidLabelsError, "1 labelled objects"),
        (np.zeros((9, 9, 7)), np.eye(9, dtype=int), InvalidImageError, "C up to 4"),
    ],
)
def test_bad_input_is_one_sentence(images: object, labels: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        segany.training.fit(images, labels)


def test_other_families_say_that_they_cannot_be_taught() -> None:
    from tests.fakes import DiscModel

    with pytest.raises(UnsupportedError, match="cannot be taught yet"):
        segany.training.fit(*rings(), base=DiscModel())


def test_sam_learns_in_its_decoder_and_comes_back_with_its_provenance(cache: Path) -> None:
    torch.manual_seed(0)
    base = SamModel(build_sam("vit_t"), "random", "mobile-sam", torch.device("cpu"), torch.float32)
    encoder = [p.clone() for p in base.network.image_encoder.parameters()]
    losses: list[float] = []
    model = segany.training.fit(
        *rings(), base=base, name="sam-rings", steps=12, crops=2, learning_rate=1e-3,
        progress=lambda report: losses.append(report.loss),
    )  # fmt: skip
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    assert all(torch.equal(a, b) for a, b in zip(encoder, model.network.image_encoder.parameters(), strict=True))
    loaded = segany.load_model("sam-rings", dtype="float32")
    assert loaded.family == "mobile-sam" and loaded.provenance == model.provenance
    for a, b in zip(model.network.parameters(), loaded.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)
