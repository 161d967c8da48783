"""Model files: every layout loads strictly, every bad file gets one sentence."""

import argparse
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_segany.core.errors import CheckpointError, UnknownModelError, UnsupportedError
from napari_segany.models import registry
from napari_segany.models.device import resolve_device, resolve_dtype
from napari_segany.models.sam import layouts
from napari_segany.models.sam.network import build_sam

SMALL = {"vit_x": (96, 2, 3, (1,))}


@pytest.fixture(autouse=True)
def small_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size of SAM that is quick to write and read."""
    monkeypatch.setattr("napari_segany.models.sam.network.VIT_SIZES", SMALL)
    monkeypatch.setattr(layouts, "VIT_SIZES", SMALL)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_segany.models.sam.network.VIT_SIZES", SMALL)
        torch.manual_seed(0)
        return build_sam("vit_x").state_dict()


def to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `from_transformers`, found by asking it for the name of every key that transformers has."""
    from transformers import SamConfig, SamModel, SamVisionConfig

    vision = SamVisionConfig(hidden_size=96, num_hidden_layers=2, num_attention_heads=3, global_attn_indexes=[1])
    with torch.device("meta"):
        names = list(SamModel(SamConfig(vision_config=vision.to_dict())).state_dict())
    renamed = {}
    for name in names:
        (ours,) = layouts.from_transformers({name: torch.zeros(0)})
        renamed[name] = state[ours].clone()
    return renamed


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


