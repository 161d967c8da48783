"""nano's judge: figures of answers, and how well it ranks them."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from napari_segany.core.masks import interior_point, mask_iou
from napari_segany.core.prompts import make_prompt
from napari_segany.models.nano.figures import agreement, describe, figures
from napari_segany.models.nano.judge import Judge
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
    assert shown.shape == (2, 4, 17) and shown.isfinite().all()
    agreeing = shown[..., 9:13]
    assert (agreeing[0] == 1).all()
    assert agreeing[1].sum() == 1 and agreeing[1, 0, 0] == 1
    _, steady, decided, _, unusual, _, area, cut, zoom = shown[..., :9].unbind(-1)
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
    agreed = agreement(looks, view)
    assert agreed.shape == (4, 6) and agreed.isfinite().all()
    # One cell of the coarser of the two is the least difference that is seen.
    least = (1 - 8 * 2.0 ** max(level, other_level) / side) ** 2
    if view != other:
        assert agreed[0, 3] >= least and agreed[1, 3] < 0.3
        assert agreed[0, 0] > agreed[1, 0] and agreed[0, 1] > agreed[1, 1]


def test_where_another_look_does_not_reach_it_has_seen_nothing() -> None:
    view, aside = View(0, (0, 0)), View(0, (200, 200))
    everything = np.full((4, 64, 64), 5.0, dtype=np.float32)
    scores = np.full(4, 0.5, dtype=np.float32)
    shared = (56 / 256) ** 2
    agreed = agreement({view: (everything, scores), aside: (everything, scores)}, view)
    assert agreed[:, 2] == pytest.approx(torch.full((4,), shared), abs=0.02)


def test_a_single_look_has_its_own_masks_to_agree_with() -> None:
    view = View(0, (0, 0))
    masks = np.stack([square(view, 40, 40, 60)] * 3 + [square(view, 150, 150, 60)])
    shown, scores, expected = describe({view: (masks, np.array([0.5, 0.5, 0.5, 0.5], dtype=np.float32))}, view)
    assert shown.shape == (4, 23) and scores.abs().max() < 1e-6
    assert (expected[:3] == 0.75).all() and expected[3] == 0.25


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
    assert judged > max(rank_correlation(nano), 0.3)
