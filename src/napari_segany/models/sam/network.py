"""SAM put together, and the numbers of its sizes."""

from __future__ import annotations

from torch import nn

from napari_segany.models.sam.image_encoder import ImageEncoderViT
from napari_segany.models.sam.mask_decoder import MaskDecoder
from napari_segany.models.sam.prompt_encoder import PromptEncoder
from napari_segany.models.sam.tiny_vit import TinyViT

#: Side of the network's input, pixels.
INPUT_SIZE = 1024
#: Size -> channels, depth, heads, global blocks of the ViT.
VIT_SIZES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}


class Sam(nn.Module):
    """Encoder, prompt encoder and mask decoder; parameter names are those of the published checkpoints.

    Parameters
    ----------
    image_encoder : module (B, 3, S, S) -> (B, C, S/16, S/16)
    prompt_encoder : PromptEncoder
    mask_decoder : MaskDecoder
    """

    def __init__(self, image_encoder: nn.Module, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder


def build_sam(size: str) -> Sam:
    """Build SAM of a size: "vit_b", "vit_l", "vit_h", or "vit_t" (MobileSAM)."""
    encoder = TinyViT() if size == "vit_t" else ImageEncoderViT(*VIT_SIZES[size])
    return Sam(encoder, PromptEncoder(), MaskDecoder())