LAYOUTS = {
    "published .pth": lambda s, d: save(s, d / "m.pth"),
    "wrapped by micro-sam": lambda s, d: save(
        {"model_state": {f"sam.{k}": v for k, v in s.items()}, "epoch": 3, "optimizer_state": {}}, d / "m.pt"
    ),
    "micro-sam with decoder": lambda s, d: save({"model_state": s, "decoder_state": {"x": torch.zeros(2)}}, d / "m.pt"),
    "published .safetensors": lambda s, d: save_file(s, d / "m.safetensors") or d / "m.safetensors",
    "transformers file": lambda s, d: save_file(to_transformers(s), d / "h.safetensors") or d / "h.safetensors",
    "transformers folder": lambda s, d: save_file(to_transformers(s), d / "model.safetensors") or d,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_network(layout: str, state: dict, tmp_path: Path) -> None:
    path = LAYOUTS[layout](state, tmp_path)
    model = registry.load_model(path, device="cpu", dtype="float32")
    assert model.family == "sam"
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_a_sharded_folder(state: dict, tmp_path: Path) -> None:
    names = sorted(state)
    parts = {"a.safetensors": names[:50], "b.safetensors": names[50:]}
    for part, keys in parts.items():
        save_file({key: state[key] for key in keys}, tmp_path / part)
    weight_map = {key: part for part, keys in parts.items() for key in keys}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert registry.load_model(tmp_path, device="cpu").family == "sam"
    weight_map[names[0]] = "../a.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="not trusted"):
        registry.load_model(tmp_path)


def test_mobile_sam_is_recognised(tmp_path: Path) -> None:
    path = save(build_sam("vit_t").state_dict(), tmp_path / "mobile_sam.pt")
    model = registry.load_model(path, device="cpu", dtype="float32")
    assert model.family == "mobile-sam" and model.name == "mobile_sam"


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/segany-was-here",)


def deflated(state: dict, path: Path) -> Path:
    save(state, path.with_suffix(".stored"))
    with zipfile.ZipFile(path.with_suffix(".stored")) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    return path


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def changed(state: dict, path: Path, **changes: torch.Tensor | None) -> Path:
    new = {**state, **{name.replace("__", "."): value for name, value in changes.items()}}
    return save({name: value for name, value in new.items() if value is not None}, path)


KEY = "mask_decoder__iou_token__weight"
BAD = {
    "missing": (lambda s, d: d / "none.pt", "no model file"),
    "empty": (lambda s, d: written(d / "m.pt", b""), "is empty"),
    "web page": (lambda s, d: written(d / "m.pt", b"<!DOCTYPE html><html>401"), "begins with b'<!DOCTYPE"),
    "another kind": (lambda s, d: written(d / "m.h5", b"\x89HDF"), "not a model file"),
    "pickle that runs code": (lambda s, d: written(d / "m.pt", pickle.dumps(Evil())), "is not loaded|would run"),
    "archive that runs code": (lambda s, d: save({"x": Evil()}, d / "m.pt"), "would run posix.system|would run"),
    "training arguments": (lambda s, d: save({"a": argparse.Namespace(lr=1)}, d / "m.pt"), "argparse.Namespace"),
    "cut archive": (lambda s, d: truncated(save(s, d / "m.pt")), "cut off"),
    "cut safetensors": (lambda s, d: truncated(save_file(s, d / "m.safetensors") or d / "m.safetensors"), "cut off"),
    "huge header": (lambda s, d: written(d / "m.safetensors", (2**62).to_bytes(8, "little") + b"{}"), "damaged"),
    "deflated": (lambda s, d: deflated(s, d / "m.pt"), "compressed entries"),
    "no tensors": (lambda s, d: save({"a": 3}, d / "m.pt"), "no tensor"),
    "a list": (lambda s, d: save([torch.zeros(3)], d / "m.pt"), "holds no weights"),
    "unknown family": (lambda s, d: save({"conv.weight": torch.zeros(3)}, d / "m.pt"), "unknown kind.*conv.weight"),
    "missing key": (lambda s, d: changed(s, d / "m.pt", prompt_encoder__no_mask_embed__weight=None), "1 missing"),
    "extra key": (
        lambda s, d: changed(s, d / "m.pt", mask_decoder__more=torch.zeros(2)),
        "1 not known: mask_decoder.more",
    ),
    "other shape": (lambda s, d: changed(s, d / "m.pt", **{KEY: torch.zeros(1, 7)}), r"shape \(1, 7\)"),
    "absurd shape": (
        lambda s, d: changed(s, d / "m.pt", **{KEY: torch.zeros(1).as_strided((10**6, 10**6), (0, 0))}),
        r"shape \(1000000, 1000000\)",
    ),
    "not a number": (lambda s, d: changed(s, d / "m.pt", **{KEY: torch.full((1, 256), torch.nan)}), "not finite"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused_in_one_sentence(kind: str, state: dict, tmp_path: Path) -> None:
    make, words = BAD[kind]
    path = make(state, tmp_path)
    with pytest.raises(CheckpointError, match=words) as caught:
        registry.load_model(path)
    assert "\n" not in str(caught.value) and "weights_only=False" not in str(caught.value)
    assert not Path("/tmp/segany-was-here").exists()


def test_registered_models_that_are_not_here_say_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path))
    with pytest.raises(UnknownModelError, match=r"get them from https://.*sam-vit-b.pth"):
        registry.load_model("sam-vit-b")
    with pytest.raises(UnknownModelError, match="registered models are nano"):
        registry.load_model("sam-vit-q")
    assert not any(info.installed for info in registry.list_models() if info.name != "nano")


def test_a_registered_model_is_found_in_the_cache(state: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    save(state, tmp_path / "models" / "sam-vit-b.pth")
    assert registry.load_model("sam-vit-b", device="cpu").name == "sam-vit-b"
    assert next(info for info in registry.list_models() if info.name == "sam-vit-b").installed


def test_devices_and_precisions() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_dtype("float32", torch.device("cpu")) is torch.float32
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    for name in ("tpu", "cuda:99", "xyz"):
        with pytest.raises(UnsupportedError):
            resolve_device(name)
    with pytest.raises(UnsupportedError, match="CPU does not"):
        resolve_dtype("float16", torch.device("cpu"))
    with pytest.raises(UnsupportedError, match="no precision"):
        resolve_dtype("int4", torch.device("cpu"))
