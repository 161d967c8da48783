"""The public functions and the command line, with the model that ships."""

import json
import subprocess
import sys
from pathlib import Path

import geff
import numpy as np
import pytest
import zarr
from skimage.io import imread, imsave
from tifffile import imwrite

import napari_segany as segany
from napari_segany.core.errors import InvalidImageError, InvalidLabelsError, InvalidPromptError, StorageError
from napari_segany.core.masks import bounding_box, interior_point, mask_iou


@pytest.fixture(scope="module")
def model():
    return segany.load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def nuclei() -> tuple[np.ndarray, np.ndarray]:
    return segany.samples.image("nuclei", seed=1)


@pytest.fixture(scope="module")
def stack() -> tuple[np.ndarray, np.ndarray]:
    return segany.samples.stack("nuclei-3d", seed=0)


def largest(labels: np.ndarray) -> int:
    return int(np.bincount(labels[labels > 0]).argmax())


def test_click_box_and_mask_find_the_object(model, nuclei) -> None:
    image, truth = nuclei
    wanted = truth == largest(truth)
    embedding = model.embed(image)
    box = bounding_box(wanted)
    shifted = np.roll(wanted, 3, axis=0)
    prompts = [({"points": [interior_point(wanted)]}, 0.6), ({"box": box}, 0.75), ({"mask": shifted, "box": box}, 0.75)]
    for prompt, least in prompts:
        found = segany.segment(embedding, **prompt, model=model)
        assert found.best.shape == image.shape
        assert mask_iou(found.best, wanted) > least, list(prompt)
    np.testing.assert_array_equal(
        segany.segment(image, box=box, model=model).best, segany.segment(embedding, box=box, model=model).best
    )


def test_boxes_in_one_batch(model, nuclei) -> None:
    image, truth = nuclei
    ids = np.unique(truth)[1:]
    boxes = [bounding_box(truth == i) for i in ids]
    found = segany.segment_boxes(image, boxes, model=model)
    assert len(found) == len(ids) and found.labels.dtype == np.int32 and found.boxes.shape == (len(ids), 4)
    ious = [mask_iou(found.mask(k), truth == i) for k, i in enumerate(ids)]
    assert np.mean(ious) > 0.75
    assert len(segany.segment_boxes(image, [], model=model)) == 0


def test_everything_finds_most_objects(model, nuclei) -> None:
    image, truth = nuclei
    progress = []
    found = segany.everything(image, model=model, progress=lambda done, total: progress.append((done, total)))
    hits = sum(
        max((mask_iou(found.labels == k, truth == i) for k in np.unique(found.labels[truth == i]) if k), default=0)
        > 0.5
        for i in np.unique(truth)[1:]
    )
    assert hits > 0.5 * (len(np.unique(truth)) - 1)
    assert progress[-1][0] == progress[-1][1]


def test_a_stack_from_click_to_reopened_session(model, stack, tmp_path: Path) -> None:
    image, truth = stack
    middle = len(image) // 2
    object_id = largest(truth[middle])
    imwrite(tmp_path / "stack.tif", image, metadata={"axes": "ZYX"})
    session = segany.Session(tmp_path / "stack.tif", axis="z", model=model, labels=tmp_path / "out.zarr")
    preview = session.prompt(5, middle, points=[interior_point(truth[middle] == object_id)])
    assert mask_iou(preview, truth[middle] == object_id) > 0.6
    frames = [frame for frame, labels in session.propagate()]
    assert sorted(frames) == list(range(len(image)))
    planes = np.flatnonzero((truth == object_id).any(axis=(1, 2)))[1:-1]
    assert np.mean([mask_iou(session.labels[p] == 5, truth[p] == object_id) for p in planes]) > 0.6
    session.save(tmp_path / "out.zarr")
    labels, track = np.asarray(session.labels), session.tracks
    session.close()
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr/labels/segany/0")[...], labels)
    again = segany.Session.open(tmp_path / "out.zarr", model=model)
    np.testing.assert_array_equal(np.asarray(again.labels), labels)
    assert again.tracks == track and (5, middle) in again.prompts
    again.close()


