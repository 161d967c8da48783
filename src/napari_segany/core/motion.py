"""Where objects are going: Kalman filters over boxes, all objects at once.

The state and its noise follow DeepSORT (Wojke et al. 2017), as SAMURAI (Yang
et al. 2024) uses them: centre, aspect ratio and height with their velocities,
noise in proportion to the height.
"""

from __future__ import annotations

import numpy as np

#: Standard deviations in units of the object's height.
POSITION_NOISE, VELOCITY_NOISE = 1 / 20, 1 / 160
#: Standard deviations of the aspect ratio and its velocity; of a measured aspect ratio.
ASPECT_NOISE, ASPECT_VELOCITY_NOISE, ASPECT_MEASURED = 1e-2, 1e-5, 1e-1


class BoxMotion:
    """Constant-velocity filters of N boxes.

    Attributes
    ----------
    mean : (N, 8) float64
        Centre x, centre y, width / height, height, and their velocities.
    covariance : (N, 8, 8) float64
    """

    def __init__(self, boxes: np.ndarray) -> None:
        """Start at (N, 4) boxes (y0, x0, y1, x1), at rest."""
        self.mean = np.concatenate([_measure(boxes), np.zeros((len(boxes), 4))], axis=1)
        height = self.mean[:, 3]
        spread = _spread(height, 2 * POSITION_NOISE, ASPECT_NOISE, 10 * VELOCITY_NOISE, ASPECT_VELOCITY_NOISE)
        self.covariance = _diagonal(spread)

    def predict(self, frames: int = 1) -> np.ndarray:
        """Move on by so many frames; the boxes expected there, (N, 4)."""
        move = np.eye(8) + frames * np.eye(8, k=4)
        noise = _spread(self.mean[:, 3], POSITION_NOISE, ASPECT_NOISE, VELOCITY_NOISE, ASPECT_VELOCITY_NOISE)
        self.mean = self.mean @ move.T
        self.covariance = move @ self.covariance @ move.T + frames * _diagonal(noise)
        return self.boxes

    def update(self, boxes: np.ndarray, which: np.ndarray) -> None:
        """Correct some filters, `which` (N,) bool, by boxes (N, 4) that were found."""
        measured = _measure(boxes[which])
        mean, covariance = self.mean[which], self.covariance[which]
        height = mean[:, 3]
        noise = np.stack(
            [height * POSITION_NOISE] * 2 + [np.full(len(mean), ASPECT_MEASURED), height * POSITION_NOISE], 1
        )
        innovation = covariance[:, :4, :4] + _diagonal(noise)
        gain = np.linalg.solve(innovation, covariance[:, :4]).transpose(0, 2, 1)
        self.mean[which] = mean + np.einsum("nij,nj->ni", gain, measured - mean[:, :4])
        self.covariance[which] = covariance - gain @ innovation @ gain.transpose(0, 2, 1)

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) boxes (y0, x0, y1, x1)."""
        x, y, aspect, height = self.mean[:, :4].T
        half = np.stack([height, aspect * height], axis=1) / 2
        centre = np.stack([y, x], axis=1)
        return np.concatenate([centre - half, centre + half], axis=1)


def _measure(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) as centre x, centre y, width / height, height."""
    y0, x0, y1, x1 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    height = np.maximum(y1 - y0, 1e-6)
    return np.stack([(x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / height, height], axis=1)


def _spread(height: np.ndarray, place: float, aspect: float, speed: float, aspect_speed: float) -> np.ndarray:
    """Standard deviations (N, 8) in the order of the state."""
    steady = np.ones_like(height)
    now = [place * height, place * height, aspect * steady, place * height]
    change = [speed * height, speed * height, aspect_speed * steady, speed * height]
    return np.stack([*now, *change], axis=1)


def _diagonal(deviations: np.ndarray) -> np.ndarray:
    """Covariances (N, k, k) of independent deviations (N, k)."""
    return np.einsum("ni,ij->nij", deviations**2, np.eye(deviations.shape[1]))
