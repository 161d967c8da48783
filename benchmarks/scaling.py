"""How nano's work grows: with objects, planes, the side of the image, and workers.

``python benchmarks/scaling.py`` prints four tables; ``--objects``, ``--planes``,
``--sides`` and ``--workers`` choose the sizes, and nothing after one leaves its
table out. Seconds are those of the processor, which other work on the machine
disturbs little, but for workers, where they are those of the clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import zarr
from distributed import LocalCluster
from embeddings import planes

import napari_segany as segany


def table(title: str, rows: Iterable[tuple[int, float, str]]) -> None:
    """Print sizes, seconds, multiples of the first row, and a remark, as they come."""
    print(title)
    first = None
    for size, seconds, remark in rows:
        first = first or seconds
        print(f"  {size:>6}  {seconds:8.2f} s  {seconds / first:6.2f}x  {remark}", flush=True)


def measured(call: Callable[[], object]) -> tuple[float, float]:
    """Processor time of a call, and the MB by which the memory of this process grows meanwhile, at its peak."""
    process, done = psutil.Process(), Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    began = time.process_time()
    call()
    seconds = time.process_time() - began
    done.set()
    watcher.join()
    return seconds, (peak - before) / 1e6


def by_objects(counts: list[int]) -> Iterator[tuple[int, float, str]]:
    """Carry so many objects over two planes of 1024 pixels."""
    image = np.zeros((3, 1024, 1024), dtype=np.uint8)
    ys, xs = np.mgrid[:1024, :1024]
    places = [(32 + 60 * (i // 16), 32 + 60 * (i % 16)) for i in range(max(counts))]
    for frame in range(3):
        for y, x in places:
            y0, x0 = max(y - 20, 0), max(x - 20, 0)
            window = (slice(y0, y + 20), slice(x0, x + 20))
            image[frame][window][(ys[window] - y) ** 2 + (xs[window] - x - frame) ** 2 < 144] = 200
    model = segany.load_model("nano", device="cpu")
    for count in counts:
        session = segany.Session(image, model=model)
        labels = np.zeros((1024, 1024), dtype=np.int32)
        for number, (y, x) in enumerate(places[:count], start=1):
            window = (slice(y - 12, y + 13), slice(x - 12, x + 13))
            labels[window][(ys[window] - y) ** 2 + (xs[window] - x) ** 2 < 144] = number
        session.accept_labels(0, labels)
        for frame in range(3):
            session.embedding(frame)
        seconds, grown = measured(lambda session=session: deque(session.propagate(direction="forward"), 0))
        yield count, seconds / 2, f"{500 * seconds / count:.0f} ms an object, memory {grown:+.0f} MB"


def by_planes(counts: list[int], folder: Path) -> Iterator[tuple[int, float, str]]:
    """Carry one object through so many planes of 256 pixels."""
    model = segany.load_model("nano", device="cpu")
    for count in counts:
        stack = zarr.create_array(folder / f"planes-{count}.zarr", data=planes(count, 256), chunks=(1, 256, 256))
        session = segany.Session(stack, model=model, labels=folder / f"planes-{count}-labels.zarr")
        session.prompt(1, 0, box=(100, 100, 140, 140))
        seconds, grown = measured(lambda session=session: deque(session.propagate(direction="forward"), 0))
        yield count, seconds, f"{1e3 * seconds / count:.0f} ms a plane, memory {grown:+.0f} MB"


def field(side: int) -> np.ndarray:
    """Nuclei on a dark ground, four of them in every 512 pixels a side."""
    nuclei = segany.samples.stack("nuclei-3d", seed=0)[0][12, :96, :96]
    cell = np.random.default_rng(0).normal(float(np.median(nuclei)), 1.0, (512, 512)).astype(nuclei.dtype)
    cell[200:296, 200:296] = nuclei
    return np.tile(cell, (-(-side // 512), -(-side // 512)))[:side, :side]


def by_sides(sides: list[int], what: str, folder: Path) -> Iterator[tuple[int, float, str]]:
    """Label the nuclei of images of so many pixels a side, tile by tile."""
    model = segany.load_model("nano", device="cpu")
    segany.find(field(512), text="nucleus", model=model)
    for side in sides:
        path, out = folder / f"{side}.zarr", folder / f"{side}-{what}.zarr"
        if not path.exists():
            array = zarr.create_array(path, shape=(side, side), chunks=(512, 512), dtype=np.uint8)
            rows = field(side)[:512]
            for y in range(0, side, 512):
                array[y : y + 512] = rows[: side - y]
        found: list = []
        text = "nucleus" if what == "find" else None
        seconds, grown = measured(
            lambda path=path, out=out, text=text, found=found: found.extend(  # type: ignore[misc]
                segany.label(path, out, text=text, model=model)
            )
        )
        size = side * side / 1e6
        remark = f"{found[0].objects} objects, memory {grown:+.0f} MB, image {size:.0f} MB, labels {4 * size:.0f} MB"
        yield side, seconds, remark


def by_workers(counts: list[int], folder: Path) -> Iterator[tuple[int, float, str]]:
    """Label planes with so many workers of one thread each; the start of workers is left out."""
    stack = planes(6, 256)
    zarr.create_array(folder / "stack.zarr", data=stack, chunks=(1, 256, 256))
    for count in counts:
        with LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None, env={"OMP_NUM_THREADS": "1"}
        ) as cluster:
            where = cluster.scheduler_address
            segany.label(folder / "stack.zarr", folder / f"warm{count}.zarr", model="nano", scheduler=where)
            began = time.perf_counter()
            segany.label(folder / "stack.zarr", folder / f"w{count}.zarr", model="nano", scheduler=where)
            yield count, time.perf_counter() - began, "6 planes of 256 pixels, everything"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="*", default=[1, 4, 16, 64, 256])
    parser.add_argument("--planes", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--sides", type=int, nargs="*", default=[512, 1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.objects:
            table("objects: one plane of a propagation, encoded before", by_objects(args.objects))
        if args.planes:
            table("planes: propagating one object, 256 pixels", by_planes(args.planes, Path(folder)))
        if args.sides:
            for what in ("find", "everything"):
                table(f"side of the image: {what}, read and written in tiles", by_sides(args.sides, what, Path(folder)))
        if args.workers:
            table("workers: one thread each", by_workers(args.workers, Path(folder)))


if __name__ == "__main__":
    main()
