"""Make docs/images/generated.png: four generated images of every kind."""

from pathlib import Path

import numpy as np
from skimage.io import imsave

from napari_segany import samples
from napari_segany.core.intensity import to_rgb

SIDE, PER_KIND = 128, 4

rows = [
    np.concatenate([to_rgb(samples.image(kind, seed, (256, 256))[0])[::2, ::2] for seed in range(PER_KIND)], axis=1)
    for kind in samples.images()
]
half = len(rows) // 2
sheet = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1).astype(np.uint8)
folder = Path(__file__).parent / "images"
folder.mkdir(exist_ok=True)
imsave(folder / "generated.png", sheet)
