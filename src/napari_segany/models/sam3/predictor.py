"""SAM 3 as an `ImageModel`, a `StackModel` and a `ConceptModel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.boxes import Box
from napari_segany.core.concepts import Examples
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.settings import FindSettings, Presence
from napari_segany.models.batches import in_memory
from napari_segany.models.packing import from_half, to_half
from napari_segany.models.sam2.predictor import Sam2Embedding, Sam2Model
from napari_segany.models.sam3.network import Sam3, no_boxes
from napari_segany.models.sam3.tokenizer import Tokenizer, load_tokenizer

#: Tokens that stand for the text when there are examples alone: the word "visual" in CLIP's vocabulary.
WITHOUT_WORDS = (49406, 7195, 49407)
#: In the mode "soft", absence counts for no more than this logit.
SOFT_FLOOR = 2.0
#: Masks made at once; each is a map of a quarter of a megabyte.
MASKS_AT_ONCE = 32


@dataclass(frozen=True)
class Sam3Embedding(Sam2Embedding):
    """Encoded image of SAM 3.

    Attributes
    ----------
    levels : three (1, C, H, W) tensors, fine to coarse
        For the detector.
    """

    levels: list[Tensor]


@dataclass(frozen=True)
class Described:
    """A concept as the detector reads it.

    Attributes
    ----------
    tokens : (1, T, C) tensor
        Of the text, then of examples.
    shown : bool
        Whether there are examples.
    """

    tokens: Tensor
    shown: bool


class Sam3Model(Sam2Model):
    """The network of SAM 3 with its pre- and postprocessing.

    Parameters
    ----------
    network : Sam3
    name : str
    device : torch.device
    dtype : torch.dtype
    folder : Path
        Where the vocabulary lies.
    """

    family = "sam3"
    capabilities = frozenset({"image", "stack", "concept"})
    pixel_mean: ClassVar = (127.5, 127.5, 127.5)
    pixel_std: ClassVar = (127.5, 127.5, 127.5)
    #: Any phrase may be asked for.
    words: ClassVar[tuple[str, ...]] = ()

    network: Sam3

    def __init__(self, network: Sam3, name: str, device: torch.device, dtype: torch.dtype, folder: Path) -> None:
        super().__init__(network, name, device, dtype)
        self.folder = folder
        self._tokenizer: Tokenizer | None = None
        self._texts: dict[str | None, Tensor] = {}

    @in_memory
    @torch.inference_mode()
    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> Sam3Embedding:
        """Stretch an (H, W[, C]) image to the square input, normalise, encode."""
        features, skips, levels = self.network.encode(self.pixels(image, intensity))
        return Sam3Embedding((image.shape[0], image.shape[1]), self.name, features, skips, levels)

    def pack(self, embedding: Sam2Embedding) -> dict[str, np.ndarray]:
        """See `StorableModel.pack`."""
        assert isinstance(embedding, Sam3Embedding)
        return super().pack(embedding) | {f"level{i}": to_half(level) for i, level in enumerate(embedding.levels)}

    def unpack(
        self, arrays: Mapping[str, np.ndarray], image: np.ndarray, intensity: IntensityRange | None = None
    ) -> Sam3Embedding:
        """See `StorableModel.unpack`."""
        levels = [from_half(arrays[f"level{i}"], self.device, self.dtype) for i in range(3)]
        shared = super().unpack(arrays, image)
        return Sam3Embedding(shared.image_shape, self.name, shared.features, shared.skips, levels)

    @torch.inference_mode()
    def describe(self, text: str | None, examples: Sequence[Examples]) -> Described:
        """Encode what to look for; see `ConceptModel.describe`."""
        tokens = [self._encode_text(text)]
        for shown in examples:
            self.check(shown.embedding)
            tokens.append(self._encode_boxes(shown))
        return Described(torch.cat(tokens, dim=1), bool(examples))

    @torch.inference_mode()
    def find(self, embedding: Sam3Embedding, described: Described, settings: FindSettings) -> Instances:
        """Find every object; see `ConceptModel.find`."""
        self.check(embedding)
        detector, tokens = self.network.detector, described.tokens
        if not described.shown:
            # Without examples, too, there is the token that stands for all of them.
            tokens = torch.cat([tokens, detector.geometry(embedding.levels[-1], *no_boxes(self.device))], dim=1)
        found = detector(embedding.levels, tokens)
        scores = joint_scores(found.scores, found.presence, settings.presence)
        chosen = (scores > settings.threshold).nonzero()[:, 0]
        patches: list[tuple[Box, np.ndarray]] = []
        for part in chosen.split(MASKS_AT_ONCE):
            answer = self.candidates(embedding.image_shape, detector.masks(found, part), scores[part])
            patches += [answer.patch(i) for i in range(len(part))]
        features = F.normalize(found.queries[chosen].float(), dim=1).cpu().numpy()
        return Instances.from_patches(embedding.image_shape, patches, scores[chosen].cpu().numpy(), features)

    def _encode_text(self, text: str | None) -> Tensor:
        """Tokens (1, T, C) of a phrase, made once."""
        if text not in self._texts:
            ids = WITHOUT_WORDS if text is None else self._tokenise(text)
            self._texts[text] = self.network.detector.text(torch.tensor(ids, device=self.device))
        return self._texts[text]

    def _tokenise(self, text: str) -> Sequence[int]:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.folder, self.network.detector.text.length)
        return self._tokenizer(text)

    def _encode_boxes(self, shown: Examples) -> Tensor:
        """Tokens (1, N + 1, C) of examples. (y, x) becomes (x, y) here."""
        height, width = shown.embedding.image_shape
        boxes = np.concatenate([shown.boxes, shown.negatives]) / [height, width, height, width]
        centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        boxes = np.concatenate([centre[:, ::-1], size[:, ::-1]], axis=1).astype(np.float32)
        labels = torch.tensor([1] * len(shown.boxes) + [0] * len(shown.negatives), device=self.device)
        return self.network.detector.geometry(
            shown.embedding.levels[-1], torch.from_numpy(boxes).to(self.device), labels
        )


def joint_scores(scores: Tensor, presence: Tensor, mode: Presence) -> Tensor:
    """Probability of each object (Q,) from its logit (Q,) and the logit that there is such a thing at all.

    "soft" lets that lower a score, but only so far: a clear object outweighs
    the belief that there is none.
    """
    if mode == "product":
        return scores.sigmoid() * presence.sigmoid()
    return (scores + (presence.clamp(-SOFT_FLOOR, 0.0) if mode == "soft" else 0.0)).sigmoid()
