"""nano's judge: figures of answers, and how well it ranks them."""

import numpy as np
import torch
from scipy.stats import spearmanr

from napari_segany.core.masks import interior_point, mask_iou
from napari_segany.core.prompts import make_prompt
from napari_segany.models.nano.judge import Judge, figures
from napari_segany.models.nano.network import MASKS
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.weights import load_nano
from napari_segany.training.generate import generate


def test_figures_tell_agreement_size_and_decidedness() -> None:
    logits = torch.full((2, 4, 64, 64), -5.0)
    logits[0, :, 10:28, 20:30] = 5.0
    logits[1, 0, :20, :20] = 0.5
    shown = figures(logits, torch.zeros(2, 4), -2)
    assert shown.shape == (2, 4, 17) and shown.isfinite().all()
    agreement = shown[..., 9:13]
    assert (agreement[0] == 1).all()
    assert agreement[1].sum() == 1 and agreement[1, 0, 0] == 1
    _, steady, decided, _, unusual, _, area, cut, zoom = shown[..., :9].unbind(-1)
    assert (unusual[0] == 0).all() and unusual[1, 0] > 0
    assert steady[0, 0] == 1 and steady[1, 0] == 0 and decided[0, 0] > decided[1, 0]
    assert (zoom == -1).all() and cut[0].sum() == 0 and cut[1].tolist() == [1, 0, 0, 0]
    assert area[1, 0] > area[0, 0] > area[1, 1] == 0


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
