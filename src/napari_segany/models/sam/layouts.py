"""How SAM's weights are written down: the published layout and that of transformers."""

from __future__ import annotations

from napari_segany.models.checkpoints import Layout, State, renamed
from napari_segany.models.sam.network import VIT_SIZES, build_sam

#: transformers' names and ours; every matching rule is applied, in this order.
RENAMES = [
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm", r"image_encoder.blocks.\1.norm"),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"^shared_image_embedding\.positional_embedding$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"^mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm", r"\1.norm"),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.0\.", r"\1.layers.1."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.proj_in\.", r"\1.layers.0."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.proj_out\.", r"\1.layers.2."),
]
#: The Fourier matrix, and the same again under the name of the prompt encoder.
FOURIER = "shared_image_embedding.positional_embedding"
TIED = "prompt_encoder.shared_embedding.positional_embedding"


def from_transformers(state: State) -> State:
    """Rename the keys of transformers' SamModel; the tied copy of the Fourier matrix goes."""
    own = {key: value for key, value in state.items() if key != TIED}
    if TIED in state:
        own.setdefault(FOURIER, state[TIED])
    return {renamed(key, RENAMES): value for key, value in own.items()}


def _vit_size(channels: int) -> str | None:
    return next((size for size, numbers in VIT_SIZES.items() if numbers[0] == channels), None)


def _published(state: State) -> str | None:
    if "image_encoder.pos_embed" in state and "mask_decoder.iou_token.weight" in state:
        return _vit_size(state["image_encoder.pos_embed"].shape[-1])
    return None


def _published_mobile(state: State) -> str | None:
    return "vit_t" if "image_encoder.patch_embed.seq.0.c.weight" in state else None


def _transformers(state: State) -> str | None:
    if "vision_encoder.pos_embed" in state and "mask_decoder.iou_token.weight" in state:
        return _vit_size(state["vision_encoder.pos_embed"].shape[-1])
    return None


LAYOUTS = [
    Layout("sam", _published, dict, build_sam),
    Layout("mobile-sam", _published_mobile, dict, build_sam),
    Layout("sam", _transformers, from_transformers, build_sam),
]
