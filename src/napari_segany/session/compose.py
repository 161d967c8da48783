"""Many objects' masks on one frame of labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from napari_segany.session.carried import Carried


def compose(
    before: np.ndarray,
    found: Mapping[int, Carried],
    replaced: Collection[int],
    yielding: Mapping[int, Collection[int]] | None = None,
) -> np.ndarray:
    """Write objects into a frame of labels.

    Parameters
    ----------
    before : (H, W) integer array
        The frame as it is.
    found : object id -> Carried
    replaced : object ids
        Their old pixels on this frame go first. All other objects are kept
        where they are, and win over new masks.
    yielding : object id -> object ids, optional
        The others that a new mask wins over all the same.

    Returns
    -------
    (H, W) array of the same dtype
        Where new masks overlap, the larger logit wins, whatever the ids; of equal ones the smaller id.
    """
    labels = before.copy()
    labels[np.isin(labels, list(replaced))] = 0
    taken = labels != 0
    yielding = yielding or {}
    strongest = np.zeros(labels.shape, dtype=np.float32)
    for object_id, carried in sorted(found.items()):
        y0, x0, y1, x1 = carried.box
        window = slice(y0, y1), slice(x0, x1)
        free = ~taken[window] | np.isin(before[window], list(yielding.get(object_id, ())))
        wins = (carried.logits > strongest[window]) & free
        labels[window][wins] = object_id
        strongest[window][wins] = carried.logits[wins]
    return labels
