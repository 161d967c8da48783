"""Teach nano's words: which concept each object is, from features that stay as they are.

``python -m napari_segany.training.words --data FOLDER --weights nano.safetensors``
writes the words into the weight file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from napari_segany.models.nano.concepts import CONCEPTS
from napari_segany.models.nano.network import WINDOW, Nano
from napari_segany.training.crops import Sample, samples
from napari_segany.training.heads import teach_weight_file, train_head
from napari_segany.training.mixture import GENERATED_CONCEPTS, Generated, Group, read_examples
from napari_segany.training.nano import normalise

#: Sides of objects, about those at which nano looks at them.
SIZES = (50.0, 100.0)
CROPS_AT_ONCE, OBJECTS_AT_ONCE = 10, 256
LEARNING_RATE, DROPOUT = 2e-3, 0.2


class Named(IterableDataset[Sample]):
    """Endless samples in which every concept comes equally often.

    Parameters
    ----------
    data : folder with an ``index.json``, or None for generated images alone
    seed : int
    """

    def __init__(self, data: Path | None, seed: int) -> None:
        self.data, self.seed = data, seed

    def __iter__(self) -> Iterator[Sample]:
        torch.set_num_threads(1)
        by_concept: dict[str, list[Group]] = defaultdict(list)
        for number, (kind, concept) in enumerate(GENERATED_CONCEPTS.items()):
            by_concept[concept].append((1.0, Generated(kind, 16, self.seed + number)))
        if self.data is not None:
            for examples in read_examples(self.data).values():
                for concept in {example.concept for example in examples}:
                    by_concept[concept].append((1.0, [one for one in examples if one.concept == concept]))
        groups = [(1 / len(own), examples) for own in by_concept.values() for _, examples in own]
        return samples(groups, self.seed, WINDOW, prompts=6, looks=0.2, sizes=SIZES)


def collect(
    data: Path | None, model: Nano, crops: int, seed: int, progress: Callable[[str], None] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled features of objects (N, F), what they are (N,), and the crop they are from (N,)."""
    loader = DataLoader(Named(data, seed), CROPS_AT_ONCE, num_workers=1, collate_fn=list, prefetch_factor=4)
    pooled, truth, origin = [], [], []
    for number, batch in zip(range(-(-crops // CROPS_AT_ONCE)), loader, strict=False):
        images = torch.stack([normalise(sample.image) for sample in batch])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            coarse = model.encoder(images)[1].float()
        for i, sample in enumerate(batch):
            inside = F.avg_pool2d(torch.from_numpy(sample.masks)[:, None].float(), 8)[:, 0]
            pooled.append(model.concepts.pool(coarse[i].expand(len(inside), -1, -1, -1), inside))
            truth += [CONCEPTS.index(sample.concept)] * len(inside)
            origin += [number * CROPS_AT_ONCE + i] * len(inside)
        if progress is not None and number % 25 == 0:
            progress(f"words: {len(pooled)} of {crops} crops")
    return torch.cat(pooled), torch.tensor(truth), torch.tensor(origin)


def train_words(
    data: Path | None,
    model: Nano,
    crops: int = 2500,
    epochs: int = 60,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> float:
    """Train the concept head in place.

    Returns
    -------
    share of the objects named rightly on the tenth of the crops that was kept back
    """
    pooled, truth, origin = collect(data, model.eval().requires_grad_(False), crops, seed, progress)
    head = model.concepts
    kept_back = origin % 10 == 9
    learned = (~kept_back).nonzero()[:, 0]

    def loss_of(part: Tensor) -> Tensor:
        # A crop is one sample, however many of its objects are asked for: features of some are left out.
        return F.cross_entropy(head(head.encode(F.dropout(pooled[part], DROPOUT))), truth[part])

    train_head(
        head,
        learned,
        loss_of,
        epochs=epochs,
        at_once=OBJECTS_AT_ONCE,
        learning_rate=LEARNING_RATE,
        weight_decay=0.05,
        seed=seed,
    )
    with torch.no_grad():
        named = head(head.encode(pooled[kept_back])).argmax(dim=1)
    return float((named == truth[kept_back]).float().mean())


def main() -> None:
    """Read the command line and train."""

    def train(data: Path | None, network: Nano, crops: int, seed: int) -> str:
        return f"{train_words(data, network, crops, seed=seed, progress=print):.3f} named rightly"

    teach_weight_file(__doc__, "crops", 2500, train)


if __name__ == "__main__":
    main()
