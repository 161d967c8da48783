"""What ten labelled objects teach a model: click IoU on the other objects of the image, before and after.

``python benchmarks/adapt.py [--model nano] [--steps 120] [--worms FOLDER]``. Structures that nano was never trained on:
generated rings labelled with their holes; a photograph of coins (from scikit-image) labelled by a watershed of its
gradient; and, where FOLDER is a checkout of github.com/CellProfiler/examples, stained worms, which are measured on a
second slide too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage import color, data, filters, io, measure, morphology, segmentation

import napari_segany as segany
from napari_segany.core.masks import interior_point, mask_iou

LABELLED = 10


def rings(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image (600, 600) of 49 bright rings on a dim ground, and labels of all that they enclose."""
    rng = np.random.default_rng(seed)
    image, labels = rng.normal(60, 6, (600, 600)), np.zeros((600, 600), np.int32)
    ys, xs = np.ogrid[:600, :600]
    for number in range(49):
        y, x = 50 + 83 * (number // 7) + rng.integers(-8, 9), 50 + 83 * (number % 7) + rng.integers(-8, 9)
        size = rng.uniform(18, 30)
        distance = np.hypot(ys - y, xs - x)
        image += 90 * (np.abs(distance - size + 4) < 4)
        labels[distance < size] = number + 1
    return image.clip(0, 255).astype(np.uint8), labels


def coins() -> tuple[np.ndarray, np.ndarray]:
    """A photograph (303, 384) of 24 coins, and their outlines."""
    image = data.coins()
    markers = np.zeros(image.shape, np.int32)
    markers[image < 30], markers[image > 150] = 1, 2
    inside = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(image), markers) == 2)
    labels, _ = ndimage.label(morphology.remove_small_objects(inside, max_size=200))
    return image, segmentation.clear_border(labels)


def worms(slide: Path) -> tuple[np.ndarray, np.ndarray]:
    """A slide (770, 691, 3) of C. elegans stained for fat, and the worms that lie alone and whole on it.

    A worm is what differs in colour from the slide (CIELAB). Its skeleton has two ends; more of them are worms that
    cross, fewer or a short one no worm.
    """
    image = io.imread(slide)[..., :3]
    lab = color.rgb2lab(image)
    away = ndimage.gaussian_filter(np.linalg.norm(lab - np.median(lab, axis=(0, 1)), axis=2), 1)
    stained = ndimage.binary_fill_holes(morphology.opening(away > 12, morphology.disk(1)))
    labels = segmentation.clear_border(measure.label(stained))
    for region in measure.regionprops(labels):
        skeleton = morphology.skeletonize(np.pad(region.image, 2))
        near = ndimage.convolve(skeleton.astype(int), np.ones((3, 3), int))
        ends = np.count_nonzero(skeleton & (near == 2))
        if ends != 2 or not 50 <= np.count_nonzero(skeleton) <= 150 or region.area < 300:
            labels[labels == region.label] = 0
    return image, labels


def click_iou(model, image: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> float:
    """Mean IoU of one click deep inside each object."""
    embedding = model.embed(image)
    found = [
        mask_iou(segany.segment(embedding, points=[interior_point(labels == i)], model=model).best, labels == i)
        for i in ids
    ]
    return float(np.mean(found))


def main() -> None:
    """Teach, and print a row for each structure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--worms", type=Path, metavar="FOLDER", help="checkout of github.com/CellProfiler/examples")
    args = parser.parse_args()
    model = segany.load_model(args.model)
    structures = {"rings": [rings()], "coins": [coins()]}
    if args.worms is not None:
        slides = args.worms / "ExampleUntangleWormsBrightField" / "images"
        structures["worms"] = [worms(slides / f"{name}_orig.png") for name in ("WT", "fat")]
    print("structure     objects  before  after  seconds")
    for name, ((image, labels), *further) in structures.items():
        ids = np.random.default_rng(0).permutation(np.unique(labels)[1:])
        learned, others = ids[:LABELLED], ids[LABELLED:]
        started = time.perf_counter()
        taught = segany.training.fit(image, np.where(np.isin(labels, learned), labels, 0), model, steps=args.steps)
        seconds = time.perf_counter() - started
        rows = [(name, image, labels, others)]
        rows += [("  new image", *pair, np.unique(pair[1])[1:]) for pair in further]
        for row, *where in rows:
            before, after = (click_iou(m, *where) for m in (model, taught))
            print(f"{row:12}  {len(where[2]):7}  {before:6.3f}  {after:5.3f}  {seconds:7.0f}", flush=True)


if __name__ == "__main__":
    main()
