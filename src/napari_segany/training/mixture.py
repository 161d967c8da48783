"""What nano is trained on: annotated images and generated ones, mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from napari_segany.models.nano.network import WINDOW
from napari_segany.training.crops import Example, Sample, make_example, make_stack, samples
from napari_segany.training.folder import read_folder, read_stacks
from napari_segany.training.generate import KINDS, generate, stacks

#: A weight and the examples that are drawn with it.
Group = tuple[float, Sequence[Example]]

#: Share of the real crops that each modality gets, by its description up to a comma.
MODALITY_WEIGHTS = {
    "fluorescence": 0.6,
    "histology": 0.3,
    "brightfield": 0.08,
    "confocal": 0.12,
    "phase contrast": 0.15,
}
#: Weight of real stacks beside them.
REAL_STACKS = 0.2
#: Share of the generated crops from stacks.
GENERATED_STACKS = 0.4
#: Generated kinds that are learned most slowly come more often than the others, by this factor.
KIND_WEIGHTS = {"bacteria": 6.0, "noisy-nuclei": 3.0, "em-neurites": 3.0, "em-mitochondria": 2.0}
#: What is labelled in real images, by a word in the description; nuclei when there is none of these.
REAL_CONCEPTS = {"membranes": "cell", "tissue": "cell", "bacteria": "bacterium"}
#: What is labelled in generated ones.
GENERATED_CONCEPTS = {
    "nuclei": "nucleus",
    "noisy-nuclei": "nucleus",
    "histology": "nucleus",
    "cells": "cell",
    "phase-cells": "cell",
    "dic-cells": "cell",
    "tissue": "cell",
    "bacteria": "bacterium",
    "em-neurites": "neurite",
    "em-mitochondria": "mitochondrion",
}
#: Generated kinds that label only one structure among others.
INCOMPLETE_KINDS = ("em-mitochondria", "em-neurites")


class Generated(Sequence[Example]):
    """Generated images of one kind, of which one is replaced now and then."""

    def __init__(self, kind: str, count: int, seed: int) -> None:
        self.kind, self.rng = kind, np.random.default_rng(seed)
        self.examples: list[Example | None] = [None] * count

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        example = self.examples[index]
        if example is None or self.rng.random() < 0.15:
            side = int(self.rng.choice([256, 320]))
            image, labels = generate(self.kind, int(self.rng.integers(2**31)), (side, side))
            complete, concept = self.kind not in INCOMPLETE_KINDS, GENERATED_CONCEPTS[self.kind]
            example = make_example(image, labels, complete, concept=concept)
            self.examples[index] = example
        return example


class GeneratedStacks(Sequence[Example]):
    """Planes of a generated stack, which is replaced after some draws."""

    DRAWS = 12

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.planes: list[Example] = []
        self.drawn = 0

    def __len__(self) -> int:
        return max(1, len(self.planes))

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if self.drawn % self.DRAWS == 0:
            self.planes = make_stack(*stacks.varied(self.rng))
        self.drawn += 1
        return self.planes[index % len(self.planes)]


class Mixture(IterableDataset[Sample]):
    """Endless samples for one worker of a `DataLoader`: real images, generated ones, and stacks of both.

    Parameters
    ----------
    data : folder with an ``index.json``, or None for generated images alone
    generated : float
        Share of the crops from generated images.
    per_kind : int
        Generated images of each kind held at once; they are renewed all the time.
    prompts, looks, streams
        See `samples`.
    seed : int
    """

    def __init__(
        self,
        data: Path | None,
        generated: float,
        per_kind: int,
        prompts: int,
        looks: float,
        streams: float,
        seed: int,
    ) -> None:
        self.data, self.generated, self.per_kind = data, generated, per_kind
        self.prompts, self.looks, self.streams, self.seed = prompts, looks, streams, seed

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        seed = self.seed * 1000 + (worker.id if worker else 0)
        torch.set_num_threads(1)
        real = [] if self.data is None else _real(self.data)
        share = self.generated if real else 1.0
        groups = [((1 - share) * weight, examples) for weight, examples in real]
        groups += [(share * weight, examples) for weight, examples in self._generated(seed * 100)]
        return samples(groups, seed, WINDOW, self.prompts, self.looks, self.streams)

    def _generated(self, seed: int) -> list[Group]:
        weights = {kind: KIND_WEIGHTS.get(kind, 1.0) for kind in KINDS}
        share = (1 - GENERATED_STACKS) / sum(weights.values())
        flat: list[Group] = [
            (share * weight, Generated(kind, self.per_kind, seed + number))
            for number, (kind, weight) in enumerate(weights.items())
        ]
        return [*flat, (GENERATED_STACKS, GeneratedStacks(seed + len(KINDS)))]


def read_examples(folder: Path) -> dict[str, list[Example]]:
    """Single images and planes of stacks, by their description up to a comma."""
    flat: dict[str, list[Example]] = {}
    for modality, items in read_folder(folder).items():
        concept = _concept(modality)
        flat.setdefault(modality.split(",")[0], []).extend(make_example(*item, concept=concept) for item in items)
    return flat


def _real(folder: Path) -> list[Group]:
    flat = read_examples(folder)
    stacks = [
        [plane for one in found for plane in make_stack(*one, concept=_concept(modality))]
        for modality, found in read_stacks(folder).items()
    ]
    groups: list[Group] = [(MODALITY_WEIGHTS.get(modality, 0.1), examples) for modality, examples in flat.items()]
    return groups + [(REAL_STACKS / len(stacks), planes) for planes in stacks]


def _concept(modality: str) -> str:
    return next((concept for word, concept in REAL_CONCEPTS.items() if word in modality), "nucleus")
