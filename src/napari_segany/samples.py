"""Generated sample images and stacks with ground truth, also napari's sample data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Names of the stacks.
STACKS = ("nuclei-3d", "cells-timelapse", "membranes-3d")


def images() -> tuple[str, ...]:
    """Names of the 2D images that `image` makes."""
    from napari_segany.training.generate import KINDS

    return KINDS


def image(name: str, seed: int = 0, shape: tuple[int, int] = (256, 256)) -> tuple[np.ndarray, np.ndarray]:
    """Generate a 2D image.

    Parameters
    ----------
    name : one of `images`
    seed : int
    shape : (H, W)

    Returns
    -------
    image : (H, W) uint8 or uint16, or (H, W, 3) uint8
    truth : (H, W) int32

    Raises
    ------
    ValueError
        An unknown name.
    """
    from napari_segany.training.generate import generate

    return generate(name, seed, shape)


def stack(name: str = "nuclei-3d", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Generate a stack whose objects keep their ids along the first axis.

    Parameters
    ----------
    name : {"nuclei-3d", "cells-timelapse", "membranes-3d"}
    seed : int

    Returns
    -------
    stack : (N, H, W) uint8 or uint16
    truth : (N, H, W) int32

    Raises
    ------
    ValueError
        An unknown name.
    """
    from napari_segany.training.generate import stacks

    makers: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
        "nuclei-3d": stacks.nuclei_3d,
        "cells-timelapse": stacks.cells_timelapse,
        "membranes-3d": stacks.membranes_3d,
    }
    if name not in makers:
        raise ValueError(f'There is no sample stack "{name}"; known ones are {", ".join(makers)}.')
    return makers[name](np.random.default_rng([seed, STACKS.index(name)]))
