"""Teach nano's judge: how good its own answers to clicks are, from a network that stays as it is.

``python -m napari_segany.training.judge --data FOLDER --weights nano.safetensors``
writes the judge into the weight file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.intensity import DEFAULT_PERCENTILES, estimate_range
from napari_segany.core.masks import Candidates, mask_iou
from napari_segany.core.prompts import Prompt
from napari_segany.models.device import resolve_dtype
from napari_segany.models.nano.figures import describe
from napari_segany.models.nano.judge import Judge
from napari_segany.models.nano.network import MASKS, Nano
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.training.clicks import inner_click
from napari_segany.training.folder import read_folder
from napari_segany.training.generate import KINDS, generate
from napari_segany.training.heads import teach_weight_file, train_head

#: Objects clicked on in each image, the smallest of them in pixels, and the longest side of images, pixels.
CLICKS, SMALLEST, LARGEST = 6, 20, 1100
LEARNING_RATE, ANSWERS_AT_ONCE, EPOCHS = 3e-3, 128, 15


def _images(data: Path | None, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless images with labels, real and generated ones in turn."""
    real = [] if data is None else list(chain.from_iterable(read_folder(data).values()))
    while True:
        for number in rng.permutation(max(len(real), len(KINDS))):
            if number < len(real) and max(real[number][0].shape[:2]) <= LARGEST:
                yield real[number]
            yield generate(str(rng.choice(KINDS)), int(rng.integers(2**31)), (320, 320))


def collect(
    data: Path | None, network: Nano, images: int, seed: int, progress: Callable[[str], None] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Figures (N, MASKS, D) of answers to clicks, the decoder's scores (N, MASKS), and the true IoU (N, MASKS)."""
    # In the precision, and so with the errors, of use.
    device = torch.device("cpu")
    model = NanoModel(copy.deepcopy(network), "nano", device, resolve_dtype("auto", device))
    rng = np.random.default_rng(seed)
    described: list[tuple[Tensor, Tensor]] = []
    ious: list[list[float]] = []
    for number, (image, labels) in zip(range(images), _images(data, rng), strict=False):
        ids, areas = np.unique(labels, return_counts=True)
        ids = ids[(ids > 0) & (areas >= SMALLEST)]
        truths = [labels == i for i in rng.permutation(ids)[:CLICKS]]
        places = [inner_click(truth, rng) for truth in truths]
        prompts = [Prompt(points=np.array([[y - 0.5, x - 0.5]]), labels=np.ones(1, np.int64)) for x, y in places]
        embedding = model.embed(image, estimate_range(image, DEFAULT_PERCENTILES))
        for i, looks in model.looks(embedding, prompts)[1].items():
            described.append(describe(looks)[:2])
            for view, answer in looks.items():
                candidates = Candidates(*answer, view.grid(embedding.image_shape))
                ious.append([mask_iou(candidates.mask(k), truths[i]) for k in range(MASKS)])
        if progress is not None and number % 25 == 0:
            progress(f"judge: {number} of {images} images")
    shown, scores = (torch.cat(part) for part in zip(*described, strict=True))
    return shown, scores, torch.tensor(ious)


def train_judge(
    data: Path | None,
    model: Nano,
    images: int = 400,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> float:
    """Train the judge in place.

    Returns
    -------
    rank correlation (Spearman) of predicted and true IoU of the first masks, on the tenth of the answers that
    came last and was kept back
    """
    from scipy.stats import spearmanr

    seen, scores, ious = collect(data, model, images, seed, progress)
    model.judge = Judge(MASKS)
    judge = model.judge
    learned = len(seen) * 9 // 10

    def loss_of(part: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(judge(seen[part], scores[part]), ious[part])

    train_head(
        judge,
        torch.arange(learned),
        loss_of,
        epochs=EPOCHS,
        at_once=ANSWERS_AT_ONCE,
        learning_rate=LEARNING_RATE,
        weight_decay=0.01,
        seed=seed,
    )
    with torch.no_grad():
        predicted = judge(seen[learned:], scores[learned:])[:, 0]
    return float(spearmanr(predicted.numpy(), ious[learned:, 0].numpy()).statistic)


def main() -> None:
    """Read the command line and train."""

    def train(data: Path | None, network: Nano, images: int, seed: int) -> str:
        return f"Spearman {train_judge(data, network, images, seed, print):.3f}"

    teach_weight_file(__doc__, "images", 400, train)


if __name__ == "__main__":
    main()
