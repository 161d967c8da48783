"""Embeddings on disk: size, error, and the start of work on a stack that was encoded before.

``python benchmarks/embeddings.py --planes 100 --side 512 --plane 2048``; ``--planes 0`` leaves the stack out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from clock import seconds, timed

import napari_segany as segany
from napari_segany.core.masks import mask_iou
from napari_segany.io.embeddings import EmbeddingStore
from napari_segany.models.nano.predictor import NanoModel


def planes(count: int, side: int) -> np.ndarray:
    """Generated nuclei, put together to the size asked for, each plane different."""
    stack, _ = segany.samples.stack("nuclei-3d", seed=0)
    reps = -(-side // stack.shape[1])
    rng = np.random.default_rng(0)
    made = np.empty((count, side, side), dtype=stack.dtype)
    for plane in made:
        chosen = rng.integers(0, len(stack), (reps, reps))
        rows = [np.concatenate([stack[i] for i in row], axis=1) for row in chosen]
        plane[:] = np.concatenate(rows)[:side, :side]
    return made


def error(model: NanoModel, image: np.ndarray) -> tuple[float, float]:
    """Largest error of stored features relative to the largest feature, and mean IoU of masks made of them."""
    whole = model.embed(image)
    again = model.unpack(model.pack(whole), image)
    parts = [(getattr(whole.levels[0], name), getattr(again.levels[0], name)) for name in ("fine", "coarse", "dense")]
    worst = max(float((a.float() - b.float()).abs().max() / a.float().abs().max()) for a, b in parts)
    points = np.random.default_rng(1).uniform(20, image.shape[0] - 20, (16, 2))
    masks = [[segany.segment(e, points=[point], model=model).best for point in points] for e in (whole, again)]
    return worst, float(np.mean([mask_iou(a, b) for a, b in zip(*masks, strict=True)]))


def stack_kept(stack: np.ndarray) -> None:
    """Size, error and time of the embeddings of a stack."""
    for dtype in ("float32", "bfloat16"):
        worst, iou = error(segany.load_model("nano", device="cpu", dtype=dtype), stack[0])  # type: ignore[arg-type]
        print(f"  {dtype}: features kept as float16 differ by {worst:.0e}, masks by an IoU of {iou:.4f}")
    model = segany.load_model("nano", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "embeddings"
        first = timed(lambda: segany.precompute(stack, store, model))
        used = EmbeddingStore(store).used
        frames = segany.api.open_stack(stack)
        kept = EmbeddingStore(store)
        warm = timed(lambda: [kept.embed(model, frames[i], frames.intensity) for i in range(len(frames))])
        values = sum(array.size for array in model.pack(model.embed(stack[0])).values())
    print(f"  encoded and kept in {first:.1f} s, found again in {warm:.1f} s: {first / warm:.1f}x")
    print(
        f"  {used / len(stack) / 1e6:.2f} MB a plane on disk, {used / len(stack) / (4 * values):.0%} of float32; "
        f"the planes themselves have {stack.nbytes / len(stack) / 1e6:.2f} MB each"
    )


def tiles(model: NanoModel, side: int) -> None:
    """Search one plane tile by tile: without a store, with an empty one, and for other things with a full one."""
    image = planes(1, side)[0]
    with tempfile.TemporaryDirectory() as folder:
        for word, threshold, kept in (
            ("nucleus", 0.5, None),
            ("nucleus", 0.5, folder),
            ("nucleus", 0.3, folder),
            ("object", 0.5, folder),
        ):
            found: list[int] = []
            spent = seconds(
                lambda word=word, threshold=threshold, kept=kept, found=found: found.append(  # type: ignore[misc]
                    len(segany.find(image, word, threshold=threshold, model=model, embeddings=kept))
                )
            )
            used = EmbeddingStore(folder).used / 1e6
            print(f"  {word} above {threshold}: {found[0]} objects in {spent:.1f} s of a processor, {used:.1f} MB kept")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=100)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--plane", type=int, default=2048, help="side of the one that is searched in tiles, 0 for none")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, nano")
    if args.planes:
        print(f"{args.planes} planes of {args.side} px")
        stack_kept(planes(args.planes, args.side))
    if args.plane:
        print(f"find on one plane of {args.plane} px, in tiles")
        tiles(segany.load_model("nano", device="cpu"), args.plane)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
