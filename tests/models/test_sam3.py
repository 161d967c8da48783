"""SAM 3: parity with transformers at random weights, published keys, and the family's conformance."""

import sys
from dataclasses import replace
from math import ceil, floor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import Sam3TrackerVideoInferenceSession
from transformers.models.sam3_video import configuration_sam3_video, modeling_sam3_video

from napari_segany.core.concepts import Examples
from napari_segany.core.errors import CheckpointError, UnsupportedError
from napari_segany.core.settings import FindSettings
from napari_segany.models.sam2.network import Sam2Config
from napari_segany.models.sam3.geometry import roi_align
from napari_segany.models.sam3.layouts import LAYOUTS, from_published, from_transformers
from napari_segany.models.sam3.network import Sam3, Sam3Config, build_sam3, no_boxes
from napari_segany.models.sam3.predictor import Sam3Embedding, Sam3Model, joint_scores
from tests.models.conformance import ImageModelConformance, picture
from tests.models.tracking_parity import (
    TOLERANCE,
    assert_same,
    band,
    clicks,
    drifting_video,
    hold_to_published_code,
    our_run,
    published_keys,
    relative,
    scatter_weights,
    transformers_run,
)

CPU = torch.device("cpu")
SIDE = 168
#: Two windows along each side, a block that sees everything, and learned positions that are repeated.
NUMBERS = Sam3Config(
    memory=Sam2Config(
        input_size=SIDE, stride=14, channels=128, memory_channels=64, heads=4, hidden=64, score_hidden=24,
        attention_hidden=48, attention_depth=2, memory_hidden=40, max_prompted=2,
    ),
    width=64, depth=3, heads=4, hidden=96, window=6, learned=6, global_blocks=(1,),
    text_width=48, text_depth=2, text_heads=4, text_hidden=80, vocabulary=49408, text_length=10,
    detector_heads=4, detector_hidden=72, geometry_depth=2, fusion_depth=2, query_depth=3, queries=13,
)  # fmt: skip


def slow_roi_align(features: torch.Tensor, boxes: list[torch.Tensor], size: int) -> torch.Tensor:
    """What torchvision's operator does with its default arguments, sample by sample."""
    channels, height, width = features.shape[1:]
    pooled = torch.zeros(len(boxes[0]), channels, size, size)
    for n, (x0, y0, x1, y1) in enumerate(boxes[0].tolist()):
        steps = max(x1 - x0, 1.0) / size, max(y1 - y0, 1.0) / size
        counts = ceil(steps[0]), ceil(steps[1])
        for i in range(size):
            for j in range(size):
                for v in range(counts[1]):
                    for u in range(counts[0]):
                        x = x0 + (j + (u + 0.5) / counts[0]) * steps[0]
                        y = y0 + (i + (v + 0.5) / counts[1]) * steps[1]
                        if not (-1 <= x <= width and -1 <= y <= height):
                            continue
                        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
                        left, top = floor(x), floor(y)
                        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
                        fx, fy = x - left, y - top
                        f = features[0]
                        value = (1 - fy) * ((1 - fx) * f[:, top, left] + fx * f[:, top, right])
                        value = value + fy * ((1 - fx) * f[:, bottom, left] + fx * f[:, bottom, right])
                        pooled[n, :, i, j] += value / (counts[0] * counts[1])
    return pooled


