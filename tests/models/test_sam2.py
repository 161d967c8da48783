"""SAM 2: parity with transformers at random weights, published keys, and the family's conformance."""

from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel

from napari_segany.core.intensity import IntensityRange
from napari_segany.models.sam2.layouts import LAYOUTS, from_published, from_transformers
from napari_segany.models.sam2.network import SIZES, HieraSize, Sam2, Sam2Config, build_sam2
from napari_segany.models.sam2.predictor import Sam2Embedding, Sam2Model
from napari_segany.models.sam2.selection import MotionSelection
from napari_segany.session.propagating_session import PropagatingSession as Session
from tests.models.conformance import ImageModelConformance, picture
from tests.models.tracking_parity import (
    TOLERANCE,
    as_prompt,
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
from tests.session.conftest import ArrayLabels

CPU = torch.device("cpu")
SIDE = 128
#: Windows that do not divide the grids, and a block that sees everything.
SMALL = HieraSize(16, 1, (1, 2, 3, 1), (4,), (8, 4, 6, 3), (5, 5))
CONFIG = Sam2Config(
    input_size=SIDE, channels=128, memory_channels=64, heads=4, hidden=64, score_hidden=24,
    attention_hidden=48, attention_depth=2, memory_hidden=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def oracle() -> Sam2VideoModel:
    grid = SIDE // 16
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [SIDE, SIDE],
        "window_positional_embedding_background_size": [5, 5],
        "blocks_per_stage": [1, 2, 3, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 6, 3],
        "global_attention_blocks": [4],
    }
    config = Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
            "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 24},
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=48,
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=40,
    )
    torch.manual_seed(3)
    model = Sam2VideoModel(config).eval()
    # One matrix in every checkpoint.
    model.prompt_encoder.shared_embedding.positional_embedding = model.shared_image_embedding.positional_embedding
    scatter_weights(model)
    return model


@pytest.fixture(scope="module")
def ours(oracle: Sam2VideoModel) -> Sam2Model:
    network = Sam2(SMALL, CONFIG)
    network.load_state_dict(from_transformers(oracle.state_dict()), strict=True)
    return Sam2Model(network, "ours", CPU, torch.float32)


class TestSam2(ImageModelConformance):
    @pytest.fixture
    def model(self, ours: Sam2Model) -> Sam2Model:
        return ours


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return drifting_video(SIDE)


def embedding(ours: Sam2Model, pixels: torch.Tensor) -> Sam2Embedding:
    with torch.inference_mode():
        return Sam2Embedding((SIDE, SIDE), ours.name, *ours.network.encode(pixels[None]))


@torch.no_grad()
def test_image_features_equal_transformers(oracle: Sam2VideoModel, ours: Sam2Model, video: torch.Tensor) -> None:
    expected = oracle.get_image_features(video[:1], return_dict=True).fpn_hidden_states
    fine, middle, coarse = ours.network.image_encoder(video[:1])
    assert relative(coarse.flatten(1, 2)[0], expected[2][:, 0]) < TOLERANCE
    skip = ours.network.sam_mask_decoder.conv_s0(fine.permute(0, 3, 1, 2)).flatten(2)[0].T
    assert relative(skip, expected[0][:, 0]) < TOLERANCE
    skip = ours.network.sam_mask_decoder.conv_s1(middle.permute(0, 3, 1, 2)).flatten(2)[0].T
    assert relative(skip, expected[1][:, 0]) < TOLERANCE


def rows(y0: int, y1: int) -> np.ndarray:
    return band(SIDE, y0, y1)


THREE = [
    clicks(4, 1, [[40, 50]], [1]),
    clicks(4, 2, [[90, 30], [60, 60], [20, 100]], [1, 0, 1]),
    {"frame": 4, "object": 3, "mask": rows(60, 100)},
]


@pytest.mark.parametrize(
    ("given", "start", "reverse", "presence"),
    [
        (THREE, 4, False, 5.0),
        (THREE, 4, True, 5.0),
        ([*THREE, clicks(9, 1, [[80, 80], [10, 10]], [1, 0])], 4, False, 5.0),
        ([clicks(0, 1, [[40, 50]], [1]), {"frame": 6, "object": 1, "mask": rows(12, 60)}], 0, False, 5.0),
        ([{"frame": 0, "object": 1, "mask": rows(0, 0)}, clicks(0, 2, [[40, 50]], [1])], 0, False, 5.0),
        (THREE, 4, True, -5.0),
    ],
    ids=["forward", "forward-then-backward", "second-clicks", "second-mask", "empty-mask", "absent"],
)
def test_propagation_equals_transformers(
    oracle: Sam2VideoModel,
    ours: Sam2Model,
    video: torch.Tensor,
    given: list[dict],
    start: int,
    reverse: bool,
    presence: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold_to_published_code(
        monkeypatch,
        Sam2VideoModel,
        [oracle.mask_decoder.pred_obj_score_head.proj_out, ours.network.sam_mask_decoder.pred_obj_score_head.layers[2]],
        presence,
    )
    session = Sam2VideoInferenceSession(video=video, video_height=SIDE, video_width=SIDE, dtype=torch.float32)
    theirs = [
        one | {"as given": torch.from_numpy(one["mask"])[None, None].float()} if "mask" in one else one for one in given
    ]
    expected = transformers_run(oracle, session, theirs, start, reverse)
    found = our_run(ours, [embedding(ours, pixels) for pixels in video], given, start, reverse)
    compared = assert_same(found, expected)
    assert sum(bool((m > 0).any() and (m < 0).any()) == (presence > 0) for m in compared) >= 8


@pytest.mark.parametrize("size", ["2.0-tiny", "2.1-tiny", "2.1-small", "2.0-base-plus", "2.1-base-plus", "2.1-large"])
def test_keys_and_shapes_are_those_published(size: str) -> None:
    version, name = size.split("-", 1)
    letter = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}[name]
    with torch.device("meta"):
        state = published_keys(f"keys_off_sam2{'.1' if version == '2.1' else ''}_{letter}.txt")
        assert LAYOUTS[0].recognise(state) == size
        build_sam2(size).load_state_dict(from_published(state), strict=True, assign=True)


