"""All objects of an image: boxes from a detector against a grid of clicks.

``python benchmarks/everything.py [--size 512] [--points 32] [--rounds 1]``
takes a generated image of nuclei. SAM (ViT-B's decoder, random weights: the
arithmetic is the same) answers the clicks of a grid, and then the boxes that
nano proposes; nano's own time is counted. The image is encoded once for
either. nano, whose weights are trained, tells what that does to the accuracy:
AP at IoU 0.5 is TP / (TP + FP + FN). Times are of the processor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from quality import average_precision

import napari_segany as segany
from napari_segany.core.instances import Instances
from napari_segany.core.settings import EverythingSettings
from napari_segany.models.sam.network import build_sam
from napari_segany.models.sam.predictor import SamModel
from napari_segany.session.everything import everything, proposals


def fastest(calls: dict[str, Callable[[], Instances]], rounds: int) -> dict[str, float]:
    """Fewest seconds of processor time of each call, taken in turns; other work on the machine adds none."""
    times = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name] = min(times[name], time.process_time() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(0)
    image, truth = segany.samples.image("nuclei", seed=1, shape=(args.size, args.size))
    nano = segany.load_model("nano")
    dtype = nano.dtype  # type: ignore[attr-defined]
    sam = SamModel(build_sam("vit_b"), "vit_b", "sam", torch.device("cpu"), dtype)
    encoded, seen = sam.embed(image), nano.embed(image)
    boxes = proposals(nano, seen, None)
    # With random weights nothing would pass the filters of a grid; none of it counts for more than its decoding.
    grid = EverythingSettings(points_per_side=args.points, score_threshold=2.0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {dtype}; {args.size} x {args.size} pixels")
    print(f"{args.points**2} clicks, or {len(boxes)} boxes around {len(np.unique(truth)) - 1} nuclei")
    times = fastest(
        {
            "grid": lambda: everything(sam, encoded, grid),
            "boxes": lambda: everything(sam, encoded, boxes=proposals(nano, nano.embed(image), None)),
        },
        args.rounds,
    )
    print(f"SAM: grid {times['grid']:.1f} s, boxes {times['boxes']:.1f} s, ratio {times['grid'] / times['boxes']:.1f}")
    own = {
        "grid": lambda: everything(nano, seen, replace(nano.everything_settings, points_per_side=args.points)),
        "boxes": lambda: everything(nano, seen),
    }
    times = fastest(own, args.rounds)
    print(f"nano: grid {times['grid']:.1f} s, boxes {times['boxes']:.1f} s, ratio {times['grid'] / times['boxes']:.1f}")
    for name, call in own.items():
        print(f"nano, {name}: AP {average_precision(call().labels, truth):.2f}")


if __name__ == "__main__":
    main()