@pytest.fixture(scope="module")
def oracle() -> modeling_sam3_video.Sam3VideoModel:
    n, m = NUMBERS, NUMBERS.memory
    grid, eps = SIDE // 14, {"layer_norm_eps": 1e-5}
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": {
            "model_type": "sam3_vit_model", "hidden_size": n.width, "intermediate_size": n.hidden,
            "num_hidden_layers": n.depth, "num_attention_heads": n.heads, "image_size": SIDE,
            "window_size": n.window, "global_attn_indexes": [1], "pretrain_image_size": 14 * n.learned, **eps,
        },
        "fpn_hidden_size": m.channels,
        "backbone_feature_sizes": [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
    }  # fmt: skip
    common = {"hidden_size": m.channels, "num_attention_heads": n.detector_heads, **eps}
    layers = {**common, "intermediate_size": n.detector_hidden}
    detector = {
        "model_type": "sam3",
        "vision_config": vision,
        "text_config": {
            "model_type": "clip_text_model", "vocab_size": n.vocabulary, "hidden_size": n.text_width,
            "intermediate_size": n.text_hidden, "projection_dim": 20, "num_hidden_layers": n.text_depth,
            "num_attention_heads": n.text_heads, "max_position_embeddings": n.text_length, "hidden_act": "gelu",
            "eos_token_id": 49407,
        },
        "geometry_encoder_config": {**layers, "num_layers": n.geometry_depth},
        "detr_encoder_config": {**layers, "num_layers": n.fusion_depth},
        "detr_decoder_config": {**layers, "num_layers": n.query_depth, "num_queries": n.queries},
        "mask_decoder_config": common,
    }  # fmt: skip
    tracker = {
        "model_type": "sam3_tracker_video",
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": m.channels, "image_size": SIDE},
        "mask_decoder_config": {
            "hidden_size": m.channels, "mlp_dim": m.hidden, "num_attention_heads": m.heads,
            "iou_head_hidden_dim": m.score_hidden,
        },
        "image_size": SIDE,
        "memory_attention_hidden_size": m.channels,
        "memory_attention_num_layers": m.attention_depth,
        "memory_attention_feed_forward_hidden_size": m.attention_hidden,
        "memory_encoder_hidden_size": m.channels,
        "memory_encoder_output_channels": m.memory_channels,
        "mask_downsampler_embed_dim": m.channels,
        "memory_fuser_embed_dim": m.channels,
        "memory_fuser_intermediate_dim": m.memory_hidden,
        "max_cond_frame_num": m.max_prompted,
    }  # fmt: skip
    config = configuration_sam3_video.Sam3VideoConfig(
        detector_config=detector, tracker_config=tracker, low_res_mask_size=4 * grid
    )
    torch.manual_seed(3)
    model = modeling_sam3_video.Sam3VideoModel(config).eval()
    # The only operator that transformers takes from torchvision.
    modeling = sys.modules[type(model.detector_model).__module__]
    modeling.torchvision = SimpleNamespace(ops=SimpleNamespace(roi_align=slow_roi_align))  # type: ignore[attr-defined]
    part = model.tracker_model
    part.prompt_encoder.shared_embedding.positional_embedding = part.shared_image_embedding.positional_embedding
    scatter_weights(model)

    def features(pixels: torch.Tensor, return_dict: bool = True) -> SimpleNamespace:
        seen = model.detector_model.vision_encoder(pixels)
        maps, positions = model.get_vision_features_for_tracker(seen)
        return SimpleNamespace(fpn_hidden_states=maps, fpn_position_encoding=positions)

    part.get_image_features = features
    return model


@pytest.fixture(scope="module")
def ours(oracle: modeling_sam3_video.Sam3VideoModel) -> Sam3Model:
    network = Sam3(NUMBERS)
    network.load_state_dict(from_transformers(oracle.state_dict()), strict=True)
    return Sam3Model(network, "ours", CPU, torch.float32, Path(__file__).parent)


class TestSam3(ImageModelConformance):
    @pytest.fixture
    def model(self, ours: Sam3Model) -> Sam3Model:
        return ours


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return drifting_video(SIDE)


def embedding(ours: Sam3Model, pixels: torch.Tensor) -> Sam3Embedding:
    with torch.inference_mode():
        return Sam3Embedding((SIDE, SIDE), ours.name, *ours.network.encode(pixels[None]))


WORDS = torch.tensor([49406, 3, 14, 15, 49407])
BOXES = torch.tensor([[0.4, 0.5, 0.3, 0.2], [0.9, 0.2, 0.3, 0.5], [0.1, 0.8, 0.01, 0.02]])


