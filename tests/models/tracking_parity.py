"""The same video and prompts through a tracker of transformers and through ours."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_segany.core.prompts import MASK_LOGIT, Prompt, make_prompt

TOLERANCE = 1e-3
FRAMES = 12
#: Mask logits by frame and object.
Logits = dict[int, dict[int, torch.Tensor]]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def scatter_weights(model: nn.Module) -> None:
    """Random weights, large enough for every part to matter, small enough for signals to survive."""
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        fan = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.data = noise * fan**-0.5 if parameter.ndim > 1 else parameter.data + 0.1 * noise
        if "scale" in name:
            parameter.data = noise.abs() * 0.3


def drifting_video(side: int) -> torch.Tensor:
    """Smooth random pixels, (FRAMES, 3, side, side), drifting from frame to frame."""
    torch.manual_seed(5)
    start, end = torch.randn(2, 3, side, side)
    weights = torch.linspace(0, 1, FRAMES)[:, None, None, None]
    return (1 - weights) * start + weights * end


def clicks(frame: int, object_id: int, xy: list[list[float]], labels: list[int]) -> dict:
    return {"frame": frame, "object": object_id, "xy": xy, "labels": labels}


def band(side: int, y0: int, y1: int) -> np.ndarray:
    """Rows of a mask. Corners would be remembered differently: published code remembers a given mask by its
    logits at stride 4, transformers at full size."""
    mask = np.zeros((side, side), dtype=bool)
    mask[y0:y1] = True
    return mask


def as_prompt(given: dict, side: int) -> Prompt:
    if "mask" in given:
        return Prompt(mask=np.where(given["mask"], MASK_LOGIT, -MASK_LOGIT).astype(np.float32))
    # transformers adds half a pixel to points in the input's own coordinates, as we do.
    yx = [(y, x) for x, y in given["xy"]]
    return make_prompt((side, side), points=yx, labels=given["labels"])


def hold_to_published_code(
    monkeypatch: pytest.MonkeyPatch, kind: type, heads: list[nn.Linear], presence: float
) -> None:
    """Make objects present or absent, and let transformers' `kind` of model do as the published code does.

    For the pointer of a given mask transformers takes the best of three tokens; published code the first.
    """
    for head in heads:
        head.bias.data.fill_(presence)
    single_frame = kind._single_frame_forward  # type: ignore[attr-defined]

    def published(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return single_frame(self, *args, **{"multimask_output": False, **kwargs})

    monkeypatch.setattr(kind, "_single_frame_forward", published)


def as_input(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


@torch.inference_mode()
def transformers_run(
    model: Any,
    session: Any,
    given: list[dict],
    start: int,
    reverse: bool,
    processed: Callable[[np.ndarray], torch.Tensor] = as_input,
) -> Logits:
    """Forward first, where `reverse` goes back afterwards; `processed` is what the model's processor makes of masks."""
    for one in given:
        index = session.obj_id_to_idx(one["object"])
        if "mask" in one:
            session.add_mask_inputs(index, one["frame"], processed(one["mask"]))
        else:
            inputs = {
                "point_coords": torch.tensor(one["xy"], dtype=torch.float32)[None, None],
                "point_labels": torch.tensor(one["labels"], dtype=torch.int32)[None, None],
            }
            session.add_point_inputs(index, one["frame"], inputs)
        session.obj_with_new_inputs = [one["object"]]
        model(session, frame_idx=one["frame"])
    session.obj_with_new_inputs = []
    found: Logits = {}
    for backwards in (False, True) if reverse else (False,):
        for out in model.propagate_in_video_iterator(session, start_frame_idx=start, reverse=backwards):
            ids = [session.obj_idx_to_id(i) for i in range(session.get_obj_num())]
            found.setdefault(out.frame_idx, {i: m[0] for i, m in zip(ids, out.pred_masks, strict=True)})
    return found


def our_run(ours: Any, embeddings: list[Any], given: list[dict], start: int, reverse: bool) -> Logits:
    tracker = ours.tracker(FRAMES)
    found: Logits = {}
    for one in given:
        prompt = as_prompt(one, embeddings[0].image_shape[0])
        answers = tracker.condition(one["frame"], embeddings[one["frame"]], {one["object"]: prompt})
        found.setdefault(one["frame"], {}).update({i: torch.from_numpy(c.logits[0]) for i, c in answers.items()})
    objects = {one["object"] for one in given}
    for order, backward in [(range(start, FRAMES), False)] + ([(range(start, -1, -1), True)] if reverse else []):
        for frame in order:
            asked = [i for i in objects if i not in found.get(frame, {})]
            if asked:
                answers = tracker.follow(frame, embeddings[frame], asked, backward)
                found.setdefault(frame, {}).update({i: torch.from_numpy(c.logits[0]) for i, c in answers.items()})
    return found


def assert_same(found: Logits, expected: Logits) -> list[torch.Tensor]:
    """Hold every frame and object against one another; the logits expected."""
    compared = []
    for frame, by_object in expected.items():
        for object_id, logits in by_object.items():
            assert relative(found[frame][object_id], logits) < TOLERANCE, (frame, object_id)
            compared.append(logits)
    return compared


def published_keys(name: str) -> dict[str, torch.Tensor]:
    """Empty tensors of the names and shapes of a published checkpoint."""
    listed = Path(__file__).parents[3] / "shared" / "model_keys" / name
    if not listed.exists():
        pytest.skip("the lists of published keys are not on this computer")
    found = {}
    for line in listed.read_text().splitlines():
        key, rest = line.split(" ", 1)
        found[key] = torch.empty([int(n) for n in re.findall(r"\d+", rest[: rest.index(")")])])
    return found
