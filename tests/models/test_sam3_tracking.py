"""SAM 3's whole loop over a stream against transformers, at random weights: the same objects, ids, scores and masks."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F
from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video
from transformers.models.sam3_video import modeling_sam3_video
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

from napari_segany.core.masks import SPECK_LOGIT
from napari_segany.core.settings import FindSettings, TrackSettings
from napari_segany.models.sam3.layouts import from_transformers
from napari_segany.models.sam3.network import Sam3
from napari_segany.models.sam3.predictor import Described, Sam3Embedding, Sam3Model
from napari_segany.session.published_tracking import PublishedRun
from tests.models import test_sam3
from tests.models.test_sam3 import BOXES, CPU, NUMBERS, SIDE, WORDS
from tests.models.tracking_parity import TOLERANCE, drifting_video, hold_to_published_code, relative

oracle = test_sam3.oracle
#: Cells along the side of a mask.
GRID, FRAMES = 4 * (SIDE // 14), 10
#: Numbers that random masks can reach, so impatient that all rules apply within ten frames.
SETTINGS = TrackSettings(
    find=FindSettings(threshold=0.5, overlap_threshold=0.5),
    rule="published",
    published_overlap=0.45,
    new_threshold=0.6,
    new_overlap=0.5,
    delay=5,
    unmatched_limit=3,
    duplicate_limit=3,
    duplicate_overlap=0.1,
    renew_every=3,
    renew_score=0.6,
    renew_overlap=0.5,
    renew_from="memory",
)
#: A box that counts for nothing brings the token that stands for all boxes, as in test_sam3.
NO_BOX = {"input_boxes": BOXES[None, :1], "input_boxes_labels": torch.tensor([[-10]])}


@torch.no_grad()
def tell_apart(oracle: Sam3VideoModel, frame: torch.Tensor) -> None:
    """Give random queries scores and masks that differ."""
    detector, seen = oracle.detector_model, {}
    layers = {
        "mask": detector.mask_decoder.mask_embedder.layers[2],
        "query": detector.dot_product_scoring.query_proj,
        "text": detector.dot_product_scoring.text_proj,
    }

    def note(name: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(name, output.flatten(0, -2))

    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    text = {"input_ids": WORDS[None], "attention_mask": torch.ones(1, len(WORDS)).long()}
    detector(pixel_values=frame[None], **text, **NO_BOX)
    for hook in hooks:
        hook.remove()
    masks, queries, words = (seen[name][-rows:] for name, rows in (("mask", 13), ("query", 13), ("text", 1)))
    width = len(words[0])
    scale = 1.5 * width**0.5 / (queries @ words[0]).std()
    centre = width**0.5 * words[0] / (words[0] @ words[0])
    for layer, factor, middle, wanted in (
        (layers["mask"], 1 / masks.std(0).mean(), masks.mean(0), 0.0),
        (layers["query"], scale, queries.mean(0), centre),
    ):
        layer.weight *= factor
        layer.bias.copy_(factor * (layer.bias - middle) + wanted)
    detector.detr_decoder.presence_head.layer3.bias.fill_(8.0)
    oracle.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(5.0)


def label_parts(mask: torch.Tensor, get_counts: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Connected parts of (N, 1, H, W) masks and the size of each pixel's; transformers has no such thing for CPUs."""
    parts, sizes = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, np.int32)
    for n, one in enumerate(mask.numpy()):
        parts[n, 0], _ = ndimage.label(one[0], structure=np.ones((3, 3)))
        sizes[n] = np.bincount(parts[n].ravel())[parts[n]]
    return torch.from_numpy(parts), torch.from_numpy(sizes)


def suppress(ious: torch.Tensor, scores: torch.Tensor, threshold: float, use_iou_matrix: bool) -> torch.Tensor:
    """Non-maximum suppression, which transformers does not have for CPUs either."""
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(ious[i, j] <= threshold for j in kept):
            kept.append(i)
    return torch.tensor(kept)


@dataclass
class Expected:
    """What transformers says of one frame; masks that it hands out are another object's where one was removed."""

    masks: dict[int, torch.Tensor]
    scores: dict[int, float]
    presence: dict[int, float]
    removed: set[int]
    renewed: set[int]
    hidden: set[int]