@pytest.mark.parametrize("labels", [[], [1], [1, 0, 1]], ids=["text", "one-box", "boxes"])
@torch.inference_mode()
def test_detections_equal_transformers(
    oracle: modeling_sam3_video.Sam3VideoModel, ours: Sam3Model, video: torch.Tensor, labels: list[int]
) -> None:
    network, signs = ours.network, torch.tensor(labels, dtype=torch.int64)
    padded = torch.cat([WORDS, torch.zeros(3, dtype=torch.int64)])
    # Published code always adds the token that stands for all boxes; transformers does when there is a box,
    # be it one that counts for nothing.
    expected = oracle.detector_model(
        pixel_values=video[:1],
        input_ids=padded[None],
        attention_mask=(padded > 0)[None].long(),
        input_boxes=BOXES[None, : max(1, len(labels))],
        input_boxes_labels=(signs if labels else torch.tensor([-10]))[None],
    )
    levels = network.encode(video[:1])[2]
    for ours_level, theirs in zip(
        levels, oracle.detector_model.vision_encoder(video[:1]).fpn_hidden_states, strict=False
    ):
        assert relative(ours_level, theirs) < TOLERANCE
    boxes = BOXES[: len(labels)] if labels else no_boxes(CPU)[0]
    prompt = network.detector.prompt(levels, network.detector.text(WORDS), boxes, signs)
    found = network.detector(levels, prompt)
    assert relative(found.boxes, expected.pred_boxes[0]) < TOLERANCE
    assert relative(found.scores, expected.pred_logits[0]) < TOLERANCE
    assert relative(found.presence, expected.presence_logits[0, 0]) < TOLERANCE
    chosen = torch.tensor([0, 5, 12])
    assert relative(network.detector.masks(found, chosen), expected.pred_masks[0, chosen]) < TOLERANCE
    assert found.boxes.std(dim=0).min() > 0.01


@torch.inference_mode()
def test_half_precision_sees_what_single_precision_sees(ours: Sam3Model, video: torch.Tensor) -> None:
    """On CPUs the two take different ways."""
    half = Sam3(NUMBERS).bfloat16()
    half.load_state_dict(ours.network.state_dict())
    for ours_level, rounded in zip(
        ours.network.encode(video[:1])[2], half.encode(video[:1].bfloat16())[2], strict=True
    ):
        assert rounded.dtype == torch.bfloat16
        assert float((ours_level - rounded).abs().mean()) < 0.03 * float(ours_level.abs().mean())


def test_roi_align_equals_its_definition() -> None:
    torch.manual_seed(1)
    features = torch.randn(1, 5, 9, 11)
    boxes = torch.tensor([[1.3, 2.1, 8.7, 6.0], [-3.0, -2.0, 4.0, 3.0], [9.5, 7.5, 14.0, 12.0], [5.0, 5.0, 5.1, 5.0]])
    assert relative(roi_align(features[0], boxes), slow_roi_align(features, [boxes], 7)) < 1e-5


THREE = [
    clicks(4, 1, [[40, 50]], [1]),
    clicks(4, 2, [[90, 30], [60, 60], [20, 100]], [1, 0, 1]),
    {"frame": 4, "object": 3, "mask": band(SIDE, 70, 112)},
]


def as_processed(mask: np.ndarray) -> torch.Tensor:
    given = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=(192, 192), mode="area")
    return (given >= 0.5).float()


