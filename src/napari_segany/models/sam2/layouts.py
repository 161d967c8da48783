"""How SAM 2's weights are written down: the published layout and that of transformers."""

from __future__ import annotations

from napari_segany.models.checkpoints import Layout, State, renamed
from napari_segany.models.sam2.network import build_sam2, size_of

FOURIER = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
#: transformers' names and ours; every matching rule is applied, in this order.
TRANSFORMERS = [
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^shared_image_embedding\.positional_embedding$", FOURIER),
    (r"mask_embed\.conv1\.", "mask_downscaling.0."),
    (r"mask_embed\.layer_norm1\.", "mask_downscaling.1."),
    (r"mask_embed\.conv2\.", "mask_downscaling.3."),
    (r"mask_embed\.layer_norm2\.", "mask_downscaling.4."),
    (r"mask_embed\.conv3\.", "mask_downscaling.6."),
    (r"upscale_conv1\.", "output_upscaling.0."),
    (r"upscale_layer_norm\.", "output_upscaling.1."),
    (r"upscale_conv2\.", "output_upscaling.3."),
    (r"\.o_proj\.", ".out_proj."),
    (r"layer_norm_final_attn\.", "norm_final_attn."),
    *((rf"mask_downsampler\.layers\.{i}\.conv\.", f"mask_downsampler.encoder.{3 * i}.") for i in range(4)),
    *((rf"mask_downsampler\.layers\.{i}\.layer_norm\.", f"mask_downsampler.encoder.{3 * i + 1}.") for i in range(4)),
    (r"mask_downsampler\.final_conv\.", "mask_downsampler.encoder.12."),
    (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"memory_fuser\.", "fuser."),
    (r"depthwise_conv\.", "dwconv."),
    (r"pointwise_conv", "pwconv"),
    (r"\.scale$", ".gamma"),
    (r"\.layer_norm(\d?)\.", r".norm\1."),
    (r"(blocks\.\d+|transformer\.layers\.\d+)\.mlp\.proj_in\.", r"\1.mlp.lin1."),
    (r"(blocks\.\d+|transformer\.layers\.\d+)\.mlp\.proj_out\.", r"\1.mlp.lin2."),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"(_mlps\.\d|_head|obj_ptr_proj)\.layers\.0\.", r"\1.layers.1."),
    (r"(_mlps\.\d|_head|obj_ptr_proj)\.proj_in\.", r"\1.layers.0."),
    (r"(_mlps\.\d|_head|obj_ptr_proj)\.proj_out\.", r"\1.layers.2."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
]
#: Published names and ours.
PUBLISHED = [
    (r"((?:blocks|transformer\.layers)\.\d+\.mlp)\.layers\.0\.", r"\1.lin1."),
    (r"((?:blocks|transformer\.layers)\.\d+\.mlp)\.layers\.1\.", r"\1.lin2."),
]
#: The Fourier matrix again, under the name of the prompt encoder.
TIED = "prompt_encoder.shared_embedding.positional_embedding"
#: All kinds of points in one matrix.
POINTS = "prompt_encoder.point_embed.weight"


def from_published(state: State) -> State:
    """Rename the keys of a published checkpoint."""
    return {renamed(key, PUBLISHED): value for key, value in state.items()}


def from_transformers(state: State) -> State:
    """Rename the keys of transformers' Sam2VideoModel."""
    found: State = {}
    for key, value in state.items():
        if key == TIED:
            continue
        if key == POINTS:
            for kind in range(len(value)):
                found[f"sam_prompt_encoder.point_embeddings.{kind}.weight"] = value[kind : kind + 1]
            continue
        found[renamed(key, TRANSFORMERS)] = value
    return found


def _size(state: State, trunk: str, absence: str) -> str | None:
    if f"{trunk}.pos_embed_window" not in state:
        return None
    blocks = {key.split(".")[3] for key in state if key.startswith(f"{trunk}.blocks.")}
    return size_of(state[f"{trunk}.pos_embed"].shape[1], len(blocks), absence in state)


LAYOUTS = [
    Layout("sam2", lambda s: _size(s, "image_encoder.trunk", "no_obj_embed_spatial"), from_published, build_sam2),
    Layout(
        "sam2",
        lambda s: _size(s, "vision_encoder.backbone", "occlusion_spatial_embedding_parameter"),
        from_transformers,
        build_sam2,
    ),
]