def as_published(patch: pytest.MonkeyPatch, mask_size: int) -> None:
    """Where transformers departs from the published code, or leaves out what it has for GPUs only."""
    kind = modeling_sam3_video.Sam3VideoModel
    patch.setattr(modeling_sam3_video, "cv_utils_kernel", SimpleNamespace(cc_2d=label_parts, generic_nms=suppress))
    detect, add = kind.run_detection, kind._tracker_add_new_objects

    def with_box(self: Any, *args: Any, **kwargs: Any) -> Any:
        hook = self.detector_model.register_forward_pre_hook(lambda module, a, k: (a, k | NO_BOX), with_kwargs=True)
        try:
            return detect(self, *args, **kwargs)
        finally:
            hook.remove()

    def add_only(
        self: Any, inference_session: Any, frame_idx: int, new_obj_ids: Any, new_obj_masks: Any, **k: Any
    ) -> Any:
        # transformers finds the old objects once more, and so forgets what was hidden of them.
        outputs = inference_session.output_dict_per_obj
        old = dict(outputs)
        for index, known in old.items():
            here = (known["cond_frame_outputs"] | known["non_cond_frame_outputs"])[frame_idx]
            outputs[index] = {"cond_frame_outputs": {frame_idx: here}, "non_cond_frame_outputs": {}}
        # It also thinks of logits as of probabilities.
        masks = F.interpolate((new_obj_masks[:, None] > 0).float(), size=(mask_size,) * 2, mode="bilinear")[:, 0]
        add(self, inference_session, frame_idx, new_obj_ids, masks, **k)
        outputs.update(old)

    patch.setattr(kind, "run_detection", with_box)
    patch.setattr(kind, "_tracker_add_new_objects", add_only)
    tracker = modeling_sam3_tracker_video.Sam3TrackerVideoModel
    hold_to_published_code(patch, tracker, [], 0.0)
    given = tracker._use_mask_as_output

    def at_mask_size(self: Any, *args: Any) -> Any:
        # Published code takes given masks at four times the decoder's size, and remembers what the decoder would say.
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self, "image_size", mask_size)
            out = given(self, *args)
        out.high_res_masks = F.interpolate(out.pred_masks, size=(SIDE, SIDE), mode="bilinear")
        return out

    patch.setattr(tracker, "_use_mask_as_output", at_mask_size)


@torch.inference_mode()
def transformers_run(oracle: Sam3VideoModel, video: torch.Tensor) -> list[Expected]:
    numbers = SETTINGS
    for name, value in {
        "score_threshold_detection": numbers.find.threshold,
        "det_nms_thresh": numbers.find.overlap_threshold,
        "assoc_iou_thresh": numbers.new_overlap,
        "trk_assoc_iou_thresh": numbers.published_overlap,
        "new_det_thresh": numbers.new_threshold,
        "hotstart_delay": numbers.delay,
        "hotstart_unmatch_thresh": numbers.unmatched_limit,
        "hotstart_dup_thresh": numbers.duplicate_limit,
        "suppress_overlapping_based_on_recent_occlusion_threshold": numbers.duplicate_overlap,
        "recondition_every_nth_frame": numbers.renew_every,
        "high_conf_thresh": numbers.renew_score,
        "high_iou_thresh": numbers.renew_overlap,
    }.items():
        assert hasattr(oracle, name)
        setattr(oracle, name, value)
    session = modeling_sam3_video.Sam3VideoInferenceSession(
        video=video, video_height=GRID, video_width=GRID, dtype=torch.float32
    )
    prompt = session.add_prompt("cell")
    session.prompt_input_ids[prompt] = WORDS[None]
    session.prompt_attention_masks[prompt] = torch.ones(1, len(WORDS)).long()
    expected = []
    plan = oracle.run_tracker_update_planning_phase

    def noted(inference_session: Any, **kwargs: Any) -> Any:
        ids = list(inference_session.obj_ids)
        masks, presence = kwargs["tracker_low_res_masks_global"], kwargs["tracker_obj_scores_global"]
        was_there = (masks > 0).flatten(1).any(dim=1)
        what, known = plan(inference_session=inference_session, **kwargs)
        gone = was_there & ~(masks > 0).flatten(1).any(dim=1)
        expected.append(
            Expected(
                dict(zip(ids, masks.clone(), strict=True)),
                dict(known["obj_id_to_score"]),
                dict(zip(ids, presence.flatten().tolist(), strict=True)),
                set(what["obj_ids_newly_removed"]),
                set(what["reconditioned_obj_ids"]),
                {i for i, hidden in zip(ids, gone, strict=True) if hidden},
            )
        )
        return what, known

    oracle.run_tracker_update_planning_phase = noted
    try:
        for frame, out in enumerate(oracle.propagate_in_video_iterator(session)):
            one = expected[frame]
            fresh = set(out.obj_id_to_mask) - set(one.masks)
            one.masks |= {i: out.obj_id_to_mask[i][0] for i in fresh | one.renewed}
    finally:
        del oracle.run_tracker_update_planning_phase
    return expected


