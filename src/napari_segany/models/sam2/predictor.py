"""SAM 2 as an `ImageModel` and a `StackModel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.errors import UnsupportedError
from napari_segany.core.intensity import IntensityRange, to_rgb
from napari_segany.core.masks import Candidates, LogitsGrid, linear_interpolation
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Multimask
from napari_segany.models.batches import in_batches, in_memory
from napari_segany.models.packing import fingerprint, from_half, to_half
from napari_segany.models.sam.predictor import alike
from napari_segany.models.sam2.network import MemoryNetwork, Sam2
from napari_segany.models.sam2.tracker import Sam2Tracker

#: Prompts decoded at once. On a CPU larger batches only fault in fresh memory.
BATCH = {"cpu": 4, "cuda": 64, "mps": 32}


@dataclass(frozen=True)
class Sam2Embedding:
    """Encoded image of SAM 2.

    Attributes
    ----------
    image_shape : (H, W)
    model_name : str
    features : (1, N, C) tensor
        At stride 16, without memories.
    skips : pair of tensors
        Finer features for the mask decoder; see `MaskDecoder.skips`.
    """

    image_shape: tuple[int, int]
    model_name: str
    features: Tensor
    skips: tuple[Tensor, Tensor]


class Sam2Model:
    """A network of the SAM 2 family with its pre- and postprocessing.

    Parameters
    ----------
    network : Sam2
        Or another network with its memory.
    name : str
    device : torch.device
    dtype : torch.dtype
    """

    family = "sam2"
    capabilities = frozenset({"image", "stack"})
    #: Of ImageNet, for intensities 0-255.
    pixel_mean: ClassVar = (123.675, 116.28, 103.53)
    pixel_std: ClassVar = (58.395, 57.12, 57.375)

    def __init__(self, network: MemoryNetwork, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self.name = name
        self.device, self.dtype = device, dtype
        self.network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)

    @property
    def input_size(self) -> int:
        """Side of the network's square input, pixels."""
        return self.network.config.input_size

    @in_memory
    @torch.inference_mode()
    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> Sam2Embedding:
        """Stretch an (H, W[, C]) image to the square input, normalise, encode."""
        assert isinstance(self.network, Sam2)
        features, skips = self.network.encode(self.pixels(image, intensity))
        return Sam2Embedding((image.shape[0], image.shape[1]), self.name, features, skips)

    @cached_property
    def fingerprint(self) -> str:
        """See `StorableModel.fingerprint`."""
        return fingerprint(self.network)

    def pack(self, embedding: Sam2Embedding) -> dict[str, np.ndarray]:
        """See `StorableModel.pack`."""
        first, second = embedding.skips
        return {"features": to_half(embedding.features), "skip0": to_half(first), "skip1": to_half(second)}

    def unpack(
        self, arrays: Mapping[str, np.ndarray], image: np.ndarray, intensity: IntensityRange | None = None
    ) -> Sam2Embedding:
        """See `StorableModel.unpack`."""
        features, first, second = (
            from_half(arrays[name], self.device, self.dtype) for name in ("features", "skip0", "skip1")
        )
        return Sam2Embedding((image.shape[0], image.shape[1]), self.name, features, (first, second))

    def pixels(self, image: np.ndarray, intensity: IntensityRange | None) -> Tensor:
        """Stretch an (H, W[, C]) image to the square input and normalise it, (1, 3, S, S)."""
        rgb = torch.from_numpy(to_rgb(image, intensity)).to(self.device).permute(2, 0, 1)[None]
        size = (self.input_size, self.input_size)
        if tuple(rgb.shape[2:]) != size:
            rgb = F.interpolate(rgb, size=size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (self.pixel_mean, self.pixel_std))
        return ((rgb - mean) / std).to(self.dtype)

    @torch.inference_mode()
    def predict(
        self, embedding: Sam2Embedding, prompts: Sequence[Prompt], multimask: Multimask = "auto"
    ) -> list[Candidates]:
        """Answer prompts, one object each; see `ImageModel.predict`."""
        self.check(embedding)
        image = embedding.features + self.network.no_mem_embed
        answers: dict[int, Candidates] = {}
        for indices, several in alike(prompts, multimask):

            def answer(part: Sequence[int], several: bool = several) -> None:
                tokens, masks = self.encode_prompts(embedding.image_shape, [prompts[i] for i in part])
                found = self.network.decode(image, embedding.skips, tokens, masks, several)
                for i, logits, scores in zip(part, found.logits, found.scores, strict=True):
                    answers[i] = self.candidates(embedding.image_shape, logits, scores)

            in_batches(indices, BATCH[self.device.type], answer)
        return [answers[i] for i in range(len(prompts))]

    def tracker(self, frames: int, motion: bool = False) -> Sam2Tracker:
        """A fresh memory for objects on a stack of so many frames; see `StackModel.tracker`."""
        return Sam2Tracker(self, frames, motion)

    def check(self, embedding: Sam2Embedding) -> None:
        """Raise `UnsupportedError` when an embedding was made by another model."""
        if not isinstance(embedding, Sam2Embedding) or embedding.model_name != self.name:
            raise UnsupportedError(f"This embedding was not made by {self.name}; embed the image again.")

    def candidates(self, image_shape: tuple[int, int], logits: Tensor, scores: Tensor) -> Candidates:
        """Logits (K, h, w) and scores (K,) on their way to the image's pixels."""
        return Candidates(
            logits.float().cpu().numpy(), scores.float().cpu().numpy(), _grid(image_shape, logits.shape[-1])
        )

    def encode_prompts(self, image_shape: tuple[int, int], prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor | None]:
        """Tokens (P, T, C) and masks (P, 1, h, w) of prompts that are alike in kind.

        The one place where (y, x) becomes (x, y). A box is its two corners
        before the points, and a padding point always follows.
        """
        scale = self.input_size / np.array(image_shape)
        coords, labels = [], []
        for prompt in prompts:
            points, signs = prompt.points * scale, prompt.labels
            if prompt.box is not None:
                points = np.concatenate([prompt.box.reshape(2, 2) * scale, points])
                signs = np.concatenate([[2, 3], signs])
            if len(points) == 0:
                points, signs = np.zeros((1, 2)), np.array([-1])
            coords.append(np.concatenate([points, np.zeros((1, 2))])[:, ::-1])
            labels.append(np.append(signs, -1))
        tokens = self.network.sam_prompt_encoder.tokens(
            torch.from_numpy(np.stack(coords).astype(np.float32)).to(self.device),
            torch.from_numpy(np.stack(labels).astype(np.int64)).to(self.device),
        )
        if prompts[0].mask is None:
            return tokens, None
        masks = [self.mask_input(prompt.mask, 4 * self.network.grid) for prompt in prompts if prompt.mask is not None]
        return tokens, torch.stack(masks)

    def mask_input(self, mask: np.ndarray, side: int) -> Tensor:
        """Stretch an (H, W) mask to a square, (1, side, side) float32."""
        given = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32)).to(self.device)
        return F.interpolate(
            given[None, None], size=(side, side), mode="bilinear", align_corners=False, antialias=True
        )[0]


@lru_cache(maxsize=16)
def _grid(image_shape: tuple[int, int], side: int) -> LogitsGrid:
    """The square of logits stretched back over the image."""
    rows, cols = (linear_interpolation(side, extent) for extent in image_shape)
    return LogitsGrid(image_shape, (0, 0), rows, cols)
