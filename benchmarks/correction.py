"""What one correction in the middle of a stack costs, relative to propagating again from the start.

``python benchmarks/correction.py`` carries objects through a generated stack
of 100 planes, corrects one of them on plane 50, and compares the planes
visited and the time of `Session.update` with those of the whole run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import napari_segany as segany
from napari_segany.core.masks import mask_iou
from napari_segany.training.generate.stacks import cells_timelapse


def run(visits) -> tuple[int, float]:  # type: ignore[no-untyped-def]
    """Planes visited and seconds."""
    began = time.perf_counter()
    return sum(1 for _ in visits), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--planes", type=int, default=100)
    parser.add_argument("--objects", type=int, default=6)
    args = parser.parse_args()
    stack, truth = cells_timelapse(np.random.default_rng(3), (args.planes, 192, 192), speed=0.4)
    session = segany.Session(stack, axis=0, model=args.model)
    present = [i for i in np.unique(truth)[1:] if (truth == i).any(axis=(1, 2)).all()][: args.objects]
    for object_id in present:
        session.accept(int(object_id), 0, mask=truth[0] == object_id)
    planes, whole = run(session.propagate())
    worst = min(present, key=lambda i: mask_iou(session.labels[args.planes // 2] == i, truth[args.planes // 2] == i))
    session.accept(int(worst), args.planes // 2, mask=truth[args.planes // 2] == worst, overwrite=True)
    visited, once = run(session.update())
    print(f"{len(present)} objects through {args.planes} planes: {planes} visits, {whole:.1f} s")
    print(f"one correction on plane {args.planes // 2}: {visited} visits, {once:.1f} s ({100 * once / whole:.0f} %)")


if __name__ == "__main__":
    main()
