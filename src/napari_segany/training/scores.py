"""Teach nano to score its masks: from its own answers, and a network that stays as it is.

``python -m napari_segany.training.scores --data FOLDER --weights nano.safetensors``
writes both heads that score into the weight file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.intensity import DEFAULT_PERCENTILES, estimate_range, to_rgb
from napari_segany.core.masks import Candidates, bounding_box, mask_iou
from napari_segany.core.prompts import Prompt, mask_logits
from napari_segany.models.device import resolve_dtype
from napari_segany.models.nano.figures import describe
from napari_segany.models.nano.judge import Judge
from napari_segany.models.nano.mask_iou_head import MaskIoUHead
from napari_segany.models.nano.network import MASKS, Nano
from napari_segany.models.nano.predictor import NanoModel
from napari_segany.models.nano.views import Answer, View
from napari_segany.training.clicks import inner_click
from napari_segany.training.crops import change_look
from napari_segany.training.folder import read_folder
from napari_segany.training.generate import KINDS, generate
from napari_segany.training.heads import teach_weight_file, train_head
from napari_segany.training.mixture import INCOMPLETE_KINDS

#: Objects clicked on in each image, and boxes that are proposed for it.
CLICKS, BOXES = 8, 12
#: The smallest of the objects in pixels, and the longest side of images, pixels.
SMALLEST, LARGEST = 20, 1100
#: Share of the images whose look is changed, and of the objects whose mask on a neighbouring frame is given too.
LOOKS, NEIGHBOURS = 0.5, 0.3
#: Answers are scored from so many at once.
AT_ONCE = 32


@dataclass(frozen=True)
class Annotated:
    """An image that prompts are tried on.

    Attributes
    ----------
    image : (H, W, 3) uint8
    labels : (H, W) int32
    complete : bool
        Whether every object is labelled, so that the rest is background.
    """

    image: np.ndarray
    labels: np.ndarray
    complete: bool


@dataclass(frozen=True)
class Click:
    """All looks at the object of a click.

    Attributes
    ----------
    rows : (L,) int64
        Of the looks among all answers.
    views : L x View
    logits : (L, MASKS, h, w) float16
    """

    rows: Tensor
    views: Sequence[View]
    logits: np.ndarray


@dataclass(frozen=True)
class Answers:
    """Answers to prompts of all kinds, some 200 KB each.

    Attributes
    ----------
    evidence : tensors (N, ...)
        See `Decoder.draw`.
    ious : (N, MASKS) float32
        Of each mask with its object.
    asked : (N, MASKS) float32
        1 for masks that can answer the prompt.
    clicks : sequence of Click
    """

    evidence: Sequence[Tensor]
    ious: Tensor
    asked: Tensor
    clicks: Sequence[Click]


def _images(data: Path | None, rng: np.random.Generator) -> Iterator[Annotated]:
    """Endless images with labels, real and generated ones in turn."""
    real = [] if data is None else list(chain.from_iterable(read_folder(data).values()))
    while True:
        for number in rng.permutation(max(len(real), len(KINDS))):
            if number < len(real) and max(real[number][0].shape[:2]) <= LARGEST:
                image, labels = real[number]
                yield _annotated(image, labels, True, rng)
            kind = str(rng.choice(KINDS))
            image, labels = generate(kind, int(rng.integers(2**31)), (320, 320))
            yield _annotated(image, labels, kind not in INCOMPLETE_KINDS, rng)


def _annotated(image: np.ndarray, labels: np.ndarray, complete: bool, rng: np.random.Generator) -> Annotated:
    rgb = to_rgb(image, estimate_range(image, DEFAULT_PERCENTILES))
    if rng.random() < LOOKS:
        changed = change_look(torch.from_numpy(rgb).permute(2, 0, 1), rng).permute(1, 2, 0)
        rgb = changed.round().byte().numpy()
    return Annotated(rgb.round().astype(np.uint8), labels, complete)


def collect(
    data: Path | None, network: Nano, images: int, seed: int, progress: Callable[[str], None] | None = None
) -> Answers:
    """Click on objects, give their masks on a neighbouring frame, and take boxes that nano itself proposes."""
    # In the precision, and so with the errors, of use.
    device = torch.device("cpu")
    model = NanoModel(copy.deepcopy(network), "nano", device, resolve_dtype("auto", device))
    rng = np.random.default_rng(seed)
    evidence: list[tuple[Tensor, ...]] = []
    ious: list[list[float]] = []
    asked: list[Tensor] = []
    clicks: list[Click] = []
    for number, one in zip(range(images), _images(data, rng), strict=False):
        embedding = model.embed(one.image)
        prompts, truths = _prompts(one, model.propose_boxes(embedding) if one.complete else np.zeros((0, 4)), rng)
        for i, looks in model.looks(embedding, prompts)[1].items():
            single = prompts[i].is_ambiguous
            if single:
                rows = torch.arange(len(ious), len(ious) + len(looks))
                logits = np.stack([logits for logits, _ in looks.values()]).astype(np.float16)
                clicks.append(Click(rows, list(looks), logits))
            asked += [torch.tensor([True, single, single, single])] * len(looks)
            for view, answer in looks.items():
                drawn = Candidates(*answer, view.grid(embedding.image_shape))
                ious.append([_overlap(drawn.mask(k), truths[i], one.labels) for k in range(MASKS)])
                with torch.inference_mode():
                    seen = model.network.decoder.draw(*model.windows(embedding, [(i, view)], prompts))[1]
                evidence.append(tuple(part[0].to(torch.bfloat16).clone() for part in seen))
        if progress is not None and number % 25 == 0:
            progress(f"scores: {number} of {images} images")
    parts = tuple(torch.stack(part) for part in zip(*evidence, strict=True))
    return Answers(parts, torch.tensor(ious), torch.stack(asked).float(), clicks)


def _prompts(
    one: Annotated, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[list[Prompt], list[np.ndarray | None]]:
    """Prompts on an image, and their objects; None where nothing but a box is known."""
    ids, areas = np.unique(one.labels, return_counts=True)
    ids = ids[(ids > 0) & (areas >= SMALLEST)]
    prompts: list[Prompt] = []
    truths: list[np.ndarray | None] = []
    for object_id in rng.permutation(ids)[:CLICKS]:
        truth = one.labels == object_id
        x, y = inner_click(truth, rng)
        prompts.append(Prompt(points=np.array([[y - 0.5, x - 0.5]]), labels=np.ones(1, np.int64)))
        truths.append(truth)
        if rng.random() < NEIGHBOURS:
            prompts.append(Prompt(mask=mask_logits(_moved(truth, rng))))
            truths.append(truth)
    for box in rng.permutation(boxes)[:BOXES]:
        prompts.append(Prompt(box=box))
        truths.append(None)
    return prompts, truths


def _moved(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as it may lie one frame on, a little larger or smaller."""
    from scipy import ndimage

    y0, x0, y1, x1 = bounding_box(mask)
    size = max(y1 - y0, x1 - x0)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.08 * size + 0.5)
    moved = ndimage.shift(soft, rng.normal(0, 0.1 * size, 2), order=1) > rng.uniform(0.25, 0.7)
    return moved if moved.any() else mask


