"""Objects found in overlapping tiles, put together without seams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from napari_segany.core.boxes import Box, meeting
from napari_segany.core.instances import Found, Instances, common_pixels


@dataclass(frozen=True, eq=False)
class Piece:
    """An object as one tile shows it.

    Attributes
    ----------
    tile : int
        Number of the tile.
    box : (y0, x0, y1, x1)
        In the whole image.
    patch : array of bool
        The mask inside the box.
    score : float
    """

    tile: int
    box: Box
    patch: np.ndarray
    score: float


def stitch(shape: tuple[int, int], pieces: Sequence[Piece], windows: Sequence[Box], threshold: float) -> Instances:
    """Join pieces of one object.

    Two pieces are the same object when they agree, with an IoU above the
    threshold, where both of their tiles look. The edge of a tile may cut an
    object into several pieces, so for pieces at an edge it is enough that one
    lies in the other. Of an object that one tile shows whole, that tile's mask
    is kept; else the parts are united.

    Parameters
    ----------
    shape : (H, W)
    pieces : in any order
    windows : (y0, x0, y1, x1) of each tile
    threshold : float
    """
    parent = list(range(len(pieces)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    cut = [_is_cut(piece.box, windows[piece.tile], shape) for piece in pieces]
    members: list[list[int]] = [[] for _ in windows]
    for i, piece in enumerate(pieces):
        members[piece.tile].append(i)
    for a, b, shared in _neighbours(windows):
        ours, theirs = (
            [(i, part, np.count_nonzero(part[1])) for i in members[tile] if (part := _inside(pieces[i], shared))]
            for tile in (a, b)
        )
        for i, mine, area in ours:
            for j, other, other_area in theirs:
                common = common_pixels(mine, other)
                enough = min(area, other_area) if cut[i] or cut[j] else area + other_area - common
                if common > threshold * enough:
                    parent[root(i)] = root(j)
    groups: dict[int, list[int]] = {}
    for i in range(len(pieces)):
        groups.setdefault(root(i), []).append(i)
    joined = []
    for group in groups.values():
        whole = max((pieces[i] for i in group if not cut[i]), key=lambda piece: piece.score, default=None)
        joined.append(_joined([pieces[i] for i in group] if whole is None else [whole]))
    return Instances.from_patches(shape, [found for found, _ in joined], [score for _, score in joined])


def _neighbours(windows: Sequence[Box]) -> Iterator[tuple[int, int, Box]]:
    """Pairs of tiles that overlap, and where; without asking every pair of a large image."""
    order = sorted(range(len(windows)), key=windows.__getitem__)
    for place, a in enumerate(order):
        for b in order[place + 1 :]:
            if windows[b][0] >= windows[a][2]:
                break
            shared = meeting(windows[a], windows[b])
            if shared is not None:
                yield a, b, shared


def _joined(group: list[Piece]) -> tuple[Found, float]:
    y0, x0 = (min(piece.box[k] for piece in group) for k in (0, 1))
    y1, x1 = (max(piece.box[k] for piece in group) for k in (2, 3))
    union = np.zeros((y1 - y0, x1 - x0), dtype=bool)
    for piece in group:
        top, left, bottom, right = piece.box
        union[top - y0 : bottom - y0, left - x0 : right - x0] |= piece.patch
    return ((y0, x0, y1, x1), union), max(piece.score for piece in group)


def _is_cut(box: Box, window: Box, shape: tuple[int, int]) -> bool:
    """Whether an object touches an edge of its tile that is not the image's."""
    return any(
        (box[axis] <= window[axis] and window[axis] > 0)
        or (box[axis + 2] >= window[axis + 2] and window[axis + 2] < shape[axis])
        for axis in (0, 1)
    )


def _inside(piece: Piece, window: Box) -> Found | None:
    """The part of a piece inside a window, None when there is none."""
    shared = meeting(piece.box, window)
    if shared is None:
        return None
    y0, x0, y1, x1 = shared
    part = piece.patch[y0 - piece.box[0] : y1 - piece.box[0], x0 - piece.box[1] : x1 - piece.box[1]]
    return (shared, part) if part.any() else None
