"""Teach nano's words: which concept each object is, from features that stay as they are.

``python -m napari_segany.training.words --data FOLDER --weights nano.safetensors``
writes the words into the weight file.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from napari_segany.models.nano.concepts import CONCEPTS
from napari_segany.models.nano.network import WINDOW, Nano
from napari_segany.models.nano.weights import load_nano, save_weights
from napari_segany.training.crops import Sample, samples
from napari_segany.training.mixture import GENERATED_CONCEPTS, Generated, Group, read_examples
from napari_segany.training.nano import normalise


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
        return samples(groups, self.seed, WINDOW, prompts=6, looks=0.5)


def concept_loss(model: Nano, batch: list[Sample]) -> tuple[Tensor, float]:
    """Loss of naming the objects of a batch, and the share that is named rightly."""
    images = torch.stack([normalise(sample.image) for sample in batch])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = model.encoder(images)[1].float()
    inside = F.avg_pool2d(torch.from_numpy(np.concatenate([sample.masks for sample in batch]))[:, None].float(), 8)
    rows = np.concatenate([[i] * len(sample.masks) for i, sample in enumerate(batch)])
    truth = torch.tensor([CONCEPTS.index(batch[i].concept) for i in rows])
    logits = model.concepts(model.concepts.codes(coarse[rows], inside[:, 0]))
    return F.cross_entropy(logits, truth), float((logits.argmax(dim=1) == truth).float().mean())


def train_words(data: Path | None, model: Nano, steps: int, seed: int = 0, learning_rate: float = 2e-3) -> list[float]:
    """Train the concept head in place; the share named rightly on each step."""
    model.eval().requires_grad_(False)
    model.concepts.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.concepts.parameters(), lr=learning_rate, weight_decay=0.01)
    loader = DataLoader(Named(data, seed), 10, num_workers=1, collate_fn=list, prefetch_factor=4)
    right = []
    for step, batch in zip(range(steps), loader, strict=False):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss, share = concept_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        right.append(share)
        if (step + 1) % 25 == 0:
            print(f"step {step + 1} of {steps}: {np.mean(right[-25:]):.3f} named rightly", flush=True)
    return right


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of annotated images with an index.json")
    parser.add_argument("--weights", type=Path, required=True, help="weight file of nano, which is changed")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    network = load_nano(torch.device("cpu"), torch.float32, args.weights).network
    train_words(args.data, network, args.steps, args.seed)
    save_weights(network, args.weights)


if __name__ == "__main__":
    main()
