"""Colonies that grow: rods lengthen, divide and push each other aside, as on an agar pad."""

from __future__ import annotations

import numpy as np

from napari_segany.training.generate.fields import Rng

#: Growth of a rod between two rounds of pushing, and rounds of pushing after each growth.
GROWTH, PUSHES = 0.03, 8
#: Part of all overlaps that a round of pushing undoes.
STEP = 0.25


def grow_colony(rng: Rng, count: int, longest: float, disorder: float) -> np.ndarray:
    """Grow one rod until there are `count`.

    Rods are capsules of width 1 that repel each other where they overlap; of two
    segments in a plane that do not cross, the nearest points include an end, so
    ends are all that is looked at. Cf. Rudge et al. 2012 (CellModeller).

    Parameters
    ----------
    longest : float
        Mean total length at which a rod divides, in widths; above 2.
    disorder : float
        Deviation in radians of the angle between daughters.

    Returns
    -------
    (N, 4) float64
        y, x, angle and total length of each rod, in widths about the colony's middle.
    """
    rods = np.array([[0.0, 0.0, rng.uniform(0, np.pi), rng.uniform(0.5, 1.0) * longest]])
    limits = longest * np.exp(rng.normal(0, 0.15, 1))
    while len(rods) < count:
        rods[:, 3] *= 1 + GROWTH * rng.uniform(0.5, 1.5, len(rods))
        due = rods[:, 3] > limits
        if due.any():
            rods = np.concatenate([rods[~due], *_daughters(rng, rods[due], disorder)])
            limits = np.concatenate([limits[~due], longest * np.exp(rng.normal(0, 0.15, 2 * int(due.sum())))])
        for _ in range(PUSHES):
            _push(rods)
    rods[:, :2] -= rods[:, :2].mean(axis=0)
    return rods


def _daughters(rng: Rng, mothers: np.ndarray, disorder: float) -> list[np.ndarray]:
    found = []
    for side in (-0.25, 0.25):
        rods = mothers.copy()
        rods[:, :2] += side * mothers[:, 3:] * np.stack([np.sin(mothers[:, 2]), np.cos(mothers[:, 2])], axis=1)
        rods[:, 2] += rng.normal(0, disorder, len(rods))
        rods[:, 3] /= 2
        found.append(rods)
    return found


def _push(rods: np.ndarray) -> None:
    """Move and turn rods out of each other, a part of the way."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(rods[:, :2]).query_pairs(float(rods[:, 3].max()), output_type="ndarray")
    if not len(pairs):
        return
    axis = np.stack([np.sin(rods[:, 2]), np.cos(rods[:, 2])], axis=1)
    half = np.maximum(rods[:, 3] - 1, 0.1) / 2
    # Every end of either rod of a pair against the other rod.
    a, b = np.concatenate([pairs, pairs[:, ::-1]]).T
    a, b, side = np.tile(a, 2), np.tile(b, 2), np.repeat([-1.0, 1.0], len(a))
    arm = axis[a] * (side * half[a])[:, None]
    offset = rods[a, :2] + arm - rods[b, :2]
    along = np.clip((offset * axis[b]).sum(axis=1), -half[b], half[b])
    away = offset - along[:, None] * axis[b]
    distance = np.hypot(*away.T)
    touching = distance < 1
    a, b, arm, along, away, distance = (v[touching] for v in (a, b, arm, along, away, distance))
    force = away * (0.5 * (1 - distance) / np.maximum(distance, 1e-3))[:, None]
    other = along[:, None] * axis[b]
    who = np.concatenate([a, b])
    forces = np.concatenate([force, -force])
    arms = np.concatenate([arm, other])
    torque = arms[:, 0] * forces[:, 1] - arms[:, 1] * forces[:, 0]
    for number, move in enumerate(forces.T):
        rods[:, number] += STEP * np.bincount(who, move, minlength=len(rods))
    # The angle runs from x towards y.
    rods[:, 2] -= STEP * np.bincount(who, torque, minlength=len(rods)) / (half**2 / 2 + 0.3)