def test_keys_and_shapes_are_those_of_transformers() -> None:
    with torch.device("meta"):
        state = published_keys("keys_hf_Sam2Video.txt")
        assert LAYOUTS[1].recognise(state) == "2.1-tiny"
        build_sam2("2.1-tiny").load_state_dict(from_transformers(state), strict=True, assign=True)


def test_every_size_has_its_own_name() -> None:
    assert len({(size.channels, sum(size.stages)) for size in SIZES.values()}) == len(SIZES)


def test_memory_does_not_grow_with_the_stack(ours: Sam2Model, video: torch.Tensor) -> None:
    tracker = ours.tracker(400)
    shown = embedding(ours, video[0])
    tracker.condition(0, shown, {1: as_prompt(THREE[0], SIDE), 2: as_prompt(THREE[2], SIDE)})
    tracker.condition(60, shown, {1: as_prompt(THREE[0], SIDE)})
    kept = []
    for frame in range(1, 130):
        tracker.follow(frame, shown, [1, 2])
        kept.append(sum(len(own) for own in (*tracker.seen.values(), *tracker.prompted.values())))
    # Sixteen on the way, sixteen after each prompted frame, and as many before it.
    assert kept[50] == kept[39] and kept[-1] == kept[100] <= 120


def test_motion_remembers_good_frames_and_the_one_before(ours: Sam2Model, video: torch.Tensor) -> None:
    tracker, shown = ours.tracker(100, motion=True), embedding(ours, video[0])
    tracker.condition(0, shown, {1: as_prompt(THREE[2], SIDE)})
    for frame in range(1, 12):
        answers = tracker.follow(frame, shown, [1])
    assert answers[1].logits.shape[0] == 1
    seen = tracker.seen[1]
    for frame, memory in seen.items():
        seen[frame] = replace(memory, good=frame in (2, 5))
    recalled = tracker._recent(seen, 12, 1)
    assert [next(f for f, m in seen.items() if m is memory) for memory in recalled] == [11, 5, 2]


def test_resident_memory_is_the_same_after_50_and_after_500_planes(ours: Sam2Model) -> None:
    class Planes:
        """Planes made when they are asked for."""

        shape, dtype, intensity = (500, 48, 48), np.dtype(np.uint8), IntensityRange((0.0,), (255.0,))

        def __len__(self) -> int:
            return len(range(self.shape[0]))

        def __getitem__(self, frame: int) -> np.ndarray:
            return picture(48, 48, frame % 7)

    ours.network.sam_mask_decoder.pred_obj_score_head.layers[2].bias.data.fill_(5.0)
    session = Session(Planes(), ours, ArrayLabels((500, 48, 48)))
    for object_id in (1, 2, 3):
        session.prompt(object_id, 0, points=[(10 * object_id, 20)])
    used = [psutil.Process().memory_info().rss for _ in session.propagate(direction="forward")]
    assert used[-1] < 1.05 * used[50]


class TestMotionSelection:
    def masks(self, *corners: int) -> np.ndarray:
        """Three masks of one object, squares at different places."""
        logits = np.full((1, 3, 64, 64), -5.0)
        for k, corner in enumerate(corners):
            logits[0, k, corner : corner + 10, corner : corner + 10] = 5.0
        return logits

    def test_a_mask_that_jumps_loses_once_motion_is_known(self) -> None:
        selection, here = MotionSelection(), np.ones(1)
        for frame in range(16):
            best, good = selection.choose([1], self.masks(frame, frame, frame), np.array([[0.9, 0.5, 0.5]]), here)
            assert best[0] == 0 and good[0]
        # The first mask is far away but scores a little better.
        best, _ = selection.choose([1], self.masks(50, 16, 30), np.array([[0.9, 0.8, 0.2]]), here)
        assert best[0] == 1

    def test_before_motion_is_known_the_score_decides(self) -> None:
        selection = MotionSelection()
        selection.choose([1], self.masks(0, 0, 0), np.array([[0.9, 0.5, 0.5]]), np.ones(1))
        best, good = selection.choose([1], self.masks(50, 1, 30), np.array([[0.9, 0.8, 0.2]]), np.ones(1))
        assert best[0] == 0 and not good[0]

    @pytest.mark.parametrize(("score", "presence"), [(0.4, 5.0), (0.9, -5.0)])
    def test_poor_or_absent_frames_are_not_remembered(self, score: float, presence: float) -> None:
        _, good = MotionSelection().choose([1], self.masks(5, 5, 5), np.full((1, 3), score), np.array([presence]))
        assert not good[0]
