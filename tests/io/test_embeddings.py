"""Embeddings on disk: found again, made again when damaged, never more than the limit."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_segany as segany
from napari_segany.api import kept_embeddings
from napari_segany.core.errors import StorageError
from napari_segany.core.intensity import IntensityRange
from napari_segany.io.embeddings import EmbeddingStore
from tests.fakes import DiscEmbedding, DiscModel

RANGE = IntensityRange((0.0,), (255.0,))


class Noted(DiscModel):
    """A model whose embedding is the image itself; counts what it encodes."""

    def __init__(self, fingerprint: str = "1") -> None:
        super().__init__("noted")
        self.fingerprint = fingerprint

    def pack(self, embedding) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {"a": np.ones((1, 3), np.float16), "b": rng.random((50, 100)).astype(np.float16)}

    def unpack(self, arrays, image, intensity=None) -> DiscEmbedding:
        assert arrays["a"].shape == (1, 3) and arrays["b"].shape == (50, 100)
        np.testing.assert_array_equal(arrays["b"], self.pack(None)["b"])
        return DiscEmbedding(image.shape[:2], self.name)


def images(count: int) -> list[np.ndarray]:
    return [np.full((20, 30), i, dtype=np.uint8) for i in range(count)]


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.is_dir())


def test_an_image_is_encoded_once_whoever_asks(tmp_path: Path) -> None:
    model = Noted()
    for _ in range(2):
        store = EmbeddingStore(tmp_path / "e")
        for image in images(3):
            assert store.embed(model, image, RANGE).image_shape == (20, 30)
    assert len(model.embedded) == 3
    # A copy of an image is the same image, whatever its place in memory.
    EmbeddingStore(tmp_path / "e").embed(model, np.asfortranarray(images(3)[2]), RANGE)
    assert len(model.embedded) == 3


def test_what_would_be_encoded_differently_is_encoded_again(tmp_path: Path) -> None:
    store, image = EmbeddingStore(tmp_path), images(2)[1]
    for model, shown, intensity in (
        (Noted(), image, RANGE),
        (Noted("2"), image, RANGE),
        (Noted(), image, IntensityRange((0.0,), (9.0,))),
        (Noted(), image.astype(np.int16), RANGE),
        (Noted(), image.reshape(30, 20), RANGE),
    ):
        store.embed(model, shown, intensity)
        assert len(model.embedded) == 1
    assert len(entries(tmp_path)) == 5


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_embedding_is_made_again(tmp_path: Path, damage: str) -> None:
    model, (image,) = Noted(), images(1)
    EmbeddingStore(tmp_path).embed(model, image, RANGE)
    (entry,) = entries(tmp_path)
    (chunk,) = [file for file in (entry / "c").rglob("*") if file.is_file()]
    data = bytearray(chunk.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 4
        chunk.write_bytes(data)
    elif damage == "cut":
        chunk.write_bytes(data[: len(data) // 2])
    else:
        (entry / "zarr.json").unlink()
    for _ in range(2):
        EmbeddingStore(tmp_path).embed(model, image, RANGE)
    assert len(model.embedded) == 2


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    model = Noted()
    one = EmbeddingStore(tmp_path / "one")
    one.embed(model, images(1)[0], RANGE)
    store = EmbeddingStore(tmp_path / "many", limit=int(4.5 * one.used))
    for number, image in enumerate(images(4)):
        store.embed(model, image, RANGE)
        newest = max(entries(tmp_path / "many"), key=lambda path: (path / "zarr.json").stat().st_mtime_ns)
        os.utime(newest / "zarr.json", (number, number))
    # The first is used again, so that the second is the oldest.
    store.embed(model, images(1)[0], RANGE)
    count = len(model.embedded)
    store.embed(model, np.full((20, 30), 77, np.uint8), RANGE)
    assert store.used <= store.limit and len(entries(tmp_path / "many")) == 4
    store.embed(model, images(1)[0], RANGE)
    assert len(model.embedded) == count + 1
    store.embed(model, images(2)[1], RANGE)
    assert len(model.embedded) == count + 2


def test_what_a_killed_process_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path).embed(Noted(), images(1)[0], RANGE)
    (entry,) = entries(tmp_path)
    for name, age in (("young", 10), ("old", 7200)):
        part = entry.with_name(f"{name}.partial")
        part.mkdir()
        os.utime(part, (time.time() - age,) * 2)
    EmbeddingStore(tmp_path)
    assert {path.name for path in entries(tmp_path)} == {entry.name, "young.partial"}


def test_models_that_cannot_be_kept_encode_each_time(tmp_path: Path) -> None:
    model, store = DiscModel(), EmbeddingStore(tmp_path)
    store.embed(model, images(1)[0])
    store.embed(model, images(1)[0])
    assert len(model.embedded) == 2
    with pytest.raises(StorageError, match="cannot be kept"):
        store.precompute(model, images(1)[0])


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="not a folder of embeddings"):
        EmbeddingStore(tmp_path)
    with pytest.raises(StorageError, match="not a folder of embeddings"):
        EmbeddingStore(tmp_path / "notes.txt")
    with pytest.raises(StorageError, match="cannot be used"):
        EmbeddingStore(tmp_path / ("x" * 300))


def test_a_full_disk_is_said_once_and_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, model = EmbeddingStore(tmp_path), Noted()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zarr.create_array", full)
    with pytest.warns(UserWarning, match=r"No space left on device.* not kept from now on") as told:
        for image in images(2):
            assert store.embed(model, image, RANGE).image_shape == (20, 30)
    assert len(told) == 1
    with pytest.raises(StorageError, match="No space left"):
        store.precompute(model, images(3)[2], RANGE)
    assert not entries(tmp_path)


def test_a_session_encodes_no_plane_twice(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (4, 20, 30), dtype=np.uint8)
    model = Noted()
    for _ in range(2):
        session = segany.Session(stack, model=model, embeddings=tmp_path)
        session.prompt(1, 1, points=[(10, 10)])
        assert len(list(session.propagate())) >= 4
        session.close()
    assert len(model.embedded) == 4


def test_precompute_goes_on_after_a_kill(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (8, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "stack.npy", stack)
    code = (
        "import numpy as np, napari_segany as segany; from tests.io.test_embeddings import Noted; "
        f"model = Noted(); model.delay = 0.3; root = {str(tmp_path)!r}; "
        "segany.precompute(np.load(root + '/stack.npy'), root + '/e', model)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    while killed.poll() is None and len(list((tmp_path / "e").glob("*/*/c"))) < 3:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    kept = len([path for path in entries(tmp_path / "e") if not path.name.endswith(".partial")])
    assert 0 < kept < 8
    model = Noted()
    assert segany.precompute(stack, tmp_path / "e", model) == len(model.embedded) == 8 - kept
    assert segany.precompute(stack, tmp_path / "e", model) == 0


def test_a_stack_that_does_not_fit_is_refused_before_it_evicts_itself(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (9, 20, 30), dtype=np.uint8)
    model = Noted()
    with pytest.raises(StorageError, match=r"9 planes take .* raise it"):
        segany.precompute(stack, tmp_path, model, limit=20_000)
    assert len(model.embedded) == 1


def test_a_cache_folder_that_cannot_be_used_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path))
    kept: Any = kept_embeddings(0.5)
    assert (kept.folder, kept.limit) == (tmp_path / "embeddings", 500_000_000)
    monkeypatch.setenv("SEGANY_CACHE", str(tmp_path / "embeddings" / "zarr.json"))
    with pytest.warns(UserWarning, match="Embeddings are not kept"):
        assert kept_embeddings(0.5) is None
