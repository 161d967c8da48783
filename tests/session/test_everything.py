"""All objects of an image, from a grid of clicks or from proposed boxes."""

import numpy as np
import pytest

from napari_segany.core.errors import InvalidPromptError, UnsupportedError
from napari_segany.core.instances import Instances
from napari_segany.core.masks import Candidates, mask_iou
from napari_segany.core.settings import EverythingSettings
from napari_segany.session.everything import everything, grid_points, proposals
from tests.fakes import DiscModel, disc

SHAPE = (60, 80)


class Blobs(DiscModel):
    """Knows two discs; a click in neither gets an unsure answer."""

    discs = (disc(SHAPE, (15, 20), 8), disc(SHAPE, (40, 60), 12))

    def predict(self, embedding, prompts, multimask="auto"):
        answers = super().predict(embedding, prompts, multimask)
        return [self._known(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _known(self, prompt, answer: Candidates) -> Candidates:
        y, x = np.rint(prompt.points[0]).astype(int)
        for known in self.discs:
            if known[y, x]:
                logits = np.where(known, 8.0, -8.0).astype(np.float32)
                return Candidates(np.stack([logits] * 3), np.array([0.95, 0.9, 0.2], np.float32), answer.grid)
        return Candidates(answer.logits, np.full(len(answer.scores), 0.3, np.float32), answer.grid)


def test_a_grid_lies_at_the_centres_of_its_cells() -> None:
    points = grid_points((10, 20), 2)
    np.testing.assert_allclose(points, [[2, 4.5], [2, 14.5], [7, 4.5], [7, 14.5]])


def test_each_object_is_found_once_and_unsure_masks_are_dropped() -> None:
    model = Blobs()
    found = everything(model, model.embed(np.zeros(SHAPE)), EverythingSettings(points_per_side=12))
    assert len(found) == 2
    for known in Blobs.discs:
        assert max(mask_iou(found.mask(i), known) for i in range(2)) == 1.0


def test_area_limits() -> None:
    model = Blobs()
    embedding = model.embed(np.zeros(SHAPE))
    small, large = (int(known.sum()) for known in Blobs.discs)
    assert len(everything(model, embedding, EverythingSettings(points_per_side=12, min_area=small + 1))) == 1
    share = (large - 1) / (SHAPE[0] * SHAPE[1])
    assert len(everything(model, embedding, EverythingSettings(points_per_side=12, max_share=share))) == 1
    assert len(everything(model, embedding, EverythingSettings(points_per_side=12, score_threshold=0.99))) == 0


class Proposing(DiscModel):
    """Proposes two boxes, which its answers fill."""

    everything_settings = EverythingSettings(score_threshold=0.5)

    def propose_boxes(self, embedding) -> np.ndarray:
        return np.array([[2.0, 2, 10, 12], [30, 30, 50, 44]])


def test_proposals_replace_the_grid_unless_settings_ask_for_it() -> None:
    model = Proposing()
    embedding = model.embed(np.zeros(SHAPE))
    done: list[tuple[int, int]] = []
    found = everything(model, embedding, progress=lambda part, whole: done.append((part, whole)))
    assert done == [(2, 2)] and found.boxes.tolist() == [[2, 2, 10, 12], [30, 30, 50, 44]]
    assert len(everything(model, embedding, EverythingSettings(points_per_side=4))) > 2


class Naming(Proposing):
    """Also finds one object by its name, and a poorer one on the same pixels."""

    words = ("blob",)

    def describe(self, text, examples):
        if text not in self.words:
            raise InvalidPromptError(f"{self.name} knows: blob.")
        return text

    def find(self, embedding, described, settings):
        patch = np.ones((6, 8), dtype=bool)
        return Instances.from_patches(SHAPE, [((5, 5, 11, 13), patch), ((5, 6, 11, 14), patch)], [0.9, 0.6])


def test_the_boxes_of_a_detector_replace_the_grid_of_another_model() -> None:
    model, detector = DiscModel(), Naming("detector")
    seen = detector.embed(np.zeros(SHAPE))
    boxes = proposals(detector, seen, None)
    assert boxes.tolist() == [[2, 2, 10, 12], [30, 30, 50, 44]]
    found = everything(model, model.embed(np.zeros(SHAPE)), boxes=boxes)
    assert found.boxes.tolist() == boxes.tolist()
    assert proposals(detector, seen, " blob ").tolist() == [[5, 5, 11, 13]]
    unsure = EverythingSettings(score_threshold=0.95)
    assert len(everything(model, model.embed(np.zeros(SHAPE)), unsure, boxes=boxes)) == 0
    assert len(everything(model, model.embed(np.zeros(SHAPE)), boxes=np.zeros((0, 4)))) == 0


def test_detectors_that_cannot_propose_say_so() -> None:
    embedding = DiscModel().embed(np.zeros(SHAPE))
    with pytest.raises(UnsupportedError, match="disc does not find concepts"):
        proposals(DiscModel(), embedding, None)
    with pytest.raises(InvalidPromptError, match="knows: blob"):
        proposals(Naming(), embedding, "cell")

    class NeedsWords(DiscModel):
        words = ()
        describe, find = Naming.describe, Naming.find

    with pytest.raises(InvalidPromptError, match="say which"):
        proposals(NeedsWords(), embedding, None)