@pytest.mark.parametrize(
    ("given", "start", "reverse"),
    [
        (THREE, 4, True),
        ([clicks(0, 1, [[40, 50]], [1]), clicks(3, 1, [[80, 80]], [1]), clicks(8, 1, [[90, 20]], [1])], 0, False),
    ],
    ids=["forward-then-backward", "more-prompts-than-are-looked-at"],
)
def test_tracking_equals_transformers(oracle, ours, video, given, start, reverse, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    kind = type(oracle.tracker_model)
    hold_to_published_code(
        monkeypatch,
        kind,
        [
            oracle.tracker_model.mask_decoder.pred_obj_score_head.proj_out,
            ours.network.sam_mask_decoder.pred_obj_score_head.layers[2],
        ],
        5.0,
    )
    # Published code takes given masks at four times the decoder's size; transformers at that of the input.
    given_mask = kind._use_mask_as_output

    def at_mask_size(self, *args):  # type: ignore[no-untyped-def]
        with monkeypatch.context() as patch:
            patch.setattr(self, "image_size", ours.network.mask_size)
            return given_mask(self, *args)

    monkeypatch.setattr(kind, "_use_mask_as_output", at_mask_size)
    session = Sam3TrackerVideoInferenceSession(video=video, video_height=SIDE, video_width=SIDE, dtype=torch.float32)
    expected = transformers_run(oracle.tracker_model, session, given, start, reverse, as_processed)
    found = our_run(ours, [embedding(ours, pixels) for pixels in video], given, start, reverse)
    compared = assert_same(found, expected)
    assert sum(float(m.std()) > 0.1 * float(m.abs().mean()) for m in compared) >= 8


@pytest.mark.parametrize(
    ("file", "index", "rename"),
    [("keys_off_sam3_video.txt", 0, from_published), ("keys_hf_Sam3Video.txt", 1, from_transformers)],
    ids=["published", "transformers"],
)
def test_keys_and_shapes_are_those_published(file: str, index: int, rename) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        state = published_keys(file)
        assert [layout.recognise(state) for layout in LAYOUTS][index] == "3"
        build_sam3("3").load_state_dict(rename(state), strict=True, assign=True)


@pytest.fixture
def worded(ours: Sam3Model, tmp_path: Path) -> Sam3Model:
    """The same network with a vocabulary of letters beside it."""
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc e\nl l</w>\n")
    return Sam3Model(ours.network, "ours", CPU, torch.float32, tmp_path)


def test_words_and_examples_find_objects(worded: Sam3Model) -> None:
    embedding = worded.embed(picture(90, 120, 3))
    everything = FindSettings(threshold=0.0, presence="off")
    found = worded.find(embedding, worded.describe("cell", []), everything)
    assert found.shape == (90, 120) and len(found) == NUMBERS.queries
    assert found.features is not None and found.features.shape == (NUMBERS.queries, 128)
    shown = Examples(embedding, np.array([[10.0, 20, 40, 60]]), np.array([[50.0, 60, 70, 90]]))
    both = worded.find(embedding, worded.describe("cell", [shown]), everything)
    assert np.abs(both.scores - found.scores).max() > 1e-4
    fewer = worded.find(embedding, worded.describe("cell", [shown]), FindSettings(threshold=0.999))
    assert len(fewer) < len(both)


def test_examples_alone_need_no_vocabulary_and_words_do(ours: Sam3Model, tmp_path: Path) -> None:
    model = Sam3Model(ours.network, "ours", CPU, torch.float32, tmp_path)
    embedding = model.embed(picture(90, 120, 3))
    described = model.describe(None, [Examples(embedding, np.array([[10.0, 20, 40, 60]]), np.zeros((0, 4)))])
    assert len(model.find(embedding, described, FindSettings(threshold=0.0))) > 0
    with pytest.raises(CheckpointError, match="Words need CLIP's vocabulary"):
        model.describe("cell", [])
    with pytest.raises(UnsupportedError, match="not made by ours"):
        model.find(replace(embedding, model_name="theirs"), described, FindSettings())


def test_presence_can_count_wholly_less_or_not() -> None:
    scores, absent = torch.tensor([4.0, -4.0]), torch.tensor(-3.0)
    product, soft, off = (joint_scores(scores, absent, mode) for mode in ("product", "soft", "off"))
    assert (product < soft).all() and (soft < off).all()
    assert product[0] < 0.1 < 0.8 < soft[0]
    assert torch.equal(joint_scores(scores, -absent, "soft"), off)
