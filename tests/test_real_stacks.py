"""The main job on real stacks, and nano's accuracy on real images."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

import napari_segany as segany
from napari_segany.core.masks import interior_point, mask_iou

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from quality import annotated, prompts_quality, propagation_quality


@pytest.fixture(scope="module")
def model():
    return segany.load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def items(shared_data: Path) -> list[dict]:
    return [item for item in json.loads((shared_data / "dev" / "index.json").read_text()) if "labels" in item]


def test_nano_is_as_accurate_as_its_card_says(model, shared_data: Path, items: list[dict]) -> None:
    flat = [item for item in items if item["axes"] in ("YX", "YXC")]
    fluorescence = [item for item in flat if item["modality"] == "fluorescence"][:16]
    histology = [item for item in flat if item["modality"] == "histology"]
    found = prompts_quality(model, annotated(shared_data / "dev", fluorescence + histology), clicks=1)
    assert found["fluorescence"]["click"] >= FLUORESCENCE_CLICK
    assert found["fluorescence"]["box"] >= FLUORESCENCE_BOX
    assert found["histology"]["click"] >= HISTOLOGY_CLICK


#: A little below the figures of docs/nano.md, for rounding differs between machines.
FLUORESCENCE_CLICK, FLUORESCENCE_BOX, HISTOLOGY_CLICK = 0.80, 0.85, 0.64


@pytest.mark.parametrize("name", ["worm_nuclei_3d", "plant_ovule"])
def test_objects_are_carried_through_real_stacks(model, shared_data: Path, items: list[dict], name: str) -> None:
    (item,) = [item for item in items if item["name"] == name]
    found = propagation_quality(model, shared_data / "dev", [item], objects=6)[name]
    assert found["iou"] > 0.4 and found["identity"] > 0.75


def test_a_nucleus_is_followed_through_a_real_time_lapse(model, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "dev" / "cancer_migration_timelapse.tif"
    session = segany.Session(path, axis="t", model=model, labels=tmp_path / "out.zarr")
    first = segany.everything(session.embedding(0), model=model)
    sizes = [patch.sum() for patch in first.patches]
    y, x = interior_point(first.mask(int(np.argsort(sizes)[len(sizes) // 2])))
    start = session.prompt(1, 0, points=[(y, x)])
    frames = [frame for frame, _ in session.propagate(direction="forward", stop=12)]
    assert frames == list(range(12))
    session.save(tmp_path / "out.zarr")
    session.close()
    again = segany.Session.open(tmp_path / "out.zarr", model=model)
    labels, track = np.asarray(again.labels[:12]), again.tracks[0]
    again.close()
    assert mask_iou(labels[0] == 1, start) > 0.99
    assert track.first == 0 and track.last >= 5
    image = imread(path)
    for frame in (0, 5):
        assert image[frame][labels[frame] == 1].mean() > 2 * np.median(image[frame]), "the mask is on a bright nucleus"
