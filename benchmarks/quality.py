"""Accuracy of a model on annotated images: clicks, boxes, everything, propagation, tracking.

``python benchmarks/quality.py FOLDER [--model nano]`` where FOLDER has an
``index.json``; with ``--generated N`` in its place, prompts on N fresh images of every
kind that nano is trained on. Click: the pixel deepest inside the object. Three clicks: each
next one deepest inside the error. Box: tight. Mean IoU over up to eight objects
drawn from each image; AP at IoU 0.5 is TP / (TP + FP + FN), averaged over images.
Propagation starts from the true mask on the middle plane of an object; "whole" is the IoU over all planes, those
beyond the object's ends too. Tracking finds all objects of a stack by a word; their AP is over whole objects.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from skimage.io import imread

import napari_segany as segany
from napari_segany.core.masks import bounding_box, interior_point, mask_iou
from napari_segany.training.generate import KINDS, generate

OBJECTS_PER_IMAGE = 8
#: Modality or kind, image, labels.
Annotated = tuple[str, np.ndarray, np.ndarray]


def annotated(folder: Path, items: list[dict]) -> Iterator[Annotated]:
    """Read the images of an index."""
    for item in items:
        yield item["modality"].split(",")[0], imread(folder / item["image"]), imread(folder / item["labels"])


def generated(per_kind: int) -> Iterator[Annotated]:
    """Images of every kind, of seeds that training never draws, without slivers of objects."""
    for kind in KINDS:
        for seed in range(per_kind):
            image, labels = generate(kind, 2**31 + seed, (320, 320))
            yield kind, image, labels * (np.bincount(labels.ravel()) >= 50)[labels]


def prompts_quality(model, images: Iterable[Annotated], clicks: int = 3) -> dict[str, dict[str, float]]:
    """Mean IoU per modality for one click, `clicks` clicks and a box, and the rank correlation of the scores."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for modality, image, labels in images:
        embedding = model.embed(image)
        rng = np.random.default_rng(0)
        ids = np.unique(labels)[1:]
        for object_id in rng.choice(ids, min(OBJECTS_PER_IMAGE, len(ids)), replace=False):
            truth = labels == object_id
            into = found[modality]
            points, signs = [interior_point(truth)], [1]
            for number in range(clicks):
                answer = segany.segment(embedding, points=points, labels=signs, model=model)
                iou = mask_iou(answer.best, truth)
                if number == 0:
                    into["click"].append(iou)
                    into["score"].append(float(answer.scores[answer.best_index]))
                missed, extra = truth & ~answer.best, answer.best & ~truth
                error = missed if _depth(missed) >= _depth(extra) else extra
                if not error.any():
                    break
                points.append(interior_point(error))
                signs.append(int(error is missed))
            into["clicks"].append(iou)
            box = segany.segment(embedding, box=bounding_box(truth), model=model)
            into["box"].append(mask_iou(box.best, truth))
    for into in list(found.values()):
        for name, values in into.items():
            found["all"][name] += values
    return {
        modality: {
            "objects": len(into["click"]),
            **{name: round(float(np.mean(into[name])), 4) for name in ("click", "clicks", "box")},
            "spearman": round(float(spearmanr(into["score"], into["click"]).statistic), 3),
        }
        for modality, into in found.items()
    }


def _depth(mask: np.ndarray) -> float:
    from scipy.ndimage import distance_transform_edt

    return float(distance_transform_edt(np.pad(mask, 1)).max()) if mask.any() else 0.0


def average_precision(labels: np.ndarray, truth: np.ndarray, threshold: float = 0.5) -> float:
    """TP / (TP + FP + FN) with one-to-one matches of IoU at least `threshold`."""
    overlap = np.histogram2d(
        labels.ravel(), truth.ravel(), bins=(np.arange(labels.max() + 2), np.arange(truth.max() + 2))
    )[0]
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    iou = (overlap / np.maximum(union, 1))[1:, 1:]
    n_labels, n_truth = (overlap.sum(1)[1:] > 0).sum(), (overlap.sum(0)[1:] > 0).sum()
    hits = iou[linear_sum_assignment(-(iou >= threshold).astype(float))] >= threshold if iou.size else np.zeros(0)
    return float(hits.sum() / max(n_labels + n_truth - hits.sum(), 1))


def everything_quality(model, folder: Path, items: list[dict]) -> dict[str, float]:
    """Mean AP at 0.5 per modality."""
    found = defaultdict(list)
    for item in items:
        image, labels = imread(folder / item["image"]), imread(folder / item["labels"])
        found[item["modality"].split(",")[0]].append(
            average_precision(segany.everything(image, model=model).labels, labels)
        )
    return {modality: round(float(np.mean(values)), 4) for modality, values in found.items()}


