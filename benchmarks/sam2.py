"""SAM 2.1-tiny on a stream against transformers: one frame with a full memory, same weights, one run.

``python benchmarks/sam2.py --objects 1 4 16`` prints seconds a frame, ratios,
the IoU of masks computed in half precision with those in single precision, and
for each stage of ours its share of this machine's peak in matrix products. The
memory is filled by hand: six frames and one that was prompted. Seconds are of
the processor, over threads, which other work on the machine adds little to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from clock import fastest, gemm_peak, seconds
from torch.utils.flop_counter import FlopCounterMode
from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel

from napari_segany.core.prompts import Prompt
from napari_segany.models.sam2.layouts import from_transformers
from napari_segany.models.sam2.network import MEMORY_SLOTS, build_sam2
from napari_segany.models.sam2.predictor import Sam2Embedding, Sam2Model
from napari_segany.models.sam2.tracker import Memory, Sam2Tracker

SIDE, FRAMES, NOW = 1024, 20, 7
CELLS = (SIDE // 16) ** 2
KEYS = MEMORY_SLOTS * CELLS + 4 * MEMORY_SLOTS


def random_model() -> Sam2VideoModel:
    """Transformers' model with weights of a size at which signals survive and objects are present."""
    torch.manual_seed(0)
    model = Sam2VideoModel(Sam2VideoConfig()).eval()
    model.prompt_encoder.shared_embedding.positional_embedding = model.shared_image_embedding.positional_embedding
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        parameter.data = noise * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else parameter.data + 0.1 * noise
        if name.endswith("scale"):
            parameter.data = noise.abs() * 0.3
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(5.0)
    return model


@cache
def memories(objects: int) -> torch.Tensor:
    """(objects, MEMORY_SLOTS, CELLS, 64): prompted frame first, then the six before now."""
    return torch.randn(objects, MEMORY_SLOTS, CELLS, 64, generator=torch.Generator().manual_seed(1)).bfloat16()


@cache
def pointers(objects: int) -> torch.Tensor:
    return torch.randn(objects, MEMORY_SLOTS, 256, generator=torch.Generator().manual_seed(2))