def test_a_killed_session_comes_back_with_its_prompts(model, stack, tmp_path: Path) -> None:
    image, _ = stack
    imwrite(tmp_path / "stack.tif", image, metadata={"axes": "ZYX"})
    code = f"""
import os, napari_segany as segany
s = segany.Session({str(tmp_path / "stack.tif")!r}, labels={str(tmp_path / "out.zarr")!r})
s.prompt(1, 12, points=[(80, 80)])
s.prompt(2, 12, box=(20, 20, 60, 60))
s.accept(2, 12)
s.undo(); s.redo()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    session = segany.Session.open(tmp_path / "out.zarr", model=model)
    assert set(session.prompts) == {(1, 12), (2, 12)} and session.accepted == {(2, 12): True}
    np.testing.assert_array_equal(session.prompts[1, 12].points, [[80, 80]])
    assert (np.asarray(session.labels[12]) == 2).any()
    session.close()


def test_a_session_in_memory_needs_its_stack_again(model, stack, tmp_path: Path) -> None:
    image, _ = stack
    labels = np.zeros(image.shape, np.uint16)
    session = segany.Session(image, model=model, labels=labels)
    session.prompt(1, 3, points=[(80, 80)])
    session.accept(1, 3)
    assert (labels[3] == 1).any(), "the person's own array is filled"
    session.save(tmp_path / "s.zarr")
    with pytest.raises(StorageError, match="pass it again"):
        segany.Session.open(tmp_path / "s.zarr")
    with pytest.raises(InvalidImageError, match="was made on a stack of shape"):
        segany.Session.open(tmp_path / "s.zarr", stack=image[:5], model=model)
    again = segany.Session.open(tmp_path / "s.zarr", stack=image, model=model)
    np.testing.assert_array_equal(np.asarray(again.labels[3]), labels[3])
    again.close()


def test_a_damaged_state_file_is_named_and_labels_stay_readable(model, stack, tmp_path: Path) -> None:
    session = segany.Session(stack[0], model=model)
    session.accept(1, 3, mask=stack[1][3] > 0)
    session.save(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "segany" / "session.json").write_text('{"version": 1, "mod')
    with pytest.raises(StorageError, match="damaged; the labels beside it are whole"):
        segany.Session.open(tmp_path / "s.zarr", stack=stack[0])
    whole = segany.Session(stack[0], model=model, labels=tmp_path / "s.zarr")
    assert (np.asarray(whole.labels[3]) == 1).any()
    whole.close()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: segany.segment(np.zeros((0, 5)), points=[(0, 0)], model=m), InvalidImageError, "empty"),
        (lambda m: segany.segment(np.zeros(5), points=[(0, 0)], model=m), InvalidImageError, "shape"),
        (lambda m: segany.segment(np.zeros((9, 9)), model=m), InvalidPromptError, "at least one point"),
        (lambda m: segany.segment(np.zeros((9, 9)), points=[(9, 0)], model=m), InvalidPromptError, "outside"),
        (lambda m: segany.segment_boxes(np.zeros((9, 9)), [(5, 5, 5, 9)], model=m), InvalidPromptError, "covers no"),
        (lambda m: segany.Session(np.zeros((2, 3, 9, 9)), model=m), InvalidImageError, "name its axes"),
        (
            lambda m: segany.Session(np.zeros((2, 9, 9)), model=m, labels=np.zeros((3, 9, 9), int)),
            InvalidLabelsError,
            "same",
        ),
        (
            lambda m: segany.Session(np.zeros((2, 9, 9)), model=m, labels=np.zeros((2, 9, 9))),
            InvalidLabelsError,
            "integers",
        ),
        (lambda m: segany.Session(np.zeros((2, 9, 9)), model=m, labels="/proc/no/out.zarr"), StorageError, "/proc"),
        (lambda m: segany.everything(np.zeros((9, 9)), m, text="cell"), InvalidPromptError, "pass detector="),
        (
            lambda m: segany.everything(m.embed(np.zeros((9, 9))), m, detector=m),
            InvalidPromptError,
            "needs the image itself",
        ),
        (
            lambda m: segany.everything(np.zeros((9, 9)), m, detector=m, text="quark"),
            InvalidPromptError,
            "it knows: nucleus",
        ),
        (lambda m: segany.Session.open("/nowhere/at/all.zarr"), StorageError, "no session"),
    ],
)
def test_bad_input_is_one_sentence(model, call, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        call(model)
    assert "\n" not in str(caught.value)


# -- command line ----------------------------------------------------------------------------------


def segany_cli(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "napari_segany.cli", *map(str, args)], capture_output=True, text=True, check=False
    )


def test_segment_and_everything_on_the_command_line(nuclei, tmp_path: Path) -> None:
    image, truth = nuclei
    wanted = truth == largest(truth)
    imsave(tmp_path / "a.png", image, check_contrast=False)
    y, x = interior_point(wanted)
    answer = segany_cli("segment", tmp_path / "a.png", "--point", f"{y},{x}", "-o", tmp_path / "m.tif", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["area"] == (imread(tmp_path / "m.tif") > 0).sum()
    assert mask_iou(imread(tmp_path / "m.tif") > 0, wanted) > 0.6
    answer = segany_cli("everything", tmp_path / "a.png", "-o", tmp_path / "all.png", "--json")
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["objects"] == len(result["boxes"]) > 0 and imread(tmp_path / "all.png").max() <= result["objects"]


def test_propagate_on_the_command_line(stack, tmp_path: Path) -> None:
    image, truth = stack
    imwrite(tmp_path / "s.tif", image, metadata={"axes": "ZYX"})
    y, x = interior_point(truth[12] == largest(truth[12]))
    answer = segany_cli(
        "propagate",
        tmp_path / "s.tif",
        "--frame",
        12,
        "-p",
        f"{y},{x}",
        "-o",
        tmp_path / "o.zarr",
        "--axis",
        "z",
        "--json",
    )
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["first"] < 12 < result["last"]
    assert (zarr.open_array(tmp_path / "o.zarr/labels/segany/0")[12] == 1).any()


def test_export_on_the_command_line(stack, tmp_path: Path) -> None:
    session = segany.Session(stack[0][:3], labels=tmp_path / "o.zarr")
    session.accept(1, 0, mask=stack[1][0] > 0)
    session.accept(2, 1, mask=stack[1][1] > 0)
    session.parents[2, 1] = 1
    assert session.export_tracks(tmp_path / "01_RES") == 2
    session.save(tmp_path / "o.zarr")
    session.close()
    answer = segany_cli("export", tmp_path / "o.zarr", "-o", tmp_path / "ctc", "--json")
    assert answer.returncode == 0 and json.loads(answer.stdout)["objects"] == 2, answer.stderr
    for folder in ("01_RES", "ctc"):
        assert (tmp_path / folder / "res_track.txt").read_text().split() == ["1", "0", "0", "0", "2", "1", "1", "1"]
    answer = segany_cli("export", tmp_path / "o.zarr", "-o", tmp_path / "tracks.geff")
    graph, described = geff.read(tmp_path / "tracks.geff")
    assert len(graph.edges) == 1 and described.related_objects[0].path == "../o.zarr/labels/segany"
    assert {at["score"] for at in graph.nodes.values()} == {1.0}


def test_a_killed_run_resumes_on_the_command_line(stack, tmp_path: Path) -> None:
    image, truth = stack
    imwrite(tmp_path / "s.tif", image, metadata={"axes": "ZYX"})
    session = segany.Session(tmp_path / "s.tif", axis="z", labels=tmp_path / "o.zarr")
    session.accept(1, 12, mask=truth[12] == largest(truth[12]))
    running = session.propagate()
    done = [next(running)[0] for _ in range(4)]
    session.close()
    answer = segany_cli("propagate", tmp_path / "s.tif", "--frame", 12, "-o", tmp_path / "o.zarr", "--resume", "--json")
    assert answer.returncode == 0, answer.stderr
    labels = zarr.open_array(tmp_path / "o.zarr/labels/segany/0")
    assert done == [12, 13, 14, 15] and (labels[16] == 1).any() and (labels[11] == 1).any()


def test_models_list_on_the_command_line() -> None:
    models = json.loads(segany_cli("models", "list", "--json").stdout)
    assert {"name", "family", "licence", "installed", "gated"} <= set(models[0])
    assert models[0]["name"] == "nano" and models[0]["installed"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["segment", "none.png", "-p", "1,2"], "no file or folder"),
        (["segment", "{image}", "-p", "1;2"], "is no point"),
        (["segment", "{image}", "-p", "900,900"], "outside the image"),
        (["segment", "{image}"], "at least one point"),
        (["segment", "{image}", "-p", "5,5", "-m", "nothing"], "registered models"),
        (["segment", "{image}", "-p", "5,5", "--device", "cuda:9"], "no device"),
        (["segment", "{image}", "-p", "5,5", "-o", "{folder}/x.doc"], "end it with"),
        (["propagate", "{image}", "--frame", "3", "-p", "5,5", "-o", "{folder}/o.zarr"], "Frame 3"),
        (["export", "{image}", "-o", "{folder}/x"], "Tracks need labels"),
        (["segmnt"], "No such command"),
    ],
)
def test_mistakes_are_one_line_and_a_non_zero_exit(args: list[str], words: str, nuclei, tmp_path: Path) -> None:
    imsave(tmp_path / "a.png", nuclei[0], check_contrast=False)
    answer = segany_cli(*(arg.format(image=tmp_path / "a.png", folder=tmp_path) for arg in args))
    assert answer.returncode != 0 and words in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1 and "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "verb", [[], ["segment"], ["everything"], ["propagate"], ["demo"], ["models"], ["models", "list"]]
)
def test_every_verb_has_help(verb: list[str]) -> None:
    answer = segany_cli(*verb, "--help")
    assert answer.returncode == 0 and "Usage" in answer.stdout
