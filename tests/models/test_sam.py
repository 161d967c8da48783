"""SAM: parity with transformers at random weights, published keys, and the family's conformance."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig
from transformers import SamModel as TransformersSam

from napari_segany.core.prompts import make_prompt
from napari_segany.models.sam.image_encoder import RelativeAttention
from napari_segany.models.sam.layouts import from_transformers
from napari_segany.models.sam.network import build_sam
from napari_segany.models.sam.predictor import SamModel
from napari_segany.models.sam.tiny_vit import TinyBlock, WindowAttention
from tests.models.conformance import ImageModelConformance, picture
from tests.models.conftest import CPU, small_sam

TOLERANCE = 1e-4


class TestSam(ImageModelConformance):
    @pytest.fixture
    def model(self, sam_model: SamModel) -> SamModel:
        return sam_model


@pytest.fixture(scope="module")
def oracle() -> TransformersSam:
    vision = SamVisionConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=256,
        global_attn_indexes=[1],
        window_size=6,
        output_channels=32,
        mlp_dim=96,
        num_pos_feats=16,
    )
    prompts = SamPromptEncoderConfig(hidden_size=32, image_size=256)
    decoder = SamMaskDecoderConfig(hidden_size=32, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=24)
    torch.manual_seed(1)
    model = TransformersSam(
        SamConfig(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompts.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
    ).eval()
    for parameter in model.parameters():
        # Biases and relative positions start at zero, where a mistake would not show, and
        # matrices so small that rounding would.
        noise = torch.randn_like(parameter)
        parameter.data = 0.2 * noise if parameter.ndim > 1 else parameter.data + 0.1 * noise
    return model


@pytest.fixture(scope="module")
def ours(oracle: TransformersSam) -> SamModel:
    network = small_sam()
    network.load_state_dict(from_transformers(oracle.state_dict()), strict=True)
    return SamModel(network, "ours", "sam", CPU, torch.float32)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@torch.no_grad()
def test_image_embeddings_equal_transformers(oracle: TransformersSam, ours: SamModel) -> None:
    images = torch.randn(2, 3, 256, 256)
    assert relative(ours.network.image_encoder(images), oracle.get_image_embeddings(images)) < TOLERANCE


@pytest.mark.parametrize("shape", [(256, 256), (120, 200), (300, 170)])
@pytest.mark.parametrize(
    "prompt",
    [
        {"points": [(50, 60)]},
        {"points": [(50, 60), (100, 70), (20, 30)], "labels": [1, 0, 1]},
        {"box": (20, 30, 100, 120)},
        {"points": [(50, 60)], "box": (20, 30, 100, 120)},
        {"points": [(50, 60)], "mask": True},
        {"box": (20, 30, 100, 120), "mask": True},
    ],
    ids=["click", "clicks", "box", "click+box", "click+mask", "box+mask"],
)
@pytest.mark.parametrize("multimask", [True, False])
@torch.no_grad()
def test_answers_equal_transformers(
    oracle: TransformersSam, ours: SamModel, shape: tuple[int, int], prompt: dict, multimask: bool
) -> None:
    given = dict(prompt)
    if "mask" in given:
        given["mask"] = np.random.default_rng(0).normal(size=shape)
    asked = make_prompt(shape, **given)
    embedding = ours.embed(picture(*shape))
    scale = np.array(embedding.resized) / shape

    def to_input(yx: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((yx * scale)[:, ::-1].astype(np.float32).copy())[None]

    inputs = {}
    if len(asked.points):
        inputs["input_points"] = to_input(asked.points)[:, None]
        inputs["input_labels"] = torch.from_numpy(asked.labels)[None, None]
    if asked.box is not None:
        inputs["input_boxes"] = to_input(asked.box.reshape(2, 2)).reshape(1, 1, 4)
    if asked.mask is not None:
        inputs["input_masks"] = ours.mask_input(embedding, asked.mask)[None]
    features = embedding.features.transpose(1, 2).unflatten(2, (16, 16))
    expected = oracle(image_embeddings=features, multimask_output=multimask, **inputs)
    (answer,) = ours.predict(embedding, [asked], multimask)
    assert relative(torch.from_numpy(answer.logits), expected.pred_masks[0, 0]) < TOLERANCE
    np.testing.assert_allclose(answer.scores, expected.iou_scores[0, 0].numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(256, 256), (120, 200), (300, 170)])
@torch.no_grad()
def test_masks_reach_the_image_as_published(ours: SamModel, shape: tuple[int, int]) -> None:
    embedding = ours.embed(picture(*shape))
    (answer,) = ours.predict(embedding, [make_prompt(shape, points=[(50, 60)])], True)
    logits = torch.from_numpy(answer.logits)[None]
    full = F.interpolate(logits, (256, 256), mode="bilinear", align_corners=False)
    height, width = embedding.resized
    full = F.interpolate(full[..., :height, :width], shape, mode="bilinear", align_corners=False)[0]
    for k in range(3):
        upsampled = torch.from_numpy(answer.grid.upsample(answer.logits[k]))
        assert relative(upsampled, full[k]) < TOLERANCE


@torch.no_grad()
def test_relative_positions_equal_their_definition() -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(24, 3, 5)
    attention.rel_pos_h.data.normal_()
    attention.rel_pos_w.data.normal_()
    x = torch.randn(2, 25, 24)
    q, k, v = attention.qkv(x).view(2, 25, 3, 3, 8).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(2, 3) / 8**0.5
    for a in range(25):
        for b in range(25):
            dy, dx = a // 5 - b // 5 + 4, a % 5 - b % 5 + 4
            scores[:, :, a, b] += q[:, :, a] @ attention.rel_pos_h[dy] + q[:, :, a] @ attention.rel_pos_w[dx]
    expected = attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 25, 24))
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_large_grids_are_attended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention, x = RelativeAttention(24, 3, 8), torch.randn(2, 64, 24)
    whole = attention(x)
    monkeypatch.setattr("napari_segany.models.sam.image_encoder.SCORES_AT_ONCE", 64 * 7)
    torch.testing.assert_close(attention(x), whole, rtol=1e-5, atol=1e-6)


def test_window_attention_shares_a_bias_between_mirrored_offsets() -> None:
    attention = WindowAttention(8, 2, 3)
    distance = attention.distance
    assert distance.shape == (9, 9) and int(distance.max()) == 8
    assert distance[0, 8] == distance[8, 0] == distance[2, 6] and distance[0, 1] != distance[0, 3]


@torch.no_grad()
def test_tiny_blocks_pad_with_zeros_that_are_attended_to() -> None:
    torch.manual_seed(0)
    block = TinyBlock(8, 2, 4).eval()
    x = torch.randn(1, 8, 6, 6)
    padded = F.pad(x, (0, 2, 0, 2)).permute(0, 2, 3, 1).view(1, 2, 4, 2, 4, 8).transpose(2, 3).reshape(4, 16, 8)
    seen = block.attn(padded).view(1, 2, 2, 4, 4, 8).transpose(2, 3).reshape(1, 8, 8, 8)[:, :6, :6].permute(0, 3, 1, 2)
    mixed = block.local_conv(x + seen)
    expected = mixed + block.mlp(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("size", "parameters", "keys"), [("vit_b", 93.74, 314), ("vit_l", 312.34, 482), ("vit_h", 641.09, 594)]
)
def test_published_sizes(size: str, parameters: float, keys: int) -> None:
    with torch.device("meta"):
        network = build_sam(size)
    assert len(network.state_dict()) == keys
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(parameters, abs=0.01)
    listed = Path(__file__).parents[3] / "shared" / "model_keys" / f"keys_off_{size}.txt"
    if listed.exists():
        expected = {line.split(" ", 1)[0]: line[line.index("(") : line.index(")") + 1] for line in listed.open()}
        assert {name: str(tuple(value.shape)) for name, value in network.state_dict().items()} == expected


def test_mobile_sam_grids_and_size() -> None:
    with torch.device("meta"):
        network = build_sam("vit_t")
        x = network.image_encoder.patch_embed(torch.zeros(1, 3, 1024, 1024))
        sides = [x.shape[-1]]
        for stage in network.image_encoder.layers:
            x = stage(x)
            sides.append(x.shape[-1])
    assert sides == [256, 128, 64, 64, 64] and x.shape[1] == 320
    # 9.66 million are published; the classifier and its norm, which nobody uses, come on top.
    unused = 320 * 1000 + 1000 + 2 * 320
    assert (sum(p.numel() for p in network.parameters()) - unused) / 1e6 == pytest.approx(9.8, abs=0.2)


def test_half_precision_stays_near(sam_model: SamModel) -> None:
    half = SamModel(small_sam(), "half", "sam", CPU, torch.bfloat16)
    half.network.load_state_dict(sam_model.network.state_dict())
    image, prompt = picture(90, 130), make_prompt((90, 130), box=(20, 30, 60, 100))
    (a,), (b,) = (m.predict(m.embed(image), [prompt]) for m in (sam_model, half))
    assert np.abs(a.logits - b.logits).max() < 0.1 * np.abs(a.logits).max()
