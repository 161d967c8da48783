"""Every object on every plane: stacks, resolutions, resuming, remarks on chunks."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import zarr
from scipy import ndimage

import napari_segany as segany
from napari_segany import cli
from napari_segany.core.errors import InvalidPromptError, StorageError, UnsupportedError
from napari_segany.core.settings import FindSettings
from napari_segany.io.frames import open_frames
from tests.fakes import DiscModel
from tests.session.test_finding import Islands, islands
from tests.session.test_tiling import RANGE, BoxedIslands


def stack_of(planes: int, side: int = 96) -> np.ndarray:
    return np.stack([islands(i, (side, side)) for i in range(planes)])


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path / "labels" / "segany" / "0")[:])


def pyramid(path: Path, stack: np.ndarray, levels: int) -> Path:
    """An OME-Zarr image (0.5) of a stack and its halved copies."""
    group = zarr.create_group(path)
    datasets = []
    for level in range(levels):
        made = stack[:, :: 2**level, :: 2**level]
        group.create_array(str(level), data=made, chunks=(1, 64, 64))
        scale = {"type": "scale", "scale": [1.0, 2.0**level, 2.0**level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return path


def test_everything_on_every_plane(tmp_path: Path) -> None:
    stack = stack_of(3)
    told: list[tuple[int, int]] = []
    done = segany.label(
        stack, tmp_path / "out.zarr", model=BoxedIslands(40), progress=lambda *parts: told.append(parts)
    )
    labels = labels_of(tmp_path / "out.zarr")
    for plane, (result, image) in enumerate(zip(done, stack, strict=True)):
        truth, count = ndimage.label(image)
        assert (result.frame, result.objects) == (plane, count)
        assert len(np.unique(truth.astype(np.int64) * 10**6 + labels[plane])) == count + 1
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_detector_proposes_on_every_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    stack = stack_of(2)
    zarr.create_array(tmp_path / "stack.zarr", data=stack, chunks=(1, 96, 96))
    models = {"disc": DiscModel(), "islands": BoxedIslands(40)}
    monkeypatch.setattr("napari_segany.api.load_model", lambda name, *_: models[name])
    command = ["segany", "everything", str(tmp_path / "stack.zarr"), "-o", str(tmp_path / "out.zarr"), "-m", "disc"]
    monkeypatch.setattr("sys.argv", [*command, "--detector", "islands"])
    cli.main()
    for plane, labels in zip(stack, labels_of(tmp_path / "out.zarr"), strict=True):
        found = segany.everything(plane, models["disc"], detector=models["islands"])
        np.testing.assert_array_equal(labels, found.labels)
        assert len(found) > 3
    monkeypatch.setattr("sys.argv", [*command, "--text", "island"])
    with pytest.raises(SystemExit, match="give --detector, or use segany find"):
        cli.main()
    with pytest.raises(InvalidPromptError, match="leave examples and FindSettings out"):
        segany.label(stack, tmp_path / "no.zarr", exemplars=[(0, 0, 9, 9)], detector=models["islands"])


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    stack, out = stack_of(4, 40), tmp_path / "out.zarr"

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segany.label(stack, out, model=BoxedIslands(100), progress=stop)
    model = BoxedIslands(100)
    assert [one.frame for one in segany.label(stack, out, model=model, resume=True)] == [2, 3]
    assert len(model.seen) == 2 and (labels_of(out) > 0).any(axis=(1, 2)).all()
    assert segany.label(stack, out, model=model, resume=True) == []
    assert len(segany.label(stack, out, model=model)) == 4


@pytest.mark.parametrize("level", [0, 1])
def test_only_a_region_of_every_plane_is_read_and_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    stack = np.kron(stack_of(2), np.ones((1, 2, 2), np.uint8))
    image = pyramid(tmp_path / "image.zarr", stack, 2)
    # What lies beside the region, or at another resolution, may be damaged.
    damaged = image / "0" / "c" / "0" / "0" / "0"
    damaged.write_bytes(b"")
    monkeypatch.setattr("napari_segany.api.load_model", lambda *_: BoxedIslands(40))
    monkeypatch.setattr("napari_segany.io.frames.Frames.intensity", RANGE)
    region, out = ("65", "64", "187.5", "192"), tmp_path / "out.zarr"
    command = ["segany", "everything", str(image), "--level", str(level), "--region", ",".join(region), "-o", str(out)]
    monkeypatch.setattr("sys.argv", command)
    cli.main()
    truth = np.zeros_like(stack)
    truth[:, 64 if level else 65 : 188, 64:192] = stack[:, 64 if level else 65 : 188, 64:192]
    np.testing.assert_array_equal(labels_of(out) > 0, truth > 0)
    for plane, labels in enumerate(labels_of(out)):
        assert len(np.unique(labels)) - 1 == ndimage.label(truth[plane])[1]
    monkeypatch.setattr("sys.argv", [*command[:5], "--region", "500,0,600,9", *command[-2:]])
    with pytest.raises(SystemExit, match="covers no part of the image of 192 x 192 pixels"):
        cli.main()


def test_a_concept_on_every_plane_at_another_resolution(tmp_path: Path) -> None:
    small = stack_of(2, 96)
    image = pyramid(tmp_path / "image.zarr", np.kron(small, np.ones((1, 4, 4), np.uint8)), 3)
    model = Islands()
    settings = FindSettings(tile=64, tile_overlap=16, overlap_threshold=0.99)
    done = segany.label(image, tmp_path / "out.zarr", text="island", settings=settings, model=model, level=2)
    labels = labels_of(tmp_path / "out.zarr")
    assert labels.shape == (2, 384, 384) and set(model.seen) == {(64, 64)}
    for plane, result in enumerate(done):
        assert result.objects == ndimage.label(small[plane])[1] == len(np.unique(labels[plane])) - 1
        np.testing.assert_array_equal(labels[plane] > 0, np.kron(small[plane], np.ones((4, 4))) > 0)


@pytest.mark.parametrize(("size", "level"), [(40, 0), (300, 2)])
def test_the_resolution_suits_the_examples(tmp_path: Path, size: int, level: int) -> None:
    stack = np.zeros((1, 1024, 1024), dtype=np.uint8)
    image = pyramid(tmp_path / "image.zarr", stack, 4)
    model = Islands()
    settings = FindSettings(tile=4096)
    box = [(10, 10, 10 + size, 12)]
    segany.label(image, tmp_path / "out.zarr", exemplars=box, settings=settings, model=model, level="auto")
    assert set(model.seen) == {(1024 >> level, 1024 >> level)}


def test_what_makes_no_sense_is_said(tmp_path: Path) -> None:
    stack, model = stack_of(2, 40), Islands()
    with pytest.raises(StorageError, match=r"end in \.zarr"):
        segany.label(stack, tmp_path / "out.tif", model=model)
    with pytest.raises(InvalidPromptError, match="Plane 2 is not in this stack of 2 planes"):
        segany.label(stack, tmp_path / "out.zarr", text="island", frame=2, model=model)
    with pytest.raises(InvalidPromptError, match="Say what to look for"):
        segany.label(stack, tmp_path / "out.zarr", settings=FindSettings(), model=model)
    with pytest.raises(UnsupportedError, match="Give the path or the list of levels"):
        segany.label(open_frames(stack), tmp_path / "out.zarr", model=model, level=1)
    flat = [np.zeros((4, 40, 40), np.uint8), np.zeros((2, 20, 20), np.uint8)]
    with pytest.raises(UnsupportedError, match="Level 1 has 2 planes and the full resolution 4"):
        segany.label(flat, tmp_path / "out.zarr", model=model, level=1)
    assert not (tmp_path / "out.zarr").exists()


def test_chunks_that_defeat_reading_by_planes_are_remarked_on(tmp_path: Path) -> None:
    def opened(name: str, shape: tuple[int, ...], chunks: tuple[int, ...], **more: object):
        path = tmp_path / name
        array = zarr.create_array(path, shape=shape, chunks=chunks, dtype=np.uint8, **more)  # type: ignore[arg-type]
        return array, open_frames(path)

    _, frames = opened("columns.zarr", (200, 512, 1024), (200, 512, 4))
    (remark, missing) = frames.remarks()
    assert remark.startswith("Reading one plane means reading 200 times its size from 256 chunks")
    assert remark.endswith("copy the stack to chunks of 1 x 512 x 512 to be faster.")
    assert missing.startswith("256 of 256 chunks of the stack are missing and read as 0")
    _, frames = opened("crumbs.zarr", (8, 4096, 4096), (1, 16, 16))
    assert frames.remarks()[0].startswith("Reading one plane means reading 1 times its size from 65536 chunks")
    array, frames = opened("good.zarr", (8, 64, 64), (1, 32, 32))
    array[:] = 1
    assert open_frames(tmp_path / "good.zarr").remarks() == []
    array, frames = opened("shards.zarr", (8, 64, 64), (1, 32, 32), shards=(1, 64, 64))
    array[:7] = 1
    assert [remark.split(" chunks")[0] for remark in frames.remarks()] == ["1 of 8"]
    assert open_frames(np.zeros((3, 4, 5))).remarks() == []


def test_the_command_line_labels_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    array = zarr.create_array(tmp_path / "stack.zarr", data=stack_of(3, 40), chunks=(1, 40, 40))
    assert array.nchunks == 3
    chunk = tmp_path / "stack.zarr" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    monkeypatch.setattr("napari_segany.api.load_model", lambda *_: BoxedIslands(100))
    out = tmp_path / "out.zarr"
    command = ["segany", "everything", str(tmp_path / "stack.zarr"), "-o", str(out), "--json"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="1 of 3 planes are damaged"):
        cli.main()
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["damaged"] == [1] and set(result["objects_per_plane"]) == {"0", "2"}
    assert "Plane 1 was left out: Frame 1 cannot be read" in printed.err
    monkeypatch.setattr("sys.argv", command[:3])
    with pytest.raises(SystemExit, match="give --output"):
        cli.main()


class Slow:
    """A stack whose planes say when somebody begins to read them."""

    def __init__(self, *extents: int) -> None:
        self.shape, self.dtype, self.ndim = (*extents, 48, 48), np.dtype(np.uint8), len(extents) + 2
        self.begun = [Event() for _ in range(extents[-1])]

    def __getitem__(self, index) -> np.ndarray:  # type: ignore[no-untyped-def]
        self.begun[index[-3]].set()
        plane = np.zeros((48, 48), np.uint8)
        plane[4:9, 5:10], plane[0, 0] = 200, index[-3] + 1
        return plane[index[-2:]]


class Waiting(Islands):
    """Goes on when the plane after the one it works on is being read."""

    def __init__(self, stack: Slow, step: int = 1) -> None:
        super().__init__()
        self.stack, self.step, self.order = stack, step, []

    def embed(self, image, intensity=None):  # type: ignore[no-untyped-def]
        self.order.append(int(image[0, 0]) - 1)
        later = self.order[-1] + self.step
        if len(self.order) > 1 and 0 <= later < len(self.stack.begun):
            assert self.stack.begun[later].wait(10), f"plane {later} is not read ahead"
        return super().embed(image, intensity)


RUNS = {
    "find": lambda stack, model, out: segany.label(stack, out, text="island", model=model),
    "everything": lambda stack, model, out: segany.label(stack, out, model=model),
    "propagate": lambda stack, model, out: list(prompted(stack, model, 0).propagate()),
    "backward": lambda stack, model, out: list(prompted(stack, model, 5).propagate()),
    "track": lambda stack, model, out: list(segany.Session(stack, model=model).track("island")),
    "volumes": lambda stack, model, out: list(segany.VolumeSession(stack, model, axes="tzyx").track("island")),
    "precompute": lambda stack, model, out: [model.embed(plane) for plane in open_frames(stack)],
}


def prompted(stack: Slow, model: Waiting, frame: int) -> segany.Session:
    session = segany.Session(stack, model=model)
    session.prompt(1, frame, box=(4, 5, 9, 10))
    return session


@pytest.mark.parametrize("what", RUNS)
def test_the_next_plane_is_read_while_the_model_works(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_segany.io.frames.Frames.intensity", RANGE)
    stack = Slow(*((1, 6) if what == "volumes" else (6,)))
    model = Waiting(stack, -1 if what == "backward" else 1)
    RUNS[what](stack, model, tmp_path / "out.zarr")
    assert model.order == (list(range(5, -1, -1)) if what == "backward" else list(range(6)))


def test_tiles_are_encoded_once_for_all_searches(tmp_path: Path) -> None:
    image = segany.samples.image("nuclei", seed=1)[0][:128, :96]
    model = segany.load_model("nano", device="cpu", dtype="bfloat16")
    encoded: list[object] = []
    model.network.encoder.register_forward_hook(lambda *_: encoded.append(1))
    settings, folder = FindSettings(tile=96, tile_overlap=32), tmp_path / "e"
    lower = replace(settings, threshold=0.2)
    fresh = segany.find(image, text="object", model=model, settings=lower)
    once = len(encoded)
    assert len(segany.find(image, text="nucleus", model=model, settings=settings, embeddings=folder)) > 1
    assert len(encoded) == 2 * once >= 4
    again = segany.find(image, text="object", model=model, settings=lower, embeddings=folder)
    assert len(encoded) == 2 * once, "another word and another threshold need no encoder"
    np.testing.assert_array_equal(again.labels, fresh.labels)
    np.testing.assert_allclose(again.scores, fresh.scores, rtol=1e-5)
    # A plane of a stack is seen with the intensities of the stack: so is the same plane in a session.
    segany.label(image[None], tmp_path / "out.zarr", text="nucleus", model=model, settings=settings, embeddings=folder)
    many = len(encoded)
    session = segany.Session(image[None], model=model, embeddings=folder)
    assert len(session.find("object", settings=lower)) == pytest.approx(len(fresh), abs=2)
    assert len(encoded) == many
    whole = segany.everything(image, model, embeddings=folder)
    assert len(encoded) > many
    many = len(encoded)
    np.testing.assert_array_equal(segany.everything(image, model, embeddings=folder).labels, whole.labels)
    assert len(encoded) == many
    np.testing.assert_array_equal(segany.everything(image, model).labels, whole.labels)
    # What was kept of nothing is nothing.
    for _ in range(2):
        assert len(segany.everything(np.zeros((64, 64), np.uint8), model, intensity=RANGE, embeddings=folder)) == 0
