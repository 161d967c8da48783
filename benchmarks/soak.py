"""Many planes, objects and clicks in one process: whether memory, or the number of files and threads, grows.

``python benchmarks/soak.py --planes 500 --objects 32 --clicks 1000`` propagates
the objects through a stack on the disk, then clicks, accepts, undoes, redoes
and saves. After the first fifth it prints the slope of the resident memory,
and how many files and threads were open at the beginning and at the end. The
model draws discs, so that the session and the files are what is measured;
``--model nano`` takes a real one.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

from napari_segany import api
from napari_segany.core.intensity import IntensityRange

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fakes import DiscEmbedding, DiscModel, disc

SIDE = 256


class Forgetful(DiscModel):
    """The model that draws discs, without a list of all that it has seen."""

    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> DiscEmbedding:
        """See `ImageModel.embed`."""
        return DiscEmbedding((image.shape[0], image.shape[1]), self.name)


class Measured:
    """Samples of what this process holds.

    Attributes
    ----------
    rows : list of (MB resident, open files, threads)
    """

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.rows: list[tuple[float, int, int]] = []

    def sample(self) -> None:
        """Take one."""
        self.rows.append((self.process.memory_info().rss / 1e6, self.process.num_fds(), self.process.num_threads()))

    def report(self, what: str, each: int, unit: str) -> None:
        """Print the slope of the memory after the first fifth, `each` of a unit apart, and the counts at both ends."""
        warm = np.array(self.rows[len(self.rows) // 5 :])
        at = each * np.arange(len(warm))
        slope = np.polyfit(at, warm[:, 0], 1)[0]
        print(
            f"{what}: {warm[0, 0]:.0f} to {warm[-1, 0]:.0f} MB resident, {1000 * slope:+.1f} kB for each {unit}; "
            f"files {warm[0, 1]:.0f} to {warm[-1, 1]:.0f}, threads {warm[0, 2]:.0f} to {warm[-1, 2]:.0f}",
            flush=True,
        )


def stack_in(folder: Path, planes: int, centres: np.ndarray) -> Path:
    """A stack of bright discs on the disk."""
    array = zarr.create_array(folder / "stack.zarr", shape=(planes, SIDE, SIDE), chunks=(1, SIDE, SIDE), dtype="uint8")
    noise = np.random.default_rng(0).integers(0, 40, (SIDE, SIDE), dtype=np.uint8)
    plane = noise + sum(np.uint8(180) * disc((SIDE, SIDE), centre, 12) for centre in centres)
    for frame in range(planes):
        array[frame] = plane
    return folder / "stack.zarr"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=500)
    parser.add_argument("--objects", type=int, default=32)
    parser.add_argument("--clicks", type=int, default=1000)
    parser.add_argument("--model", default="disc")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    grid = np.linspace(30, SIDE - 30, int(np.ceil(args.objects**0.5)))
    centres = np.array([(y, x) for y in grid for x in grid])[: args.objects]
    model: Any = Forgetful() if args.model == "disc" else api.load_model(args.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = stack_in(folder, args.planes, centres)
        session = api.Session(stack, model=model, labels=folder / "labels.zarr")
        for object_id, centre in enumerate(centres, start=1):
            session.prompt(object_id, 0, points=[centre])
        measured, began = Measured(), time.monotonic()
        for _ in session.propagate():
            measured.sample()
        print(f"{args.planes} planes of {args.objects} objects in {time.monotonic() - began:.0f} s")
        measured.report("propagating", 1, "plane")
        measured, began = Measured(), time.monotonic()
        for click in range(args.clicks):
            object_id, frame = int(rng.integers(1, args.objects + 1)), int(rng.integers(args.planes))
            session.prompt(object_id, frame, points=[rng.integers(0, SIDE, 2)], replace=True)
            session.accept(object_id, frame, overwrite=True)
            if click % 10 == 0:
                session.undo()
                session.redo()
            if click % 250 == 249:
                session.save(folder / "labels.zarr")
            if click % 10 == 0:
                gc.collect()
                measured.sample()
        print(f"{args.clicks} clicks, each accepted, in {time.monotonic() - began:.0f} s")
        measured.report("clicking", 10, "click")
        session.close()


if __name__ == "__main__":
    main()
