"""How SAM 3's weights are written down: the published layout and that of transformers."""

from __future__ import annotations

import re

import torch

from napari_segany.models.checkpoints import Layout, State, renamed
from napari_segany.models.sam2 import layouts as sam2
from napari_segany.models.sam3.network import build_sam3

#: Parts that no answer depends on, that follow from the numbers alone (`freqs_cis`), or that we do not
#: ask (points as exemplars; transformers' files lack them).
UNUSED = re.compile(
    r"freqs_cis$|convs\.3\.|fpn_layers\.3\.|semantic_|conv_layers\.2\.|norms\.2\.|points_(direct|pool|pos_enc)_project"
    r"|encoder\.text_projection"
)
#: Published names and ours; every matching rule is applied, in this order.
PUBLISHED = [
    (r"^detector\.backbone\.vision_backbone\.trunk\.", "trunk."),
    (r"^detector\.backbone\.vision_backbone\.convs\.", "detector_neck.convs."),
    (r"^detector\.backbone\.vision_backbone\.sam2_convs\.", "tracker_neck.convs."),
    (r"\.dconv_2x2(_0)?\.", ".up.0."),
    (r"\.dconv_2x2_1\.", ".up.2."),
    (r"patch_embed\.proj\.", "patch_embed."),
    (r"^detector\.backbone\.language_backbone\.(encoder\.)?", "detector.text."),
    (r"transformer\.resblocks\.", "blocks."),
    (r"\.mlp\.(fc1|c_fc)\.", ".mlp.lin1."),
    (r"\.mlp\.(fc2|c_proj)\.", ".mlp.lin2."),
    (r"^detector\.geometry_encoder\.", "detector.geometry."),
    (r"^detector\.transformer\.encoder\.", "detector.fusion."),
    (r"^detector\.transformer\.decoder\.", "detector.queries."),
    (r"^detector\.dot_prod_scoring\.", "detector.scoring."),
    (r"^detector\.segmentation_head\.(mask_predictor\.)?", "detector.segmentation."),
    (r"^tracker\.transformer\.encoder\.", "memory_attention."),
    (r"^tracker\.maskmem_backbone\.", "memory_encoder."),
    (r"^tracker\.", ""),
]
#: transformers' names and ours, of all but the tracker.
TRANSFORMERS = [
    (r"^detector_model\.vision_encoder\.backbone\.(embeddings\.)?", "trunk."),
    (r"^trunk\.position_embeddings$", "trunk.pos_embed"),
    (r"^trunk\.patch_embeddings\.projection\.", "trunk.patch_embed."),
    (r"^trunk\.layer_norm\.", "trunk.ln_pre."),
    (r"^trunk\.layers\.(\d+)\.layer_norm", r"trunk.blocks.\1.norm"),
    (r"^trunk\.layers\.(\d+)\.attention\.o_proj\.", r"trunk.blocks.\1.attn.proj."),
    (r"^trunk\.layers\.(\d+)\.attention\.", r"trunk.blocks.\1.attn."),
    (r"^trunk\.layers\.", "trunk.blocks."),
    (r"^detector_model\.vision_encoder\.neck\.", "detector_neck."),
    (r"_neck\.fpn_layers\.(\d)\.scale_layers\.", r"_neck.convs.\1.up."),
    (r"_neck\.fpn_layers\.(\d)\.proj1\.", r"_neck.convs.\1.conv_1x1."),
    (r"_neck\.fpn_layers\.(\d)\.proj2\.", r"_neck.convs.\1.conv_3x3."),
    (r"^detector_model\.", "detector."),
    (r"^detector\.text_projection\.", "detector.text.resizer."),
    (r"^detector\.text_encoder\.text_model\.(embeddings\.|encoder\.)?", "detector.text."),
    (r"^detector\.text\.position_embedding\.weight$", "detector.text.positional_embedding"),
    (r"^detector\.text\.final_layer_norm\.", "detector.text.ln_final."),
    (r"^detector\.text\.layers\.(\d+)\.self_attn\.", r"detector.text.blocks.\1.attn."),
    (r"^detector\.text\.layers\.(\d+)\.layer_norm", r"detector.text.blocks.\1.ln_"),
    (r"^detector\.text\.layers\.", "detector.text.blocks."),
    (r"((?:trunk|text)\.blocks\.\d+\.mlp)\.fc([12])\.", r"\1.lin\2."),
    (r"\.mlp\.fc([12])\.", r".linear\1."),
    (r"^detector\.geometry_encoder\.layers\.", "detector.geometry.encode."),
    (r"^detector\.geometry_encoder\.", "detector.geometry."),
    (r"\.vision_layer_norm\.", ".img_pre_norm."),
    (r"\.prompt_layer_norm\.", ".norm."),
    (r"geometry\.output_layer_norm\.", "geometry.encode_norm."),
    (r"^detector\.detr_encoder\.", "detector.fusion."),
    (r"(fusion\.layers|geometry\.encode)\.(\d)\.layer_norm", r"\1.\2.norm"),
    (r"(fusion\.layers|geometry\.encode)\.(\d)\.cross_attn\.", r"\1.\2.cross_attn_image."),
    (r"^detector\.detr_decoder\.", "detector.queries."),
    (r"queries\.output_layer_norm\.", "queries.norm."),
    (r"\.self_attn_layer_norm\.", ".norm2."),
    (r"\.text_cross_attn_layer_norm\.", ".catext_norm."),
    (r"\.vision_cross_attn_layer_norm\.", ".norm1."),
    (r"\.mlp_layer_norm\.", ".norm3."),
    (r"\.text_cross_attn\.", ".ca_text."),
    (r"\.vision_cross_attn\.", ".cross_attn."),
    (r"\.box_head\.", ".bbox_embed."),
    (r"\.box_rpb_embed_", ".boxRPB_embed_"),
    (r"\.presence_head\.", ".presence_token_head."),
    (r"\.presence_layer_norm\.", ".presence_token_out_norm."),
    (r"^detector\.dot_product_scoring\.", "detector.scoring."),
    (r"scoring\.text_mlp_out_norm\.", "scoring.prompt_mlp.out_norm."),
    (r"scoring\.text_mlp\.", "scoring.prompt_mlp."),
    (r"scoring\.text_proj\.", "scoring.prompt_proj."),
    (r"scoring\.query_proj\.", "scoring.hs_proj."),
    *((rf"\.layer{k}\.", f".layers.{k - 1}.") for k in (1, 2, 3)),
    (r"^detector\.mask_decoder\.", "detector.segmentation."),
    (r"\.mask_embedder\.", ".mask_embed."),
    (r"\.instance_projection\.", ".instance_seg_head."),
    (r"\.prompt_cross_attn\.", ".cross_attend_prompt."),
    (r"\.prompt_cross_attn_norm\.", ".cross_attn_norm."),
    (r"\.o_proj\.", ".out_proj."),
]


