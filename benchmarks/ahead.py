"""Reading the next plane while the model works on this one, on a store that answers late.

``python benchmarks/ahead.py`` propagates one object through a zarr whose chunks,
one a plane, come after so many milliseconds, with and without reading ahead, in
turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import zarr
from embeddings import planes
from sam import timed
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

import napari_segany as segany
from napari_segany.io.frames import Frames, open_frames


class OneByOne(Frames):
    """Planes that are read when they are asked for."""

    __getitem__ = Frames.read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--latencies", type=int, nargs="*", default=[0, 50, 100, 200, 400])
    args = parser.parse_args()
    model = segany.load_model("nano", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.zarr"
        zarr.create_array(path, data=planes(args.planes, args.side), chunks=(1, args.side, args.side))
        intensity = open_frames(path).intensity

        def propagate(kind: Any, latency: float) -> float:
            store: Any = LatencyStore(LocalStore(path), get_latency=latency)
            opened = open_frames(zarr.open_array(store))
            frames = kind(opened.source, opened.planes)
            frames.intensity = intensity
            session = segany.Session(frames, model=model)
            session.prompt(1, 0, box=(100, 100, 140, 140))
            return timed(lambda: list(session.propagate(direction="forward"))) / (args.planes - 1)

        print(f"{args.planes} planes of {args.side} pixels, nano, one object: milliseconds a plane")
        propagate(Frames, 0)
        for latency in args.latencies:
            turns = [(propagate(OneByOne, latency / 1e3), propagate(Frames, latency / 1e3)) for _ in range(2)]
            plain, ahead = (1e3 * min(times) for times in zip(*turns, strict=True))
            print(f"  late by {latency:>3} ms: {plain:5.0f} one by one, {ahead:5.0f} read ahead, {plain / ahead:.2f}x")


if __name__ == "__main__":
    main()