@torch.inference_mode()
def our_run(oracle: Sam3VideoModel, video: torch.Tensor) -> list[dict[int, Any]]:
    network = Sam3(NUMBERS)
    network.load_state_dict(from_transformers(oracle.state_dict()), strict=True)
    model = Sam3Model(network, "ours", CPU, torch.float32, Path(__file__).parent)

    def embed(frame: int) -> Sam3Embedding:
        # As large as the decoder's masks, so that nothing is resampled.
        return Sam3Embedding((GRID, GRID), model.name, *network.encode(video[frame][None]))

    described = Described(network.detector.text(WORDS), shown=False)
    run = PublishedRun(model, embed, [described], 0, SETTINGS, model.tracker(len(video)))
    return [tracked.found for tracked in run.frames(range(len(video)))]


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    """Random pixels that drift slowly, (FRAMES, 3, SIDE, SIDE)."""
    start, end = drifting_video(SIDE)[[0, -1]]
    return torch.stack([torch.lerp(start, end, 0.018 * frame) for frame in range(FRAMES)])


@pytest.fixture(scope="module")
def apart(oracle: Sam3VideoModel, video: torch.Tensor) -> Sam3VideoModel:
    tell_apart(oracle, video[0])
    return oracle


@pytest.mark.parametrize(
    ("push", "happens"), [(-0.03, {"removed", "hidden"}), (-0.22, {"removed", "renewed"})], ids=["small", "large"]
)
def test_the_loop_equals_transformers(
    apart: Sam3VideoModel, video: torch.Tensor, push: float, happens: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_published(monkeypatch, 4 * GRID)
    torch.manual_seed(2)
    # How much of the frame the masks of the memory cover.
    pushes = push * torch.randn(NUMBERS.memory.channels // 8)
    for part in apart.tracker_model.mask_decoder.output_hypernetworks_mlps:
        bias = torch.nn.Parameter(part.proj_out.bias + pushes)
        monkeypatch.setitem(part.proj_out._parameters, "bias", bias)
    expected, found = transformers_run(apart, video), our_run(apart, video)
    removed = set().union(*(one.removed for one in expected))
    seen = {name for name in ("removed", "renewed", "hidden") if any(getattr(one, name) for one in expected)}
    assert seen >= happens
    births: dict[int, int] = {}
    followed = 0
    for frame, (theirs, ours) in enumerate(zip(expected, found, strict=True)):
        masks = {i: mask.numpy() for i, mask in theirs.masks.items() if i not in removed and (mask > 0).any()}
        assert set(ours) == set(masks), frame
        for object_id, carried in ours.items():
            y0, x0, y1, x1 = carried.box
            logits = masks[object_id]
            # On which side of zero a cell falls that lies on it is a matter of rounding.
            sure = np.abs(logits) > TOLERANCE * np.abs(logits).max()
            np.testing.assert_array_equal(carried.mask[sure], logits[sure] > 0)
            if object_id not in births or object_id in theirs.renewed:
                # Of a detection, only the outline is kept.
                assert births.setdefault(object_id, frame) == frame or object_id in theirs.renewed
                if births[object_id] == frame:
                    assert carried.score == pytest.approx(theirs.scores[object_id], rel=TOLERANCE)
            else:
                a, b = carried.logits, logits[y0:y1, x0:x1]
                # Whether a cell that is neither inside nor outside was cleared is a matter of rounding.
                kept = ~np.isclose(np.abs(a), SPECK_LOGIT) & ~np.isclose(np.abs(b), SPECK_LOGIT)
                assert relative(torch.from_numpy(a[kept]), torch.from_numpy(b[kept])) < TOLERANCE
                followed += 1
    assert len(births) >= 3 and followed >= 6 and any(births.values())
