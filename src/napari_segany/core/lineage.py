"""Objects over time as a graph: a node for each object on each frame, edges to where it or its daughters are next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Lineage:
    """Who is where, and who comes from whom.

    Attributes
    ----------
    frames : (N,) int64
        Ascending.
    object_ids : (N,) int64
    centroids : (N, D) float64
        Pixels, in the order of the labels' axes after the first: (y, x) or (z, y, x).
    edges : (M, 2) int64
        Nodes, earlier and later; sorted by the later one. No node has two that lead to it.
    """

    frames: np.ndarray
    object_ids: np.ndarray
    centroids: np.ndarray
    edges: np.ndarray

    @property
    def tracklets(self) -> np.ndarray:
        """(N,) int64: paths between appearances, divisions and ends; each has the id of its first object if free."""
        follows = np.bincount(self.edges[:, 0], minlength=len(self.frames))[self.edges[:, 0]] == 1
        return self._numbered(follows)

    @property
    def origins(self) -> dict[int, int]:
        """Tracklet -> tracklet that it comes from by division."""
        pairs = self.tracklets[self.edges]
        return {int(later): int(earlier) for earlier, later in pairs if earlier != later}

    @property
    def segments(self) -> np.ndarray:
        """(N,) int64: tracklets cut where the object's id changes and where frames are missing."""
        first, second = self.edges.T
        whole = (np.diff(self.frames[self.edges], axis=1)[:, 0] == 1) & (
            self.object_ids[first] == self.object_ids[second]
        )
        follows = np.bincount(first, minlength=len(self.frames))[first] == 1
        return self._numbered(follows & whole)

    @property
    def families(self) -> np.ndarray:
        """(N,) int64: an object with all its descendants, named after the object."""
        return self._numbered(np.ones(len(self.edges), dtype=bool))

    def _numbered(self, joins: np.ndarray) -> np.ndarray:
        """Number the parts into which the chosen edges (M,) bool join nodes."""
        numbers = np.zeros(len(self.frames), dtype=np.int64)
        came_from = np.full(len(self.frames), -1)
        came_from[self.edges[joins, 1]] = self.edges[joins, 0]
        taken: set[int] = set()
        unused = int(self.object_ids.max(initial=0)) + 1
        for node, before in enumerate(came_from):
            if before >= 0:
                numbers[node] = numbers[before]
                continue
            numbers[node] = self.object_ids[node]
            if numbers[node] in taken:
                numbers[node], unused = unused, unused + 1
            taken.add(int(numbers[node]))
        return numbers


def trace(frames: Iterable[np.ndarray], parents: Mapping[tuple[int, int], int]) -> Lineage:
    """Read the graph out of labels.

    Parameters
    ----------
    frames : integer arrays of one shape, ([Z,] H, W)
        Labels, 0 is background; read one at a time.
    parents : dict of (object id, frame) -> object id
        Of objects that come from another one by division.
    """
    return link([centroids(np.asarray(labels)) for labels in frames], parents)


def link(found: Sequence[tuple[np.ndarray, np.ndarray]], parents: Mapping[tuple[int, int], int]) -> Lineage:
    """Join the `centroids` of all frames, in their order; see `trace`."""
    when = np.repeat(np.arange(len(found), dtype=np.int64), [len(ids) for ids, _ in found])
    who = np.concatenate([ids for ids, _ in found])
    edges = _edges(when, who, {child: parent for (child, _), parent in parents.items()})
    return Lineage(when, who, np.concatenate([where for _, where in found]), edges)


def centroids(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids (N,) int64 and centroids (N, D) float64, in pixels, of the objects of one frame."""
    places = np.nonzero(labels)
    ids, which, areas = np.unique(labels[places], return_inverse=True, return_counts=True)
    means = [np.bincount(which, weights=axis, minlength=len(ids)) / areas for axis in places]
    return ids.astype(np.int64), np.stack(means, axis=1)


def _edges(frames: np.ndarray, ids: np.ndarray, parents: Mapping[int, int]) -> np.ndarray:
    appearances: dict[int, list[int]] = {}
    for node, object_id in enumerate(ids.tolist()):
        appearances.setdefault(object_id, []).append(node)
    edges = [pair for nodes in appearances.values() for pair in pairwise(nodes)]
    for child, parent in parents.items():
        if child in appearances:
            first = appearances[child][0]
            before = [node for node in appearances.get(parent, []) if frames[node] < frames[first]]
            if before:
                edges.append((before[-1], first))
    return np.array(sorted(edges, key=lambda edge: edge[1]), dtype=np.int64).reshape(-1, 2)
