"""SAM's mask decoder with skips from finer features and a score for "the object is here"."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import linear
from napari_segany.models.layers.mlp import Mlp
from napari_segany.models.sam import mask_decoder as sam

#: Mask 0 is given up for the best of 1 to 3 when less of it survives a shift of the threshold.
STABILITY_OFFSET, STABILITY_THRESHOLD = 0.05, 0.98


class Decoded(NamedTuple):
    """Answers of the mask decoder.

    Attributes
    ----------
    logits : (P, K, h, w)
    scores : (P, K)
        Predicted IoU, 0-1.
    presence : (P,)
        Logit of "the object is in this image".
    tokens : (P, K or 1, C)
        Mask tokens, from which object pointers are made.
    """

    logits: Tensor
    scores: Tensor
    presence: Tensor
    tokens: Tensor


class MaskDecoder(sam.MaskDecoder):
    """SAM's decoder with finer features of the image, and a token that tells whether the object is there.

    Parameters
    ----------
    channels, heads, hidden, depth, score_hidden : int
        See `napari_segany.models.sam.mask_decoder.MaskDecoder`.
    """

    def __init__(
        self, channels: int = 256, heads: int = 8, hidden: int = 2048, depth: int = 2, score_hidden: int = 256
    ) -> None:
        super().__init__(channels, heads, hidden, depth, score_hidden)
        self.obj_score_token = nn.Embedding(1, channels)
        self.conv_s0 = nn.Conv2d(channels, channels // 8, 1)
        self.conv_s1 = nn.Conv2d(channels, channels // 4, 1)
        self.pred_obj_score_head = Mlp(channels, channels, 1, 3)

    def skips(self, fine: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Project the finer features once for all prompts, in the order in which pixels are split.

        Parameters
        ----------
        fine, middle : (1, S/4, S/4, C) and (1, S/8, S/8, C)

        Returns
        -------
        finest, finer : (1, N, 4, 4, C/8) and (1, N, 4, C/4) with N = (S/16)^2
        """
        finest = linear(fine, self.conv_s0.weight.flatten(1), self.conv_s0.bias)
        finer = linear(middle, self.conv_s1.weight.flatten(1), self.conv_s1.bias)
        side = finer.shape[1] // 2
        finer = finer.view(1, side, 2, side, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(1, side * side, 4, -1)
        finest = finest.view(1, side, 2, 2, side, 2, 2, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return finest.reshape(1, side * side, 4, 4, -1), finer

    def forward(  # type: ignore[override]
        self,
        image: Tensor,
        image_position: Tensor,
        skips: tuple[Tensor, Tensor],
        prompts: Tensor,
        several: bool,
    ) -> Decoded:
        """Decode a batch of prompts.

        Parameters
        ----------
        image : (P or 1, N, C)
            Image embedding plus the mask prompt's map; one row serves all prompts.
        image_position : (1, N, C)
        skips : pair of tensors
            See `skips`.
        prompts : (P, T, C)
        several : bool
            Masks 1 to 3; else mask 0, or the best of the others where mask 0 is not stable.
        """
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens, image = self.transformer(
            torch.cat([own.expand(len(prompts), -1, -1), prompts], dim=1), image, image_position
        )
        mask_tokens = tokens[:, 2 : 2 + self.outputs]
        weights = torch.stack([mlp(mask_tokens[:, k]) for k, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = self.masks(image, weights[:, 1:] if several else weights, *skips)
        scores = self.iou_prediction_head(tokens[:, 1]).sigmoid()
        presence = self.pred_obj_score_head(tokens[:, 0])[:, 0]
        if several:
            return Decoded(logits, scores[:, 1:], presence, mask_tokens[:, 1:])
        stable = _is_stable(logits[:, 0])
        best = torch.where(stable, 0, scores[:, 1:].argmax(dim=1) + 1)
        row = torch.arange(len(best), device=best.device)
        return Decoded(logits[row, best][:, None], scores[row, best][:, None], presence, mask_tokens[:, :1])


def _is_stable(logits: Tensor) -> Tensor:
    """Whether a mask hardly changes when its threshold moves, (P, h, w) to (P,); an empty one is stable."""
    inner = (logits > STABILITY_OFFSET).sum(dim=(1, 2)).float()
    outer = (logits > -STABILITY_OFFSET).sum(dim=(1, 2)).float()
    return torch.where(outer > 0, inner / outer, 1.0) >= STABILITY_THRESHOLD
