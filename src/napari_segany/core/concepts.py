"""Concepts: what to look for, said in words or shown by examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidPromptError

#: Letters of a phrase that a message repeats.
NAMED = 40


@dataclass(frozen=True)
class Examples:
    """Boxes on one image that show what is meant, and what is not.

    Attributes
    ----------
    embedding : Embedding
        Of that image.
    boxes : (N, 4) float64
        (y0, x0, y1, x1) around objects to find more of.
    negatives : (M, 4) float64
        Around things that are something else.
    """

    embedding: Any
    boxes: np.ndarray
    negatives: np.ndarray


def checked_text(text: str | None) -> str | None:
    """Return a phrase without the spaces around it.

    Raises
    ------
    InvalidPromptError
        The phrase is empty.
    """
    if text is None:
        return None
    if not text.strip():
        raise InvalidPromptError('The concept is empty; type what to look for, such as "nucleus", or draw examples.')
    return text.strip()


def shortened(text: str) -> str:
    """A phrase on one line, its beginning where it is long, to be named in a message."""
    line = " ".join(text.split())
    return line if len(line) <= NAMED else f"{line[:NAMED]}…"
