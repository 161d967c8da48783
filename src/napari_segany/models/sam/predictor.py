"""SAM as an `ImageModel`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.errors import UnsupportedError
from napari_segany.core.intensity import IntensityRange, to_rgb
from napari_segany.core.masks import Candidates, LogitsGrid, linear_interpolation
from napari_segany.core.prompts import MASK_LOGIT, Prompt
from napari_segany.core.protocols import Multimask
from napari_segany.models.batches import in_batches, in_memory
from napari_segany.models.packing import fingerprint, from_half, to_half
from napari_segany.models.sam.network import Sam

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
#: Prompts decoded at once. On a CPU larger batches only fault in fresh memory.
BATCH = {"cpu": 4, "cuda": 64, "mps": 32}


@dataclass(frozen=True)
class SamEmbedding:
    """Encoded image of SAM.

    Attributes
    ----------
    image_shape : (H, W)
    model_name : str
    resized : (h, w)
        Size of the image inside the network's square input, at its top left.
    features : (1, N, C) tensor
    """

    image_shape: tuple[int, int]
    model_name: str
    resized: tuple[int, int]
    features: Tensor


class SamModel:
    """A network of the SAM family with its pre- and postprocessing.

    Parameters
    ----------
    network : Sam
    name, family : str
    device : torch.device
    dtype : torch.dtype
    provenance : mapping, optional
        Where a taught model comes from; see `napari_segany.training.adapt.Provenance`.
    """

    capabilities = frozenset({"image"})

    def __init__(
        self,
        network: Sam,
        name: str,
        family: str,
        device: torch.device,
        dtype: torch.dtype,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.family, self.provenance = name, family, provenance
        self.device, self.dtype = device, dtype
        self.network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.input_size = network.prompt_encoder.input_size

    @in_memory
    @torch.inference_mode()
    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> SamEmbedding:
        """Resize the long side to the input size, normalise, pad at the bottom and right, encode."""
        rgb = torch.from_numpy(to_rgb(image, intensity)).to(self.device).permute(2, 0, 1)[None]
        height, width = rgb.shape[2:]
        resized = self._resized(height, width)
        if resized != (height, width):
            rgb = F.interpolate(rgb, size=resized, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        padded = F.pad((rgb - mean) / std, (0, self.input_size - resized[1], 0, self.input_size - resized[0]))
        features = self.network.image_encoder(padded.to(self.dtype)).flatten(2).transpose(1, 2)
        return SamEmbedding((height, width), self.name, resized, features.contiguous())

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of an image inside the network's input."""
        scale = self.input_size / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    @cached_property
    def fingerprint(self) -> str:
        """See `StorableModel.fingerprint`."""
        return fingerprint(self.network)

    def pack(self, embedding: SamEmbedding) -> dict[str, np.ndarray]:
        """See `StorableModel.pack`."""
        return {"features": to_half(embedding.features)}

    def unpack(
        self, arrays: Mapping[str, np.ndarray], image: np.ndarray, intensity: IntensityRange | None = None
    ) -> SamEmbedding:
        """See `StorableModel.unpack`."""
        height, width = image.shape[:2]
        features = from_half(arrays["features"], self.device, self.dtype)
        return SamEmbedding((height, width), self.name, self._resized(height, width), features)

    @torch.inference_mode()
    def predict(
        self, embedding: SamEmbedding, prompts: Sequence[Prompt], multimask: Multimask = "auto"
    ) -> list[Candidates]:
        """Answer prompts, one object each; see `ImageModel.predict`.

        A box's corners are handed on as they are, as published code does with
        the edges of a box.
        """
        if not isinstance(embedding, SamEmbedding) or embedding.model_name != self.name:
            raise UnsupportedError(f"This embedding was not made by {self.name}; embed the image again.")
        grid = _grid(embedding.image_shape, embedding.resized, self.input_size)
        answers: dict[int, Candidates] = {}
        for indices, several in alike(prompts, multimask):

            def answer(part: Sequence[int], several: bool = several) -> None:
                wanted = slice(1, None) if several else slice(0, 1)
                found = self.decode(embedding, [prompts[i] for i in part], wanted)
                for i, mask_logits, mask_scores in zip(part, *(a.float().cpu().numpy() for a in found), strict=True):
                    answers[i] = Candidates(mask_logits, mask_scores, grid)

            in_batches(indices, BATCH[self.device.type], answer)
        return [answers[i] for i in range(len(prompts))]

    def decode(self, embedding: SamEmbedding, prompts: Sequence[Prompt], wanted: slice) -> tuple[Tensor, Tensor]:
        """Answer prompts with equally many parts: logits (P, K, side, side) and IoUs (P, K) of wanted masks."""
        encoder = self.network.prompt_encoder
        tokens = encoder.tokens(*(part.to(self.device) for part in self._points(embedding, prompts)))
        masks = None
        if prompts[0].mask is not None:
            stacked = [self.mask_input(embedding, prompt.mask) for prompt in prompts if prompt.mask is not None]
            masks = torch.stack(stacked).to(self.device)
        image = embedding.features + encoder.dense(masks)
        position = encoder.pe_layer.grid(encoder.grid).to(self.dtype)
        return self.network.mask_decoder(image, position, tokens, wanted)

    def _points(self, embedding: SamEmbedding, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """Points and corners in the network's input: the one place where (y, x) becomes (x, y)."""
        scale = np.array(embedding.resized) / embedding.image_shape
        coords, labels = [], []
        for prompt in prompts:
            points, signs = prompt.points * scale, prompt.labels
            if prompt.box is not None:
                corners = prompt.box.reshape(2, 2) * scale
                points, signs = np.concatenate([points, corners]), np.concatenate([signs, [2, 3]])
            elif len(points):
                points, signs = np.concatenate([points, [[0.0, 0.0]]]), np.concatenate([signs, [-1]])
            coords.append(points[:, ::-1])
            labels.append(signs)
        return torch.from_numpy(np.stack(coords).astype(np.float32)), torch.from_numpy(
            np.stack(labels).astype(np.int64)
        )

    def mask_input(self, embedding: SamEmbedding, mask: np.ndarray) -> Tensor:
        """Mask logits of the image at the decoder's resolution, (1, side, side)."""
        side = 4 * self.network.prompt_encoder.grid
        size = tuple(max(1, round(extent * side / self.input_size)) for extent in embedding.resized)
        small = F.interpolate(
            torch.from_numpy(mask)[None, None], size=size, mode="bilinear", align_corners=False, antialias=True
        )
        return F.pad(small[0], (0, side - size[1], 0, side - size[0]), value=-MASK_LOGIT)


def alike(prompts: Sequence[Prompt], multimask: Multimask) -> Iterator[tuple[list[int], bool]]:
    """Group prompts with the same number of tokens: padding would take part in the attention."""
    groups = defaultdict(list)
    for i, prompt in enumerate(prompts):
        several = prompt.is_ambiguous if multimask == "auto" else multimask
        groups[len(prompt.points), prompt.box is None, prompt.mask is None, several].append(i)
    for (*_, several), indices in groups.items():
        yield indices, several


@lru_cache(maxsize=16)
def _grid(image_shape: tuple[int, int], resized: tuple[int, int], input_size: int) -> LogitsGrid:
    """Published postprocessing as one product: to the input's size, crop the padding, to the image's size."""
    up = linear_interpolation(input_size // 4, input_size)
    rows, cols = (
        linear_interpolation(inner, outer) @ up[:inner] for inner, outer in zip(resized, image_shape, strict=True)
    )
    return LogitsGrid(image_shape, (0, 0), rows, cols)
