"""A model without a network: it draws discs, fills boxes and returns mask prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_segany.core.errors import UnsupportedError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.masks import Candidates, LogitsGrid
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Multimask

#: Radius of the first candidate of a click, pixels; the others are twice and half as large.
RADIUS = 5.0


@dataclass(frozen=True)
class DiscEmbedding:
    image_shape: tuple[int, int]
    model_name: str


class DiscModel:
    """Implements `core.protocols.ImageModel`.

    Attributes
    ----------
    embedded : list of images
        Every image given to `embed`, in order.
    delay : float
        Seconds that encoding takes.
    """

    family = "fake"
    capabilities = frozenset({"image", "stack"})

    def __init__(self, name: str = "disc", delay: float = 0.0) -> None:
        self.name, self.delay = name, delay
        self.embedded: list[np.ndarray] = []

    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> DiscEmbedding:
        time.sleep(self.delay)
        self.embedded.append(np.asarray(image))
        return DiscEmbedding((image.shape[0], image.shape[1]), self.name)

    def predict(
        self, embedding: DiscEmbedding, prompts: Sequence[Prompt], multimask: Multimask = "auto"
    ) -> list[Candidates]:
        if embedding.model_name != self.name:
            raise UnsupportedError(f"The embedding was made by {embedding.model_name}, not by {self.name}.")
        return [self._answer(embedding.image_shape, prompt, multimask) for prompt in prompts]

    def _answer(self, shape: tuple[int, int], prompt: Prompt, multimask: Multimask) -> Candidates:
        many = prompt.is_ambiguous if multimask == "auto" else multimask
        radii = (RADIUS, 2 * RADIUS, RADIUS / 2) if many else (RADIUS,)
        masks = np.stack([self._mask(shape, prompt, radius) for radius in radii])
        logits = np.where(masks, 8.0, -8.0).astype(np.float32)
        scores = np.linspace(0.9, 0.7, len(radii), dtype=np.float32)
        rows, cols = (np.eye(extent, dtype=np.float32) for extent in shape)
        return Candidates(logits, scores, LogitsGrid(shape, (0, 0), rows, cols))

    def _mask(self, shape: tuple[int, int], prompt: Prompt, radius: float) -> np.ndarray:
        mask = np.zeros(shape, dtype=bool)
        inside = prompt.points[prompt.labels == 1]
        if prompt.mask is not None:
            mask = prompt.mask > 0
        elif prompt.box is not None:
            y0, x0, y1, x1 = np.round(prompt.box).astype(int)
            mask[y0:y1, x0:x1] = True
        else:
            for point in inside:
                mask |= disc(shape, point, radius)
        for point in prompt.points[prompt.labels == 0]:
            mask &= ~disc(shape, point, radius)
        return mask


def disc(shape: tuple[int, int], centre: Sequence[float] | np.ndarray, radius: float) -> np.ndarray:
    """(H, W) bool, the pixels whose centre is at most `radius` from `centre` (y, x)."""
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return (ys - centre[0]) ** 2 + (xs - centre[1]) ** 2 <= radius**2
