"""SAM 2.1-tiny on a stream against transformers: one frame with a full memory, same weights, one run.

``python benchmarks/sam2.py --objects 1 4 16`` prints seconds a frame, ratios,
the IoU of masks computed in half precision with those in single precision, and
for each stage of ours its share of this machine's peak in matrix products. The
memory is filled by hand: six frames and one that was prompted. Seconds are of
the processor, over threads, which other work on the machine adds little to.

``--published FOLDER`` takes a checkout of github.com/facebookresearch/sam2 into
the run, and follows two objects from a click and a mask to see that it finds
the same.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from clock import fastest, gemm_peak, seconds
from published_sam2 import Published
from torch.utils.flop_counter import FlopCounterMode
from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel

from napari_segany.core.prompts import Prompt, make_prompt
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


def published_frames(published: Published, objects: int) -> dict[str, Callable[[], np.ndarray]]:
    """The frame by published code, as it is and in the half precision that it has on CPUs."""
    session = published.remembering(memories(objects), pointers(objects))

    def half() -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return published.follow(session, NOW)

    return {"published float32": lambda: published.follow(session, NOW), "published autocast": half}


def differences(model: Sam2Model, published: Published, video: torch.Tensor, frames: int = 4) -> list[float]:
    """Largest difference to published logits, relative, on each frame after one with a click and a mask."""
    known = np.zeros((SIDE, SIDE), dtype=bool)
    known[300:500, 200:700] = True
    prompts = [make_prompt(known.shape, points=[[400, 600]]), make_prompt(known.shape, mask=known)]
    session, tracker = published.session(), model.tracker(FRAMES)
    published.condition(session, prompts)
    found = []
    for frame in range(frames):
        embedding = Sam2Embedding((SIDE, SIDE), model.name, *model.network.encode(video[frame : frame + 1]))
        if frame == 0:
            tracker.condition(0, embedding, dict(enumerate(prompts, 1)))
            continue
        ours = np.stack([answer.logits[0] for answer in tracker.follow(frame, embedding, (1, 2)).values()])
        found.append(difference(ours, published.follow(session, frame)))
    return found


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


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
    """GFLOP of a stage's matrix products, counted in half precision; fused attention is left out."""
    onednn = {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]}
    with FlopCounterMode(display=False, custom_mapping=onednn) as counter:
        call()
    return counter.get_total_flops() / 1e9


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--ours-only", type=int, nargs="*", default=[64], help="in bfloat16, where theirs is too slow")
    parser.add_argument("--stages", type=int, default=4, help="objects with which stages are timed")
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="checkout of facebookresearch/sam2")
    args = parser.parse_args()
    theirs = random_model()
    video = torch.randn(FRAMES, 3, SIDE, SIDE)
    models = {}
    for name in ("float32", "bfloat16"):
        network = build_sam2("2.1-tiny")
        network.load_state_dict(from_transformers(theirs.state_dict()))
        models[name] = Sam2Model(network, name, torch.device("cpu"), getattr(torch, name))
    pixels = video[NOW : NOW + 1]
    published = args.published and Published(args.published, models["float32"].network.state_dict(), video)
    if published:
        listed = ", ".join(f"{error:.0e}" for error in differences(models["float32"], published, video))
        print(f"frame by frame, ours differs from published by {listed}", flush=True)
    peaks = {name: gemm_peak(getattr(torch, name)) for name in models}
    listed = ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items())
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, peaks of a thread: {listed} GFLOP/s")
    for objects in args.objects:
        session = their_session(theirs, video, objects)
        frames = {"transformers": lambda session=session: their_frame(theirs, session)}
        frames |= published_frames(published, objects) if published else {}
        frames |= our_frames(models, pixels, objects)
        answers: dict[str, np.ndarray] = {}
        took = {
            name: seconds(lambda name=name, frame=frame: answers.update({name: frame()}))  # type: ignore[misc]
            for name, frame in frames.items()
        }
        print(f"{objects:3} objects: seconds, times that of ours in float32 and in bfloat16")
        for name, took_s in took.items():
            ratios = (f"{took_s / took[ours]:.2f}x" for ours in models)
            print(f"  {name:18} {took_s:6.1f} s {' '.join(ratios)}")
        for name in list(took)[: -len(models)]:
            print(f"  {name:18} differs from ours in float32 by {difference(answers['float32'], answers[name]):.0e}")
        single, half = answers["float32"] > 0, answers["bfloat16"] > 0
        print(f"  masks of ours in bfloat16, IoU {(single & half).sum() / (single | half).sum():.4f}", flush=True)
    for objects in args.ours_only:
        frame = our_frames({"bfloat16": models["bfloat16"]}, pixels, objects)["bfloat16"]
        print(f"{objects:3} objects: ours in bfloat16 {seconds(frame):.1f} s", flush=True)
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
