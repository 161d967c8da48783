"""SAM 2.1-tiny as published, from a checkout of its repository, for ``sam2.py --published FOLDER``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_segany.core.prompts import Prompt

HELP = (
    "git clone https://github.com/facebookresearch/sam2 FOLDER; pip install hydra-core iopath tqdm pillow; "
    "python benchmarks/sam2.py --published FOLDER"
)
CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
#: What the memory of a clicked mask is made of, as the published builder has it with its postprocessing.
OVERRIDES = ["++model.binarize_mask_from_pts_for_mem_enc=true"]


class Published:
    """The published video predictor on a video and weights of ours.

    Parameters
    ----------
    folder : Path
        Checkout of the repository.
    weights : dict
        Of `napari_segany.models.sam2.network.Sam2`.
    video : (F, 3, S, S)
        Normalised.
    """

    def __init__(self, folder: Path, weights: dict[str, Tensor], video: Tensor) -> None:
        if not (folder / "sam2" / "build_sam.py").is_file():
            sys.exit(f"{folder} holds no checkout of the published SAM 2; get one and what it imports by: {HELP}")
        # First, since the program that runs is a `sam2` too.
        sys.path.insert(0, str(folder))
        try:
            build, predictor = import_module("sam2.build_sam"), import_module("sam2.sam2_video_predictor")
        except ImportError as error:
            sys.exit(f"The published SAM 2 cannot be imported ({error}); get what it imports by: {HELP}")
        # It reads videos from files only, and draws a bar for every frame.
        predictor.load_video_frames = lambda **_: (video, *video.shape[2:])
        predictor.tqdm = lambda frames, desc: frames
        self.model = build.build_sam2_video_predictor(
            CONFIG, device="cpu", apply_postprocessing=False, hydra_overrides_extra=OVERRIDES
        )
        self.model.load_state_dict({published_name(name): value for name, value in weights.items()})

    def session(self) -> dict[str, Any]:
        """A fresh state of the video."""
        return self.model.init_state(video_path="")

    def remembering(self, memories: Tensor, pointers: Tensor) -> dict[str, Any]:
        """State with memories (B, F, N, c) and pointers (B, F, C) of objects, the first of them of a prompted frame."""
        session = self.session()
        side = int(memories.shape[2] ** 0.5)
        grids = memories.transpose(2, 3).unflatten(3, (side, side))
        place = self.model.memory_encoder.position_encoding(grids[0, :1].float())
        for i in range(len(grids)):
            own = session["output_dict_per_obj"][self.model._obj_id_to_idx(session, i + 1)]
            for slot, grid in enumerate(grids[i]):
                own["cond_frame_outputs" if slot == 0 else "non_cond_frame_outputs"][slot] = {
                    "maskmem_features": grid[None],
                    "maskmem_pos_enc": [place],
                    "obj_ptr": pointers[i, slot][None],
                    "pred_masks": None,
                    "object_score_logits": None,
                }
        return session

    def condition(self, session: dict[str, Any], prompts: Sequence[Prompt]) -> None:
        """Prompt objects 1, 2, ... on frame 0 by clicks or by masks."""
        for i, prompt in enumerate(prompts):
            if prompt.known_mask is None:
                xy = np.ascontiguousarray(prompt.points[:, ::-1], dtype=np.float32)
                self.model.add_new_points_or_box(session, 0, i + 1, points=xy, labels=prompt.labels)
            else:
                self.model.add_new_mask(session, 0, i + 1, prompt.known_mask)

    def follow(self, session: dict[str, Any], frame: int) -> np.ndarray:
        """Encode a frame and find all objects on it; (objects, S/4, S/4) logits."""
        session["cached_features"].clear()
        next(self.model.propagate_in_video(session, frame, 0))
        found = [own["non_cond_frame_outputs"][frame] for own in session["output_dict_per_obj"].values()]
        return torch.cat([one["pred_masks"][0] for one in found]).float().numpy()


def published_name(name: str) -> str:
    """Name of a weight in published checkpoints."""
    mlp = re.compile(r"((?:blocks|transformer\.layers)\.\d+\.mlp)\.lin(\d)\.")
    return mlp.sub(lambda found: f"{found[1]}.layers.{int(found[2]) - 1}.", name)
