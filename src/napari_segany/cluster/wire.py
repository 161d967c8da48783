"""What crosses the network between a person's computer and a model on another: small, and no tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_segany.core.masks import Candidates, LogitsGrid
from napari_segany.core.prompts import MASK_LOGIT, Prompt, mask_logits


class ForgottenError(LookupError):
    """The other side does not have an object (any more); it is named by the only argument."""


@dataclass(frozen=True)
class Facts:
    """What a client must know of the model it uses from afar.

    Attributes
    ----------
    name, family : str
    capabilities : frozenset of str
    device, dtype : str
        Where it computes, and how.
    words : tuple of str or None
        None for models that do not find concepts.
    everything_settings : EverythingSettings or None
        None for models that do not propose boxes.
    volume_window : WindowShape or None
        None for models that do not draw volumes.
    revises : bool
        Whether its memories can be told better about a frame; see `RevisableTracker`.
    """

    name: str
    family: str
    capabilities: frozenset[str]
    device: str
    dtype: str
    words: tuple[str, ...] | None
    everything_settings: Any
    volume_window: Any
    revises: bool


@dataclass(frozen=True, eq=False)
class Bits:
    """A mask prompt that is sure of every pixel, one bit each."""

    shape: tuple[int, int]
    data: np.ndarray


@dataclass(frozen=True, eq=False)
class Sparse:
    """A matrix of interpolation, which is nearly all zeros."""

    shape: tuple[int, int]
    places: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Answers:
    """Candidates that share grids.

    Attributes
    ----------
    grids : list of (image shape, origin, rows, columns)
    candidates : list of (Candidates without its grid, number of the grid)
    """

    grids: list[tuple[Any, Any, Sparse, Sparse]]
    candidates: list[tuple[Candidates, int]]


def pack_prompt(prompt: Prompt) -> Prompt:
    """A prompt whose mask, if it is one of pixels that are surely in or out, is packed."""
    mask = prompt.mask
    if mask is None or not (np.abs(mask) == MASK_LOGIT).all():
        return prompt
    packed: Any = Bits((mask.shape[0], mask.shape[1]), np.packbits(mask > 0))
    return replace(prompt, mask=packed)


def unpack_prompt(prompt: Prompt) -> Prompt:
    """Undo `pack_prompt`."""
    packed: Any = prompt.mask
    if not isinstance(packed, Bits):
        return prompt
    inside = np.unpackbits(packed.data, count=packed.shape[0] * packed.shape[1]).reshape(packed.shape)
    return replace(prompt, mask=mask_logits(inside))


def pack_answers(candidates: Sequence[Candidates]) -> Answers:
    """Candidates with each grid once, and of each grid what is not zero."""
    numbers: dict[int, int] = {}
    grids: list[tuple[Any, Any, Sparse, Sparse]] = []
    packed = []
    for one in candidates:
        grid = one.grid
        if id(grid) not in numbers:
            numbers[id(grid)] = len(grids)
            grids.append((grid.image_shape, grid.origin, _sparse(grid.rows), _sparse(grid.cols)))
        nothing: Any = None
        packed.append((replace(one, grid=nothing), numbers[id(grid)]))
    return Answers(grids, packed)


def unpack_answers(answers: Answers) -> list[Candidates]:
    """Undo `pack_answers`."""
    grids = [LogitsGrid(shape, origin, _dense(rows), _dense(cols)) for shape, origin, rows, cols in answers.grids]
    return [replace(one, grid=grids[number]) for one, number in answers.candidates]


def pack_found(found: Mapping[int, Candidates]) -> tuple[list[int], Answers]:
    """Candidates by object id."""
    return list(found), pack_answers(list(found.values()))


def unpack_found(packed: tuple[list[int], Answers]) -> dict[int, Candidates]:
    """Undo `pack_found`."""
    return dict(zip(packed[0], unpack_answers(packed[1]), strict=True))


def _sparse(matrix: np.ndarray) -> Sparse:
    places = np.flatnonzero(matrix)
    return Sparse((matrix.shape[0], matrix.shape[1]), places.astype(np.int32), matrix.ravel()[places])


def _dense(sparse: Sparse) -> np.ndarray:
    matrix = np.zeros(sparse.shape[0] * sparse.shape[1], dtype=np.float32)
    matrix[sparse.places] = sparse.values
    return matrix.reshape(sparse.shape)
