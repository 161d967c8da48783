"""Files made to do harm: each is refused in one sentence, before anything in it is run, unpacked or written."""

import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from safetensors.torch import save_file
from skimage.io import imsave

import napari_segany as segany
from napari_segany import api
from napari_segany.core.errors import CheckpointError, InvalidImageError, SeganyError, StorageError
from napari_segany.io import frames as frames_module
from napari_segany.io.frames import open_frames
from napari_segany.io.labels import ZarrLabels, open_labels
from napari_segany.models import registry
from napari_segany.models.nano.network import Nano, NanoConfig
from napari_segany.models.nano.weights import save_weights
from tests.fakes import DiscModel, disc

WEIGHTS = {"mask_decoder.iou_token.weight": torch.ones(1, 4), "image_encoder.pos_embed": torch.zeros(1, 2, 2, 768)}


def archive(path: Path, change: Callable[[zipfile.ZipFile], None]) -> Path:
    """A checkpoint with more entries than its own."""
    torch.save(WEIGHTS, path)
    with zipfile.ZipFile(path, "a") as file:
        change(file)
    return path


def overlapping(path: Path) -> Path:
    """An archive whose entries are all the same bytes, so that it unpacks to far more than it holds."""
    torch.save({"x": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path, "a") as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
        for number in range(20):
            entry = zipfile.ZipInfo(f"{path.stem}/data/1{number:02}")
            for name in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(entry, name, getattr(largest, name))
            file.filelist.append(entry)
            file._didModify = True  # type: ignore[attr-defined]
    return path


def raw_safetensors(path: Path, header: dict, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def nano_file(path: Path, **metadata: str) -> Path:
    """A weight file of nano that says something else of itself."""
    from safetensors import safe_open

    save_weights(Nano(NanoConfig(8, (8, 8, 8, 8), (1, 1, 1, 1), 8, 8, 16, 1, 1)), path)
    with safe_open(path, framework="pt") as file:
        old, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if "spoil" in metadata:
        state[sorted(state)[3]].view(-1)[0] = float(metadata.pop("spoil"))
    save_file(state, path, metadata={**old, **metadata})
    return path


def folder_of(path: Path, weight_map: object) -> Path:
    path.mkdir()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


def config(**changes: object) -> str:
    from dataclasses import asdict

    return json.dumps({**asdict(NanoConfig()), **changes})


TENSOR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
MODELS = {
    "entry above its folder": lambda d: archive(d / "m.pt", lambda z: z.writestr("../../evil", "x")),
    "absolute entry": lambda d: archive(d / "m.pt", lambda z: z.writestr("/tmp/segany-evil", "x")),
    "entries that overlap": lambda d: overlapping(d / "m.pt"),
    "absurd shape in a header": lambda d: raw_safetensors(
        d / "m.safetensors", {"a": {**TENSOR, "shape": [10**9, 10**9, 10**9]}}, bytes(16)
    ),
    "shape that wraps around": lambda d: raw_safetensors(
        d / "m.safetensors", {"a": {**TENSOR, "shape": [2**62, 4]}}, bytes(16)
    ),
    "bytes of no tensor": lambda d: raw_safetensors(d / "m.safetensors", {"a": TENSOR}, bytes(999)),
    "offsets outside the file": lambda d: raw_safetensors(
        d / "m.safetensors", {"a": {**TENSOR, "data_offsets": [2**40, 2**40 + 16]}}, bytes(16)
    ),
    "dtype of no numbers": lambda d: raw_safetensors(d / "m.safetensors", {"a": {**TENSOR, "dtype": "PY"}}, bytes(16)),
    "nano with weights that are no numbers": lambda d: nano_file(d / "m.safetensors", spoil="nan"),
    "nano with infinite weights": lambda d: nano_file(d / "m.safetensors", spoil="-inf"),
    "nano of a billion blocks": lambda d: nano_file(d / "m.safetensors", config=config(decoder_depth=10**9)),
    "nano of negative width": lambda d: nano_file(d / "m.safetensors", config=config(stem=-8)),
    "nano of half a channel": lambda d: nano_file(d / "m.safetensors", config=config(fine=0.5)),
    "nano of words": lambda d: nano_file(d / "m.safetensors", config='{"stem": "x"}'),
    "nano of nothing": lambda d: nano_file(d / "m.safetensors", config="null"),
    "nano of lists without end": lambda d: nano_file(d / "m.safetensors", config="[" * 99_999),
    "nano of a newer version": lambda d: nano_file(d / "m.safetensors", version="99"),
    "nano of another shape": lambda d: nano_file(d / "m.safetensors", config=config()),
    "sparse tensors": lambda d: torch.save({"a": torch.eye(3).to_sparse()}, d / "m.pt") or d / "m.pt",
    "tensors without numbers": lambda d: torch.save({"a": torch.zeros(3, device="meta")}, d / "m.pt") or d / "m.pt",
    "folder that points outside": lambda d: folder_of(d / "m", {"a": "../secret.safetensors"}),
    "folder that points anywhere": lambda d: folder_of(d / "m", {"a": "/etc/passwd"}),
    "folder that points at numbers": lambda d: folder_of(d / "m", {"a": 5, "b": None}),
    "folder of parts that are not there": lambda d: folder_of(d / "m", {"a": "part.safetensors"}),
    "name too long": lambda d: d / ("x" * 5000 + ".pt"),
    "name with a zero": lambda d: d / "a\0b.pt",
    "device": lambda d: Path("/dev/null"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models(kind: str, tmp_path: Path) -> None:
    before = set(tmp_path.parent.rglob("*"))
    path = MODELS[kind](tmp_path)
    with pytest.raises(CheckpointError) as caught:
        registry.load_model(path, "cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20
    assert not Path("/tmp/segany-evil").exists()
    assert set(tmp_path.parent.rglob("*")) - before <= {path, *(tmp_path / "m").glob("*")}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="not a model file"):
        registry.load_model(tmp_path / "m.pt")


def zarr_image(path: Path, **changes: object) -> Path:
    """An OME-Zarr image with other metadata."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", data=np.ones((3, 9, 11), np.uint8), chunks=(1, 9, 11))
    multiscale = {
        "axes": [{"name": name, "type": "space"} for name in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{**multiscale, **changes}]}
    return path


def zarr_json(path: Path, level: str = "0", **changes: object) -> Path:
    """An OME-Zarr image whose array claims to be something else."""
    zarr_image(path)
    file = path / level / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


def tiff(path: Path, shape: tuple[int, int]) -> Path:
    tifffile.imwrite(path, np.zeros(shape, np.uint8), compression="zlib")
    return path


IMAGES = {
    "level above its folder": lambda d: zarr_image(d / "a.zarr", datasets=[{"path": "../../secret"}]),
    "level anywhere": lambda d: zarr_image(d / "a.zarr", datasets=[{"path": "/etc"}]),
    "no levels": lambda d: zarr_image(d / "a.zarr", datasets=[]),
    "levels of another kind": lambda d: zarr_image(d / "a.zarr", datasets=7),
    "level without a path": lambda d: zarr_image(d / "a.zarr", datasets=[{}]),
    "level that is not there": lambda d: zarr_image(d / "a.zarr", datasets=[{"path": "9"}]),
    "axes of another kind": lambda d: zarr_image(d / "a.zarr", axes=5),
    "axes without names": lambda d: zarr_image(d / "a.zarr", axes=[{}, {}, {}]),
    "scale of words": lambda d: zarr_image(
        d / "a.zarr", coordinateTransformations=[{"type": "scale", "scale": ["a", "b", "c"]}]
    ),
    "absurd planes": lambda d: zarr_json(d / "a.zarr", shape=[10**9, 10**6, 10**6]),
    "negative shape": lambda d: zarr_json(d / "a.zarr", shape=[-1, 9, 11]),
    "text for numbers": lambda d: zarr_json(d / "a.zarr", data_type="string"),
    "codec that runs something": lambda d: zarr_json(d / "a.zarr", codecs=[{"name": "os.system", "configuration": {}}]),
    "no metadata": lambda d: (zarr_image(d / "a.zarr") / "zarr.json").write_text("[" * 99_999) and d / "a.zarr",
    "TIFF that unpacks to gigabytes": lambda d: tiff(d / "a.tif", (6000, 6000)),
    "name too long": lambda d: d / ("x" * 5000),
    "name with a zero": lambda d: d / "a\0b.tif",
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = IMAGES[kind](tmp_path)
    monkeypatch.setattr(frames_module, "free_memory", lambda: 100_000_000)
    with pytest.raises((StorageError, InvalidImageError)) as caught:
        open_frames(path)[0]
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20


def label_list(path: Path, names: object) -> Path:
    store = ZarrLabels(path, (2, 9, 11))
    store.close()
    group = zarr.open_group(path, mode="a")["labels"]
    group.attrs["ome"] = {"version": "0.5", "labels": names}
    return path


@pytest.mark.parametrize(
    "names", [["../../outside"], ["/etc"], [], 5, [None], [{}], ["segany/../../.."]], ids=lambda names: str(names)
)
def test_names_of_labels_in_a_file(names: object, tmp_path: Path) -> None:
    path = label_list(tmp_path / "inner" / "l.zarr", names)
    outside = ZarrLabels(tmp_path / "outside", (2, 9, 11))
    outside.close()
    (tmp_path / "outside" / "x.partial").write_text("not to be swept")
    with pytest.raises(SeganyError) as caught:
        open_labels(path)
    assert "\n" not in str(caught.value) and (tmp_path / "outside" / "x.partial").exists()


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_huge_ids_of_labels_are_kept_and_not_wrapped_around(dtype: type, tmp_path: Path) -> None:
    huge = int(np.iinfo(dtype).max)
    store = ZarrLabels(tmp_path / "l.zarr", (2, 9, 11), dtype)
    plane = np.zeros((9, 11), dtype)
    plane[2:5, 2:5] = huge
    store.write(0, plane)
    session = api.Session(np.zeros((2, 9, 11), np.uint8), model=DiscModel(), labels=store)
    session.accept(3, 0, mask=disc((9, 11), (4, 4), 3))
    assert (np.array(session.labels[0]) == huge).sum() == 9 and (np.array(session.labels[0]) == 3).any()
    with pytest.raises(SeganyError, match="does not fit"):
        session.accept(huge + 1, 0, mask=disc((9, 11), (4, 4), 3))
    store.finish()
    store.close()
    again = open_labels(tmp_path / "l.zarr")
    np.testing.assert_array_equal(again.read(0)[plane > 0], plane[plane > 0])
    again.close()
    narrow = api.Session(np.zeros((2, 9, 11), np.uint8), model=DiscModel(), labels=np.zeros((2, 9, 11), np.uint8))
    with pytest.raises(SeganyError, match="Object id 256 does not fit into labels of dtype uint8; use a wider dtype"):
        narrow.accept(256, 0, mask=disc((9, 11), (4, 4), 3))


@pytest.mark.parametrize(
    "name", ["Zellkörper 細胞 🔬", "with  two spaces ", "'quoted' \"twice\"", "x" * 200, "-dash", "%20"]
)
def test_names_of_any_language_are_fine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    stack = np.zeros((2, 20, 30), np.uint8)
    tifffile.imwrite(folder / f"{name}.tif", stack, metadata={"axes": "ZYX"})
    imsave(folder / f"{name}.png", stack[0], check_contrast=False)
    assert open_frames(folder / f"{name}.png").shape == (1, 20, 30)
    session = api.Session(folder / f"{name}.tif", model=DiscModel(), labels=folder / f"{name}.zarr")
    session.accept(1, 0, mask=disc((20, 30), (9, 9), 4))
    session.save(folder / f"{name}.zarr")
    session.close()
    again = api.Session.open(folder / f"{name}.zarr", model=DiscModel())
    assert again.accepted == {(1, 0): True} and (again.labels[0] == 1).any()
    again.close()
    monkeypatch.setenv("SEGANY_CACHE", str(folder))
    source = nano_file(folder / "n.safetensors")
    assert segany.import_model(source, name).name == name
    assert segany.load_model(name, "cpu").family == "nano"
