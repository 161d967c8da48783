"""How nano scores its masks: figures of answers, the head and the judge, and how well they rank answers."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import spearmanr

from napari_segany.core.masks import bounding_box, interior_point, mask_iou
from napari_segany.core.prompts import make_prompt
from napari_segany.models.nano.figures import describe, figures, mutual_overlaps
from napari_segany.models.nano.judge import Judge
from napari_segany.models.nano.mask_iou_head import MaskIoUHead
from napari_segany.models.nano.network import MASKS, WINDOW
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.views import View
from napari_segany.models.nano.weights import load_nano
from napari_segany.training.generate import generate


def test_figures_tell_agreement_size_and_decidedness() -> None:
    logits = torch.full((4, 64, 64), -5.0)
    logits[:, 10:28, 20:30] = 5.0
    uneven = torch.full((4, 64, 64), -5.0)
    uneven[0, :20, :20] = 0.5
    shown = torch.stack([figures(part, torch.zeros(4), -2) for part in (logits, uneven)])
    assert shown.shape == (2, 4, 9) and shown.isfinite().all()
    _, steady, decided, _, unusual, _, area, cut, zoom = shown.unbind(-1)
    assert (unusual[0] == 0).all() and unusual[1, 0] > 0
    assert steady[0, 0] == 1 and steady[1, 0] == 0 and decided[0, 0] > decided[1, 0]
    assert (zoom == -1).all() and cut[0].sum() == 0 and cut[1].tolist() == [1, 0, 0, 0]
    assert area[1, 0] > area[0, 0] > area[1, 1] == 0


def square(view: View, y0: float, x0: float, side: float) -> np.ndarray:
    """Logits of a square of the image (its first corner and side in pixels) seen through a view, (64, 64)."""
    inside = []
    for origin, first in zip(view.origin, (y0, x0), strict=True):
        centres = (origin + 4 * (np.arange(64) + 0.5)) * 2.0**view.level
        inside.append((centres > first) & (centres < first + side))
    return np.where(inside[0][:, None] & inside[1], 5.0, -5.0).astype(np.float32)


@given(
    st.integers(-2, 1), st.integers(-2, 1), st.tuples(*[st.integers(-8, 8)] * 2), st.floats(0, 40), st.floats(80, 140)
)
def test_a_mask_agrees_with_itself_seen_through_any_other_view(
    level: int, other_level: int, moved: tuple[int, int], corner: float, side: float
) -> None:
    centre = np.array([corner + side / 2] * 2)
    view, other = View.at(centre, level), View.at(centre + moved, other_level)
    own, seen = square(view, corner, corner, side), square(other, corner, corner, side)
    assume(own.max() > 0 and min(WINDOW * 2.0**level, WINDOW * 2.0**other_level) > 1.3 * side + 16)
    elsewhere = square(view, corner + side, corner, side)
    scores = np.full(4, 0.5, dtype=np.float32)
    looks = {
        view: (np.stack([own, elsewhere, own, elsewhere]), scores),
        other: (np.stack([seen] * 4), scores),
    }
    overlaps = mutual_overlaps(looks)
    assert torch.allclose(overlaps, overlaps.permute(2, 3, 0, 1))
    # One cell of the coarser of the two is the least difference that is seen.
    least = (1 - 8 * 2.0 ** max(level, other_level) / side) ** 2
    if view != other:
        shown, _ = describe(looks)
        assert (overlaps[0, 0, 1] >= least).all() and (overlaps[0, 1, 1] < 0.3).all()
        assert shown.shape == (2, 4, 23)
        assert (shown[0, 0, 17:21] > shown[0, 1, 17:21]).all()


def test_where_another_look_does_not_reach_it_has_seen_nothing() -> None:
    view, aside, nearer = View(0, (0, 0)), View(0, (200, 200)), View(-1, (128, 128))
    everything = np.full((4, 64, 64), 5.0, dtype=np.float32)
    scores = np.full(4, 0.5, dtype=np.float32)
    overlaps = mutual_overlaps(dict.fromkeys((view, aside, nearer), (everything, scores)))
    shared = 56**2
    assert overlaps[0, :, 1].numpy() == pytest.approx(shared / (2 * 256**2 - shared), abs=0.01)
    assert overlaps[0, :, 2].numpy() == pytest.approx(0.25, abs=0.01), "a mask that its window cuts is not a match"


def test_a_single_look_has_its_own_masks_to_agree_with() -> None:
    view = View(0, (0, 0))
    masks = np.stack([square(view, 40, 40, 60)] * 3 + [square(view, 150, 150, 60)])
    shown, scores = describe({view: (masks, np.array([0.5, 0.5, 0.5, 0.5], dtype=np.float32))})
    assert shown.shape == (1, 4, 23) and scores.abs().max() < 1e-6
    same_look, expected = shown[0, :, 9:13], shown[0, :, 17]
    assert (expected[:3] == 0.75).all() and expected[3] == 0.25
    assert same_look.sum(dim=1).tolist() == [3, 3, 3, 1] and (same_look[:, 0] == 1).all()


def rank_correlation(nano: NanoModel) -> float:
    """Of predicted and true IoU of clicks on generated images."""
    predicted, true = [], []
    for number, kind in enumerate(["nuclei", "noisy-nuclei", "phase-cells", "tissue", "bacteria", "em-mitochondria"]):
        image, labels = generate(kind, 77_000 + number, (256, 256))
        ids = np.unique(labels[labels > 0])[:12]
        prompts = [make_prompt(labels.shape, points=[interior_point(labels == i)]) for i in ids]
        for i, answer in zip(ids, nano.predict(nano.embed(image), prompts), strict=True):
            predicted.append(float(answer.scores[answer.best_index]))
            true.append(mask_iou(answer.best, labels == i))
    return float(spearmanr(predicted, true).statistic)


def test_predicted_iou_ranks_clicks_better_than_the_decoder_alone() -> None:
    nano = load_nano(torch.device("cpu"), torch.float32)
    judged = rank_correlation(nano)
    nano.network.judge = Judge(MASKS)
    unjudged = rank_correlation(nano)
    untaught(nano)
    alone = rank_correlation(nano)
    assert judged > max(alone, 0.5) and unjudged > alone


def untaught(nano: NanoModel) -> None:
    """Undo what the head that scores masks has learned."""
    config = nano.network.config
    nano.network.decoder.mask_iou = MaskIoUHead(MASKS, config.coarse, config.decoder_width)


def test_before_it_is_taught_the_head_leaves_scores_as_they_are() -> None:
    torch.manual_seed(0)
    head = MaskIoUHead(MASKS, 80, 128)
    logits = torch.randn(3, MASKS, 64, 64).cumsum(dim=2)
    scores = torch.randn(3, MASKS)
    assert torch.equal(head(torch.randn(3, 80, 32, 32), torch.randn(3, 128), logits, scores), scores)


def test_the_head_tells_a_mask_from_the_same_mask_beside_its_object() -> None:
    nano = load_nano(torch.device("cpu"), torch.float32)
    image, labels = generate("nuclei", 77_100, (256, 256))
    truth = labels == np.bincount(labels[labels > 0]).argmax()
    prompt = make_prompt(labels.shape, box=bounding_box(truth))
    embedding = nano.embed(image)
    (view,), _ = nano.looks(embedding, [prompt])
    with torch.inference_mode():
        _, evidence = nano.network.decoder.draw(*nano.windows(embedding, [(0, view)], [prompt]))
        coarse, around, logits, scores = evidence
        beside = logits.roll(12, dims=-1)
        right, wrong = (nano.network.decoder.mask_iou(coarse, around, drawn, scores) for drawn in (logits, beside))
    assert (right > wrong + 0.1).all()


def test_weights_from_before_the_head_score_as_they_did(tmp_path: Path) -> None:
    nano = load_nano(torch.device("cpu"), torch.float32)
    untaught(nano)
    state = {k: v.contiguous() for k, v in nano.network.state_dict().items() if not k.startswith("decoder.mask_iou.")}
    metadata = {"version": "1", "family": "nano", "config": json.dumps(asdict(nano.network.config))}
    path = tmp_path / "earlier.safetensors"
    save_file(state, path, metadata=metadata)
    earlier = load_nano(torch.device("cpu"), torch.float32, path)
    image, labels = generate("nuclei", 77_101, (256, 256))
    prompts = [make_prompt(labels.shape, points=[(100, 120)]), make_prompt(labels.shape, box=(40, 40, 90, 100))]
    for old, new in zip(
        earlier.predict(earlier.embed(image), prompts), nano.predict(nano.embed(image), prompts), strict=True
    ):
        assert np.allclose(old.scores, new.scores, atol=1e-5) and np.allclose(old.logits, new.logits, atol=1e-4)