def their_session(model: Sam2VideoModel, video: torch.Tensor, objects: int) -> Sam2VideoInferenceSession:
    session = Sam2VideoInferenceSession(video=video, video_height=SIDE, video_width=SIDE, dtype=torch.float32)
    place = model.memory_encoder.position_encoding((1, 64, SIDE // 16, SIDE // 16), "cpu", torch.float32)
    place = place.flatten(2).permute(2, 0, 1)
    for i in range(objects):
        session.obj_id_to_idx(i + 1)
        own = session.output_dict_per_obj[i]
        for slot in range(MEMORY_SLOTS):
            kind = "cond_frame_outputs" if slot == 0 else "non_cond_frame_outputs"
            own[kind][slot] = {
                "maskmem_features": memories(objects)[i, slot][:, None],
                "maskmem_pos_enc": place,
                "object_pointer": pointers(objects)[i, slot][None],
                "pred_masks": None,
                "object_score_logits": None,
            }
    return session


def our_tracker(model: Sam2Model, objects: int) -> Sam2Tracker:
    tracker = model.tracker(FRAMES)
    for i in range(objects):
        for slot in range(MEMORY_SLOTS):
            kind = tracker.prompted if slot == 0 else tracker.seen
            kind[i + 1][slot] = Memory(memories(objects)[i, slot], pointers(objects)[i, slot])
    return tracker


def our_frame(model: Sam2Model, tracker: Sam2Tracker, pixels: torch.Tensor, objects: int) -> np.ndarray:
    """Encode a frame and find all objects on it; (objects, H/4, W/4) logits."""
    embedding = Sam2Embedding((SIDE, SIDE), model.name, *model.network.encode(pixels.to(model.dtype)))
    found = tracker.follow(NOW, embedding, range(1, objects + 1))
    return np.stack([found[i].logits[0] for i in range(1, objects + 1)])


def our_frames(models: dict[str, Sam2Model], pixels: torch.Tensor, objects: int) -> dict[str, Callable[[], np.ndarray]]:
    """The frame in each precision, with memories that are there before."""

    def frame(model: Sam2Model) -> Callable[[], np.ndarray]:
        tracker = our_tracker(model, objects)
        return lambda: our_frame(model, tracker, pixels, objects)

    return {name: frame(model) for name, model in models.items()}


def their_frame(model: Sam2VideoModel, session: Sam2VideoInferenceSession) -> np.ndarray:
    return model(session, frame_idx=NOW).pred_masks[:, 0].float().numpy()


def stages(model: Sam2Model, pixels: torch.Tensor, objects: int) -> dict[str, Callable[[], object]]:
    """Each stage of ours."""
    network, dtype = model.network, model.dtype
    features, skips = network.encode(pixels.to(dtype))
    slots = torch.tensor([[MEMORY_SLOTS - 1, *range(MEMORY_SLOTS - 1)]]).expand(objects, -1)
    recall = memories(objects).to(dtype), slots, pointers(objects).to(dtype), torch.rand(objects, MEMORY_SLOTS)
    tokens = model.encode_prompts((SIDE, SIDE), [Prompt()])[0].expand(objects, -1, -1)
    image, masks = features.expand(objects, -1, -1), torch.rand(objects, 1, SIDE, SIDE)
    layer, kept = network.memory_attention.layers[1], torch.randn(1, KEYS, 64, dtype=dtype)
    return {
        "encoder": lambda: network.encode(pixels.to(dtype)),
        "memory attention": lambda: network.recall(features, *recall),
        "  a layer's look at the frame": lambda: layer.look_around(features),
        "  a layer's look at memories": lambda: layer.cross_attn_image(features, kept, kept, KEYS % CELLS),
        "decoder": lambda: network.decode(image, skips, tokens, None, True),
        "memory encoder": lambda: network.remember(features, masks, torch.ones(objects, dtype=torch.bool)),
    }


def products(call: Callable[[], object]) -> float:
    """GFLOP of a stage's matrix products, counted in half precision; the fused attention of windows is left out."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--ours-only", type=int, nargs="*", default=[64], help="objects for which theirs is too slow")
    parser.add_argument("--stages", type=int, default=4, help="objects with which stages are timed")
    args = parser.parse_args()
    theirs = random_model()
    video = torch.randn(FRAMES, 3, SIDE, SIDE)
    models = {}
    for name in ("float32", "bfloat16"):
        network = build_sam2("2.1-tiny")
        network.load_state_dict(from_transformers(theirs.state_dict()))
        models[name] = Sam2Model(network, name, torch.device("cpu"), getattr(torch, name))
    pixels = video[NOW : NOW + 1]
    peaks = {name: gemm_peak(getattr(torch, name)) for name in models}
    listed = ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items())
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, peaks of a thread: {listed} GFLOP/s")
    for objects in args.objects:
        session = their_session(theirs, video, objects)
        frames = {"transformers": lambda session=session: their_frame(theirs, session)} | our_frames(
            models, pixels, objects
        )
        answers: dict[str, np.ndarray] = {}
        took = {
            name: seconds(lambda name=name, frame=frame: answers.update({name: frame()}))  # type: ignore[misc]
            for name, frame in frames.items()
        }
        error = np.abs(answers["float32"] - answers["transformers"]).max() / np.abs(answers["transformers"]).max()
        single, half = answers["float32"] > 0, answers["bfloat16"] > 0
        iou = (single & half).sum() / (single | half).sum()
        print(
            f"{objects:3} objects: transformers {took['transformers']:.1f} s; "
            f"ours fp32 {took['float32']:.1f} s ({took['transformers'] / took['float32']:.2f}x), "
            f"bf16 {took['bfloat16']:.1f} s ({took['transformers'] / took['bfloat16']:.2f}x); "
            f"fp32 differs by {error:.0e}, bf16 masks IoU {iou:.4f}",
            flush=True,
        )
    for objects in args.ours_only:
        for name, frame in our_frames(models, pixels, objects).items():
            print(f"{objects:3} objects: ours {name} {seconds(frame):.1f} s", flush=True)
    print(f"stages, {args.stages} objects")
    calls = {name: stages(model, pixels, args.stages) for name, model in models.items()}
    work = {stage: products(call) for stage, call in calls["bfloat16"].items()}
    for name in models:
        for stage, took_s in fastest(calls[name], 2).items():
            share = work[stage] / took_s / peaks[name]
            print(
                f"  {name:8} {stage:30} {took_s:6.2f} s, {work[stage]:6.0f} GFLOP, {share:.0%} of the peak", flush=True
            )


if __name__ == "__main__":
    main()