def find_quality(model, folder: Path, items: list[dict]) -> dict[str, dict[str, float]]:
    """Mean AP at IoU 0.5 per modality of "nucleus", and of boxes around three objects."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        image, labels = imread(folder / item["image"]), imread(folder / item["labels"])
        embedding, into = model.embed(image), found[item["modality"].split(",")[0]]
        ids = np.random.default_rng(0).permutation(np.unique(labels)[1:])[:3]
        boxes = [bounding_box(labels == object_id) for object_id in ids]
        for name, asked in (("word", {"text": "nucleus"}), ("examples", {"exemplars": boxes})):
            into[name].append(average_precision(segany.find(embedding, model=model, **asked).labels, labels))
    return {
        modality: {name: round(float(np.mean(values)), 4) for name, values in into.items()}
        for modality, into in found.items()
    }


def propagation_quality(model, folder: Path, items: list[dict], objects: int = 12) -> dict[str, dict[str, float]]:
    """Mean IoU over the other planes of each object, over all at once, and share of planes with the right identity."""
    result = {}
    for item in items:
        truth = imread(folder / item["labels"])
        session = segany.Session(str(folder / item["image"]), model=model)
        rng = np.random.default_rng(0)
        spans = {}
        for object_id in np.unique(truth)[1:]:
            planes = np.flatnonzero((truth == object_id).any(axis=(1, 2)))
            if len(planes) >= 3:
                spans[int(object_id)] = planes
        chosen = rng.choice(sorted(spans), min(objects, len(spans)), replace=False)
        for object_id in map(int, chosen):
            middle = int(spans[object_id][len(spans[object_id]) // 2])
            session.accept(object_id, middle, mask=truth[middle] == object_id, overwrite=True)
        began = time.perf_counter()
        for _ in session.propagate():
            pass
        seconds = time.perf_counter() - began
        labels = np.asarray(session.labels)
        ious, right, whole = [], [], []
        for object_id in map(int, chosen):
            whole.append(mask_iou(labels == object_id, truth == object_id))
            planes = spans[object_id]
            for plane in planes:
                if plane == planes[len(planes) // 2]:
                    continue
                ious.append(mask_iou(labels[plane] == object_id, truth[plane] == object_id))
                inside = labels[plane][truth[plane] == object_id]
                inside = inside[inside > 0]
                right.append(inside.size > 0 and np.bincount(inside).argmax() == object_id)
        result[item["name"]] = {
            "iou": round(float(np.mean(ious)), 4),
            "whole": round(float(np.mean(whole)), 4),
            "identity": round(float(np.mean(right)), 4),
            "seconds per plane": round(seconds / len(truth), 3),
        }
    return result


def track_quality(model, folder: Path, items: list[dict]) -> dict[str, dict[str, float]]:
    """AP at IoU 0.5 and 0.3 of the whole objects of each stack, found by the word for what is labelled in it."""
    result = {}
    for item in items:
        truth = imread(folder / item["labels"])
        session = segany.Session(str(folder / item["image"]), model=model)
        began = time.perf_counter()
        for _ in session.track("cell" if "membranes" in item["modality"] else "nucleus"):
            pass
        seconds = time.perf_counter() - began
        labels = np.asarray(session.labels)
        result[item["name"]] = {
            "AP@0.5": round(average_precision(labels, truth), 4),
            "AP@0.3": round(average_precision(labels, truth, 0.3), 4),
            "seconds per plane": round(seconds / len(truth), 3),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--generated", type=int, default=0, metavar="N", help="images of each generated kind")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--parts", default="prompts,everything,find,propagation,tracking")
    parser.add_argument("--limit", type=int, help="only the first images")
    args = parser.parse_args()
    model = segany.load_model(args.model)
    if args.generated:
        print(json.dumps({"generated": prompts_quality(model, generated(args.generated))}, indent=2))
        return
    if args.folder is None:
        parser.error("name a folder with an index.json, or say --generated")
    items = [item for item in json.loads((args.folder / "index.json").read_text()) if "labels" in item]
    flat = [item for item in items if len(item["axes"].replace("C", "")) == 2][: args.limit]
    stacks = [item for item in items if len(item["axes"]) == 3 and "C" not in item["axes"]]
    report = {}
    if "prompts" in args.parts:
        report["prompts"] = prompts_quality(model, annotated(args.folder, flat))
    if "everything" in args.parts:
        report["everything AP@0.5"] = everything_quality(model, args.folder, flat)
    if "find" in args.parts:
        report["find AP@0.5"] = find_quality(model, args.folder, flat)
    if "propagation" in args.parts:
        report["propagation"] = propagation_quality(model, args.folder, stacks)
    if "tracking" in args.parts:
        report["tracking"] = track_quality(model, args.folder, stacks)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