def _overlap(mask: np.ndarray, truth: np.ndarray | None, labels: np.ndarray) -> float:
    """IoU with the truth, or with the object that most of the mask lies on, 0 where it lies on none."""
    if truth is None:
        counts = np.bincount(labels[mask], minlength=1)
        counts[0] = 0
        if not counts.any():
            return 0.0
        truth = labels == counts.argmax()
    return mask_iou(mask, truth)


def train_scores(
    data: Path | None,
    model: Nano,
    images: int = 400,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> float:
    """Train the decoder's `MaskIoUHead`, then the judge, in place; both go on from what they have learned.

    Returns
    -------
    rank correlation (Spearman) of predicted and true IoU of the first masks of clicks, on the tenth of the clicks that
    came last and was kept back
    """
    from scipy.stats import spearmanr

    model.eval().requires_grad_(False)
    answers = collect(data, model, images, seed, progress)
    kept_back = answers.clicks[len(answers.clicks) * 9 // 10 :]
    head = model.decoder.mask_iou
    _train_head(head, answers, int(kept_back[0].rows[0]), seed)
    if progress is not None:
        progress("scores: the head has learned, now the judge")
    seen, scores = [], []
    for click, own in zip(answers.clicks, _scores(head, answers), strict=True):
        looks = _looks(click, own)
        shown, predicted = describe(looks)
        seen.append(shown)
        scores.append(predicted)
    learned = len(answers.clicks) - len(kept_back)
    rows = torch.cat([click.rows for click in answers.clicks])
    _train_judge(model.judge, torch.cat(seen[:learned]), torch.cat(scores[:learned]), answers.ious[rows], seed)
    with torch.no_grad():
        judged = model.judge(torch.cat(seen[learned:]), torch.cat(scores[learned:]))[:, 0]
    true = answers.ious[rows][-len(judged) :, 0]
    return float(spearmanr(judged.numpy(), true.numpy()).statistic)


def _train_head(head: MaskIoUHead, answers: Answers, learned: int, seed: int) -> None:
    def loss_of(part: Tensor) -> Tensor:
        # Rows come in random order, so the first of them is as good as a die.
        evidence = [_turned(values[part].float(), int(part[0])) for values in answers.evidence]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = head(*evidence).float()
        error = F.binary_cross_entropy_with_logits(predicted, answers.ious[part], reduction="none")
        asked = answers.asked[part]
        return (error * asked).sum() / asked.sum()

    train_head(
        head,
        torch.arange(learned),
        loss_of,
        epochs=5,
        at_once=AT_ONCE,
        learning_rate=2e-3,
        weight_decay=0.02,
        seed=seed,
    )


def _turned(values: Tensor, how: int) -> Tensor:
    """Maps (P, C, h, w) mirrored in one of eight ways; what is no map stays as it is."""
    if values.ndim < 4:
        return values
    values = values.flip(2) if how & 1 else values
    values = values.flip(3) if how & 2 else values
    return values.transpose(2, 3) if how & 4 else values


def _scores(head: MaskIoUHead, answers: Answers) -> Iterator[np.ndarray]:
    """What the head makes of the looks at each click, (L, MASKS) in 0-1."""
    for click in answers.clicks:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = head(*(values[click.rows].float() for values in answers.evidence))
        yield predicted.float().sigmoid().numpy()


def _looks(click: Click, scores: np.ndarray) -> Mapping[View, Answer]:
    masks = click.logits.astype(np.float32)
    return dict(zip(click.views, zip(masks, scores, strict=True), strict=True))


def _train_judge(judge: Judge, seen: Tensor, scores: Tensor, ious: Tensor, seed: int) -> None:
    def loss_of(part: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(judge(seen[part], scores[part]), ious[part])

    train_head(
        judge,
        torch.arange(len(seen)),
        loss_of,
        epochs=15,
        at_once=128,
        learning_rate=3e-3,
        weight_decay=0.01,
        seed=seed,
    )


def main() -> None:
    """Read the command line and train."""

    def train(data: Path | None, network: Nano, images: int, seed: int) -> str:
        return f"Spearman {train_scores(data, network, images, seed, print):.3f}"

    teach_weight_file(__doc__, "images", 400, train)


if __name__ == "__main__":
    main()
