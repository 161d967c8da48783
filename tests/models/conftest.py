"""Small networks at random weights."""

import pytest
import torch

from napari_segany.models.sam.image_encoder import ImageEncoderViT
from napari_segany.models.sam.mask_decoder import MaskDecoder
from napari_segany.models.sam.network import Sam
from napari_segany.models.sam.predictor import SamModel
from napari_segany.models.sam.prompt_encoder import PromptEncoder

CPU = torch.device("cpu")


def small_sam() -> Sam:
    """SAM's own parts, 48 channels wide on 256 pixels, with windows that do not divide the grid."""
    torch.manual_seed(0)
    network = Sam(
        ImageEncoderViT(48, 3, 4, [1], input_size=256, window=6, c_out=32, mlp_ratio=2),
        PromptEncoder(32, 16, 256),
        MaskDecoder(32, 4, 64, score_hidden=24),
    )
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="session")
def sam_model() -> SamModel:
    return SamModel(small_sam(), "small", "sam", CPU, torch.float32)
