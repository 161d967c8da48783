"""Detector: a prompt of words and examples, and an image, to every object that fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_segany.models.sam2.positions import sine_grid
from napari_segany.models.sam3.fusion import FusionEncoder
from napari_segany.models.sam3.geometry import GeometryEncoder
from napari_segany.models.sam3.heads import ConceptScoring, SegmentationHead
from napari_segany.models.sam3.query_decoder import QueryDecoder
from napari_segany.models.sam3.text_encoder import TextEncoder


class Detections(NamedTuple):
    """All guesses of one prompt on one image.

    Attributes
    ----------
    boxes : (Q, 4) float32
        (x0, y0, x1, y1) as shares of the image.
    scores : (Q,) float32
        Logits of "this is one of them".
    presence : scalar float32
        Logit of "there is one in this image".
    queries : (Q, C)
        From which `Detector.masks` makes masks.
    pixels : (1, C, H, W)
        The other half of the masks.
    """

    boxes: Tensor
    scores: Tensor
    presence: Tensor
    queries: Tensor
    pixels: Tensor


class Detector(nn.Module):
    """Text, exemplars, fusion, queries, scores and masks.

    Parameters
    ----------
    text : TextEncoder
    channels, heads, hidden : int
    geometry_depth, fusion_depth, query_depth, queries : int
    """

    def __init__(
        self,
        text: TextEncoder,
        channels: int,
        heads: int,
        hidden: int,
        geometry_depth: int,
        fusion_depth: int,
        query_depth: int,
        queries: int,
    ) -> None:
        super().__init__()
        self.text = text
        self.geometry = GeometryEncoder(channels, heads, hidden, geometry_depth)
        self.fusion = FusionEncoder(channels, heads, hidden, fusion_depth)
        self.queries = QueryDecoder(channels, heads, hidden, query_depth, queries)
        self.scoring = ConceptScoring(channels, hidden)
        self.segmentation = SegmentationHead(channels, heads)

    def forward(self, levels: Sequence[Tensor], prompt: Tensor) -> Detections:
        """Find.

        Parameters
        ----------
        levels : three (1, C, H, W), fine to coarse
        prompt : (1, T, C)
            Tokens of the text, then those of the exemplars.
        """
        coarse = levels[-1]
        side = coarse.shape[2]
        position = sine_grid(side, coarse.shape[1], coarse.device).to(coarse.dtype)
        fused = self.fusion(coarse.flatten(2).transpose(1, 2), position, prompt)
        guesses = self.queries(fused, position, prompt, side)
        return Detections(
            guesses.boxes,
            self.scoring(guesses.queries, prompt),
            guesses.presence,
            guesses.queries,
            self.segmentation.pixels(levels, fused, prompt),
        )

    def prompt(self, levels: Sequence[Tensor], text: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Join encoded text (1, T, C) with exemplars; see `GeometryEncoder.forward` for these."""
        return torch.cat([text, self.geometry(levels[-1], boxes, labels)], dim=1)

    def masks(self, detections: Detections, chosen: Tensor) -> Tensor:
        """Mask logits (K, H, W) of K chosen queries."""
        return self.segmentation(detections.pixels, detections.queries[chosen])
