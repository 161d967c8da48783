"""What nano takes an object for: a code of what lies under its mask and around it, and the words for that code."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.core.concepts import shortened
from napari_segany.core.errors import InvalidPromptError

#: Words that mean any object at all.
ANYTHING = ("everything", "object")
#: What nano was shown, in the order of its answers.
CONCEPTS = ("nucleus", "cell", "bacterium", "mitochondrion", "neurite")
#: Other words for the same.
SYNONYMS = {
    "nuclei": "nucleus",
    "cells": "cell",
    "membrane-bound cell": "cell",
    "membrane-bound cells": "cell",
    "bacteria": "bacterium",
    "mitochondria": "mitochondrion",
    "neurites": "neurite",
    "axon": "neurite",
    "axons": "neurite",
    "objects": "object",
}
#: Channels of a code.
CODE = 48


class ConceptHead(nn.Module):
    """Features inside a mask, around it and over the window, to a code and to logits of `CONCEPTS`.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.hidden = nn.Linear(4 * channels, 2 * CODE)
        self.code = nn.Linear(2 * CODE, CODE)
        self.words = nn.Linear(CODE, len(CONCEPTS))

    def codes(self, coarse: Tensor, inside: Tensor) -> Tensor:
        """Codes of objects.

        Parameters
        ----------
        coarse : (P, C, h, w)
            The encoder's features in a window.
        inside : (P, h, w)
            Share of each cell inside the object.

        Returns
        -------
        (P, CODE)
        """
        return self.encode(self.pool(coarse, inside))

    def encode(self, pooled: Tensor) -> Tensor:
        """(P, 4 * C) of `pool` to codes (P, CODE)."""
        return self.code(F.relu(self.hidden(self.norm(pooled))))

    @staticmethod
    def pool(coarse: Tensor, inside: Tensor) -> Tensor:
        """Means inside, around and over the window, and spread over the window, (P, 4 * C); see `codes`."""
        inside = inside.to(coarse.dtype)
        around = (F.max_pool2d(inside[:, None], 5, stride=1, padding=2)[:, 0] - inside).clamp(min=0)
        everywhere = torch.ones_like(inside)
        means = [
            torch.einsum("phw,pchw->pc", where, coarse) / (where.sum(dim=(1, 2))[:, None] + 1e-3)
            for where in (inside, around, everywhere)
        ]
        means.append(coarse.float().std(dim=(2, 3)).to(coarse.dtype))
        return torch.cat(means, dim=1)

    def forward(self, codes: Tensor) -> Tensor:
        """(P, CODE) to logits (P, len(CONCEPTS)); an object is one of them."""
        return self.words(F.relu(codes))


def concept_of(text: str, model: str) -> int | None:
    """Place of a word in `CONCEPTS`, None for any object.

    Raises
    ------
    InvalidPromptError
        A word that nano was not shown.
    """
    word = " ".join(text.lower().split())
    word = SYNONYMS.get(word, word)
    if word in ANYTHING:
        return None
    if word not in CONCEPTS:
        known = ", ".join([*CONCEPTS, *ANYTHING])
        raise InvalidPromptError(
            f'{model} does not know "{shortened(text)}", it knows: {known}; '
            "draw boxes around examples instead, or load SAM 3 for any word."
        )
    return CONCEPTS.index(word)
