"""nano finds every object of a word or of examples, and says which words it knows."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import napari_segany as segany
from napari_segany.core.concepts import Examples
from napari_segany.core.errors import InvalidPromptError
from napari_segany.models.nano.concepts import CODE, CONCEPTS, SYNONYMS, ConceptHead, concept_of
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.proposals import basins
from napari_segany.models.nano.weights import load_nano
from tests.fakes import disc

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from quality import average_precision


@pytest.fixture(scope="module")
def shipped() -> NanoModel:
    return load_nano(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("kind", "seed", "word"),
    [("nuclei", 5, "nuclei"), ("histology", 4, "nucleus"), ("cells", 0, "membrane-bound cells")],
)
def test_objects_of_a_word_are_found(shipped: NanoModel, kind: str, seed: int, word: str) -> None:
    image, truth = segany.samples.image(kind, seed=seed)
    assert average_precision(segany.find(image, text=word, model=shipped, threshold=0.3).labels, truth) > 0.5


def test_another_word_finds_less(shipped: NanoModel) -> None:
    found = []
    for seed in range(8):
        seen = shipped.embed(segany.samples.image("bacteria", seed=seed)[0])
        found.append([len(segany.find(seen, text=word, model=shipped)) for word in ("bacteria", "nucleus")])
    right, wrong = np.array(found).T
    assert right.sum() > 1.5 * wrong.sum() and (right > wrong).sum() >= 6


def test_examples_do_as_well_as_words(shipped: NanoModel) -> None:
    image, truth = segany.samples.image("nuclei", seed=5)
    boxes = [_box(truth == i) for i in range(2, 5)]
    by_word = average_precision(segany.find(image, text="nucleus", model=shipped).labels, truth)
    by_example = average_precision(segany.find(image, exemplars=boxes, model=shipped).labels, truth)
    assert by_example > by_word - 0.1


def test_counter_examples_and_sizes_sift() -> None:
    image = np.random.default_rng(0).normal(30, 4, (256, 256))
    large, small = [(60, 60), (60, 180), (190, 60)], [(130, 120), (200, 200), (130, 220), (20, 120)]
    for centre in large:
        image[disc(image.shape, centre, 22)] += 150
    for centre in small:
        image[disc(image.shape, centre, 5)] += 150
    box = (60 - 23, 60 - 23, 60 + 24, 60 + 24)
    found = segany.find(image.clip(0, 255).astype(np.uint8), exemplars=[box])
    areas = [int(patch.sum()) for patch in found.patches]
    assert len(found) == 3 and min(areas) > 800


def test_unknown_words_say_which_are_known(shipped: NanoModel) -> None:
    image, _ = segany.samples.image("nuclei", seed=4)
    with pytest.raises(InvalidPromptError, match=r"does not know \"giraffe\", it knows: nucleus, cell.*SAM 3"):
        segany.find(image, text="giraffe", model=shipped)
    with pytest.raises(InvalidPromptError, match="The concept is empty"):
        segany.find(image, text="  ", model=shipped)
    with pytest.raises(InvalidPromptError, match="covers no part"):
        segany.find(image, exemplars=[(5, 5, 5, 9)], model=shipped)


def test_words_and_synonyms() -> None:
    assert [concept_of(word, "nano") for word in CONCEPTS] == list(range(len(CONCEPTS)))
    assert all(concept_of(word, "nano") == concept_of(same, "nano") for word, same in SYNONYMS.items())
    assert concept_of("  Everything ", "nano") is None


def test_an_empty_image_has_no_objects(shipped: NanoModel) -> None:
    found = segany.find(np.zeros((120, 90), np.uint8), text="nucleus", model=shipped)
    assert len(found) == 0 and found.labels.shape == (120, 90)


def test_examples_come_from_another_image_too(shipped: NanoModel) -> None:
    first, truth = segany.samples.image("nuclei", seed=4)
    second, other = segany.samples.image("nuclei", seed=5)
    shown = Examples(shipped.embed(first), np.array([_box(truth == 2)], dtype=float), np.zeros((0, 4)))
    described = shipped.describe(None, [shown])
    found = shipped.find(shipped.embed(second), described, segany.FindSettings())
    assert average_precision(found.labels, other) > 0.4


class TestConceptHead:
    def test_codes_tell_inside_from_around(self) -> None:
        torch.manual_seed(0)
        head = ConceptHead(6)
        features, inside = torch.zeros(2, 6, 16, 16), torch.zeros(2, 16, 16)
        inside[:, 4:9, 4:9] = 1
        features[0, 0, 4:9, 4:9] = 1
        features[1, 0] = 1
        features[1, 0, 4:9, 4:9] = 0
        codes = head.codes(features, inside)
        assert codes.shape == (2, CODE) and (codes[0] - codes[1]).abs().max() > 0.05
        assert head(codes).shape == (2, len(CONCEPTS))

    def test_an_empty_mask_gives_a_finite_code(self) -> None:
        assert ConceptHead(6).codes(torch.randn(1, 6, 8, 8), torch.zeros(1, 8, 8)).isfinite().all()


class TestProposals:
    def test_touching_objects_are_two_and_a_rough_one_is_one(self) -> None:
        ys, xs = np.mgrid[:40, :80]
        near = [np.hypot(ys - 20, xs - x) for x in (18, 40)]
        depth = np.maximum(*[np.clip(1 - d / 12, 0, 1) for d in near])
        inside = (np.minimum(*near) < 12).astype(float)
        assert len(basins(inside, depth)) == 2
        single = np.clip(1 - near[0] / 12, 0, 1) * (1 + 0.03 * np.sin(ys * 1.7) * np.cos(xs * 2.1))
        found = basins((near[0] < 12).astype(float), single)
        assert len(found) == 1 and np.abs(found[0] - [8, 6, 32, 30]).max() <= 1.5

    def test_nothing_is_nothing(self) -> None:
        assert basins(np.zeros((8, 8)), np.zeros((8, 8))).shape == (0, 4)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    return int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1