def from_published(state: State) -> State:
    """Rename the keys of the published checkpoint."""
    found = {renamed(key, PUBLISHED): value for key, value in state.items() if not UNUSED.search(key)}
    # The first learned position belongs to a token that is not used here.
    found["trunk.pos_embed"] = found["trunk.pos_embed"][:, 1:]
    return found


def from_transformers(state: State) -> State:
    """Rename the keys of transformers' Sam3VideoModel."""
    prefix = "tracker_model."
    tracker = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    rest = {key: value for key, value in state.items() if not key.startswith(prefix) and not UNUSED.search(key)}
    return sam2.from_transformers(tracker) | _joined({renamed(key, TRANSFORMERS): v for key, v in rest.items()})


def _joined(state: State) -> State:
    """Put the projections of queries, keys and values into one matrix each."""
    joined: State = {}
    for key, value in state.items():
        match = re.fullmatch(r"(.*)\.q_proj\.(weight|bias)", key)
        if match:
            name = f"{match[1]}.qkv.{match[2]}" if key.startswith("trunk.") else f"{match[1]}.in_proj_{match[2]}"
            joined[name] = torch.cat([value, *(state[f"{match[1]}.{kind}_proj.{match[2]}"] for kind in "kv")])
        elif not re.search(r"\.[kv]_proj\.", key):
            joined[key] = value
    return joined


LAYOUTS = [
    Layout(
        "sam3",
        lambda s: "3" if "detector.backbone.vision_backbone.trunk.pos_embed" in s else None,
        from_published,
        build_sam3,
    ),
    Layout(
        "sam3",
        lambda s: "3" if "detector_model.vision_encoder.backbone.embeddings.position_embeddings" in s else None,
        from_transformers,
        build_sam3,
    ),
]
