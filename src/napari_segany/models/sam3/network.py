"""SAM 3 put together."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from napari_segany.models.sam2.network import MemoryNetwork, Sam2Config
from napari_segany.models.sam3.detector import Detector
from napari_segany.models.sam3.neck import Pyramid
from napari_segany.models.sam3.perception_encoder import PerceptionEncoder
from napari_segany.models.sam3.text_encoder import TextEncoder


@dataclass(frozen=True)
class Sam3Config:
    """Numbers of the published model; smaller ones are for tests.

    Attributes
    ----------
    memory : Sam2Config
        Of the tracker; its input size, stride and channels hold for the detector too.
    width, depth, heads, hidden, window, learned : int
    global_blocks : ints
        Of the image encoder; see `PerceptionEncoder`.
    text_width, text_depth, text_heads, text_hidden, vocabulary, text_length : int
        Of the text encoder; see `TextEncoder`.
    detector_heads, detector_hidden, geometry_depth, fusion_depth, query_depth, queries : int
        Of the detector; see `Detector`.
    """

    memory: Sam2Config = field(default_factory=lambda: Sam2Config(input_size=1008, stride=14, max_prompted=4))
    width: int = 1024
    depth: int = 32
    heads: int = 16
    hidden: int = 4736
    window: int = 24
    learned: int = 24
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    text_width: int = 1024
    text_depth: int = 24
    text_heads: int = 16
    text_hidden: int = 4096
    vocabulary: int = 49408
    text_length: int = 32
    detector_heads: int = 8
    detector_hidden: int = 2048
    geometry_depth: int = 3
    fusion_depth: int = 6
    query_depth: int = 6
    queries: int = 200


class Sam3(MemoryNetwork):
    """SAM 3: one image encoder, a detector of concepts, and the memory of SAM 2.

    Parameters
    ----------
    numbers : Sam3Config
    """

    def __init__(self, numbers: Sam3Config) -> None:
        super().__init__(numbers.memory)
        n, c = numbers, numbers.memory.channels
        self.trunk = PerceptionEncoder(
            n.width, n.depth, n.heads, n.hidden, n.memory.stride, self.grid, n.window, n.global_blocks, n.learned
        )
        self.detector_neck, self.tracker_neck = Pyramid(n.width, c), Pyramid(n.width, c)
        text = TextEncoder(n.text_width, n.text_depth, n.text_heads, n.text_hidden, n.vocabulary, n.text_length, c)
        self.detector = Detector(
            text, c, n.detector_heads, n.detector_hidden, n.geometry_depth, n.fusion_depth, n.query_depth, n.queries
        )

    def encode(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], list[Tensor]]:
        """Encode an image for prompts, for the memory and for concepts.

        Parameters
        ----------
        pixels : (1, 3, S, S) normalised

        Returns
        -------
        features : (1, N, C)
        skips : pair of tensors; see `MaskDecoder.skips`
        levels : three (1, C, H, W), for the detector
        """
        seen = self.trunk(pixels)
        fine, middle, coarse = (level.permute(0, 2, 3, 1) for level in self.tracker_neck(seen))
        return coarse.flatten(1, 2), self.sam_mask_decoder.skips(fine, middle), self.detector_neck(seen)


def build_sam3(size: str) -> Sam3:
    """Build the published model."""
    assert size == "3"
    return Sam3(Sam3Config())


def no_boxes(device: torch.device) -> tuple[Tensor, Tensor]:
    """Exemplars of a prompt that has none, (0, 4) and (0,)."""
    return torch.zeros(0, 4, device=device), torch.zeros(0, dtype=torch.int64, device=device)
