"""Annotated images out of public repositories, beside those that a folder for training holds.

``python -m napari_segany.training.public FOLDER --misic CLONE --qcanet CLONE``
adds them to FOLDER and to its ``index.json``. Of github.com/leec13/MiSiCgui the commit fd17a02 has to be checked out,
of github.com/funalab/QCANet 506bc3d; both are under the MIT licence.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.filters import gaussian
from skimage.io import imread, imsave
from skimage.measure import label, regionprops
from skimage.morphology import skeletonize
from skimage.segmentation import relabel_sequential, watershed

#: Fewer pixels than this are no bacterium.
SMALLEST = 30
#: The first frames of MiSiC's time-lapse are nearly one.
FIRST_FRAME = 2


@dataclass(frozen=True)
class Item:
    """An image or stack with its labels, and what the index says of them."""

    name: str
    image: np.ndarray
    labels: np.ndarray
    axes: str
    source: str
    modality: str


def bacteria(probability: np.ndarray) -> np.ndarray:
    """Single bacteria of a map that tells where bacteria are.

    Cores are flooded (watershed); what forks, though it is long, is several bacteria that nothing parts, and left out.

    Parameters
    ----------
    probability : (H, W) float, 0-1

    Returns
    -------
    (H, W) uint16
    """
    depth = ndimage.distance_transform_edt(probability > 0.5)
    half_width = np.percentile(depth[depth > 0], 95) if (depth > 0).any() else 1.0
    cores = label((probability > 0.75) & (depth > 0.35 * half_width))
    height = gaussian(probability, 0.5) + 0.3 * np.minimum(depth / half_width, 1)
    labels = watershed(-height, cores, mask=probability > 0.45)
    for region in regionprops(labels):
        if region.area < SMALLEST or _forks(region.image):
            labels[labels == region.label] = 0
    return relabel_sequential(labels)[0].astype(np.uint16)


def _forks(mask: np.ndarray) -> bool:
    inside = np.pad(mask, 2)
    spine = skeletonize(gaussian(inside.astype(float), 1) > 0.5)
    neighbours = ndimage.convolve(spine.astype(int), np.ones((3, 3), dtype=int)) - 1
    ends, forks = (spine & (neighbours == 1)).sum(), (spine & (neighbours >= 3)).sum()
    width = 2 * ndimage.distance_transform_edt(inside).max()
    return bool(ends > 3 or (forks > 0 and ends > 2 and spine.sum() > 3 * width))


def misic(clone: Path) -> Iterator[Item]:
    """Bacteria in phase contrast and brightfield, outlined by MiSiC (Panigrahi et al. 2021)."""
    for path in sorted((clone / "images" / "Masks").glob("*.tif")):
        example = path.name[: len("Exemple1")]
        image = imread(next((clone / "images").glob(f"{example}*.tif")))
        masks = imread(path)
        frames = [(image, masks)] if image.ndim == 2 else list(zip(image, masks, strict=True))[FIRST_FRAME:]
        for number, (frame, mask) in enumerate(frames):
            yield Item(
                f"misic_{example}_{number}",
                frame,
                bacteria(mask / 255),
                "YX",
                "leec13/MiSiCgui",
                "phase contrast, bacteria",
            )


def qcanet(clone: Path) -> Iterator[Item]:
    """Nuclei of two mouse embryos, by hand (Tokuoka et al. 2020); planes are twice as far apart as pixels."""
    for cells in (8, 16):
        folder = clone / "example_datasets" / f"{cells}_cell_stage"
        labels = label(imread(folder / "segmentation_gt.tif") > 0).astype(np.uint16)
        # The axes of a stack that is not the same along all of them.
        yield Item(
            f"qcanet_{cells}",
            imread(folder / "image.tif"),
            labels,
            "ZYX",
            "funalab/QCANet",
            "fluorescence, nuclei of an embryo in depth",
        )


def add(folder: Path, items: Iterator[Item]) -> int:
    """Write images into a folder and its index, in place of those of the same name; how many."""
    index = folder / "index.json"
    known = {one["name"]: one for one in (json.loads(index.read_text()) if index.exists() else [])}
    count = 0
    for item in items:
        for name, array in ((f"{item.name}.tif", item.image), (f"{item.name}_labels.tif", item.labels)):
            imsave(folder / name, array, check_contrast=False)
        known[item.name] = {
            "name": item.name,
            "axes": item.axes,
            "image": f"{item.name}.tif",
            "labels": f"{item.name}_labels.tif",
            "licence": "MIT",
            "source": item.source,
            "modality": item.modality,
        }
        count += 1
    index.write_text(json.dumps(list(known.values()), indent=1))
    return count


def main() -> None:
    """Read the command line and add what it names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with or without an index.json")
    parser.add_argument("--misic", type=Path, help="clone of leec13/MiSiCgui")
    parser.add_argument("--qcanet", type=Path, help="clone of funalab/QCANet")
    args = parser.parse_args()
    for clone, read in ((args.misic, misic), (args.qcanet, qcanet)):
        if clone is not None:
            print(f"{add(args.folder, read(clone))} of {clone}")


if __name__ == "__main__":
    main()
