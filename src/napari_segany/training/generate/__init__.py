"""Generated microscopy images with exact ground truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_segany.training.generate.bacteria import bacteria
from napari_segany.training.generate.fields import Rng
from napari_segany.training.generate.fluorescence import Drawn, cells, noisy_nuclei, nuclei
from napari_segany.training.generate.membranes import em_mitochondria, em_neurites, tissue
from napari_segany.training.generate.optics import digitise
from napari_segany.training.generate.transmitted import dic_cells, histology, phase_cells

_GENERATORS: dict[str, Callable[[Rng, tuple[int, int]], Drawn]] = {
    "nuclei": nuclei,
    "noisy-nuclei": noisy_nuclei,
    "cells": cells,
    "bacteria": bacteria,
    "phase-cells": phase_cells,
    "dic-cells": dic_cells,
    "histology": histology,
    "tissue": tissue,
    "em-neurites": em_neurites,
    "em-mitochondria": em_mitochondria,
}
#: Names that `generate` knows.
KINDS = tuple(_GENERATORS)


def generate(kind: str, seed: int, shape: tuple[int, int] = (256, 256)) -> tuple[np.ndarray, np.ndarray]:
    """Generate an image and its labels, the same for the same seed.

    Parameters
    ----------
    kind : one of `KINDS`
    seed : int
    shape : (H, W)

    Returns
    -------
    image : (H, W) uint8 or uint16, or (H, W, 3) uint8
    labels : (H, W) int32, consecutive from 1, at least one object
    """
    if kind not in _GENERATORS:
        raise ValueError(f'There is no generator "{kind}"; known ones are {", ".join(KINDS)}.')
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    while True:
        image, labels = _GENERATORS[kind](rng, shape)
        if labels.any():
            break
    return (image if image.dtype == np.uint8 else digitise(rng, image)), labels
