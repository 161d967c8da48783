"""Embeddings on disk, found again by what was encoded and by what."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np

from napari_segany.core.errors import StorageError
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.paths import exists
from napari_segany.core.protocols import Embedding, ImageModel, StorableModel, SurveyingModel

#: Bytes kept unless another limit is chosen.
LIMIT = 50_000_000_000
#: Share of the limit that is left after making room, so that this is not needed with every embedding.
LEFT = 0.9
#: Values in a chunk; all chunks of an embedding are one shard.
CHUNK = 1 << 19
#: What is half written after so many seconds was left by a process that died.
STALE = 3600.0


class EmbeddingStore:
    """Embeddings in a folder; implements `core.protocols.EmbeddingCache`.

    Each is one zarr array (v3) of float16 in one shard, compressed and with a
    checksum, under a group for its model. Its name is a hash of the image's
    pixels, of the intensities it was encoded with, and of the model's
    weights, so a copy of an image finds it and a retrained model does not.
    Several processes may use one folder: an embedding appears whole or not
    at all.

    Parameters
    ----------
    folder : str or Path
        Created when it is not there.
    limit : int
        Bytes to keep; beyond, what was not used for longest goes.

    Raises
    ------
    StorageError
        The folder holds something else, or cannot be written.
    """

    def __init__(self, folder: str | Path, limit: int = LIMIT) -> None:
        import zarr

        self.folder, self.limit = Path(folder), limit
        if exists(self.folder) and not (
            self.folder.is_dir() and (exists(self.folder / "zarr.json") or not any(self.folder.iterdir()))
        ):
            raise StorageError(f"{self.folder} is not a folder of embeddings; choose an empty or a new one.")
        try:
            zarr.open_group(self.folder, mode="a", zarr_format=3)
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.folder} cannot be used for embeddings: {error}.") from error
        self._lock, self._full = Lock(), False
        self._sweep()
        self.used = sum(size for _, size, _ in self._entries())

    def embed(self, model: ImageModel, image: np.ndarray, intensity: IntensityRange | None = None) -> Embedding:
        """The embedding of an image, kept from before or made now; see `EmbeddingCache.embed`.

        Models that are not a `StorableModel` encode each time. When the disk
        is full, a warning says so once, and the work goes on.
        """
        return self._kept(model, image, intensity, False)

    def surveyed(self, model: ImageModel, image: np.ndarray, intensity: IntensityRange | None = None) -> Embedding:
        """The same for an image that is searched, as tiles are; see `EmbeddingCache.surveyed`.

        Of a model that finds objects by what it makes of the embedding first,
        this is kept too, as an embedding of its own.
        """
        return self._kept(model, image, intensity, isinstance(model, SurveyingModel))

    def _kept(self, model: ImageModel, image: np.ndarray, intensity: IntensityRange | None, survey: bool) -> Embedding:
        if not isinstance(model, StorableModel):
            return model.embed(image, intensity)
        path = self._path(model, image, intensity, survey)
        kept = _read(path)
        if kept is not None:
            return model.unpack(kept, image, intensity)
        made = model.embed(image, intensity)
        if survey and isinstance(model, SurveyingModel):
            model.survey(made)
        try:
            self._write(path, model.pack(made))
        except StorageError as error:
            if not self._full:
                warnings.warn(f"{error} Embeddings are not kept from now on.", stacklevel=2)
            self._full = True
        return made

    def precompute(self, model: ImageModel, image: np.ndarray, intensity: IntensityRange | None = None) -> bool:
        """Make sure that the embedding of an image is there; whether it had to be made.

        Raises
        ------
        StorageError
            It cannot be written, or the model's embeddings cannot be kept.
        """
        if not isinstance(model, StorableModel):
            raise StorageError(f"The embeddings of {getattr(model, 'name', model)} cannot be kept on disk.")
        path = self._path(model, image, intensity)
        if (path / "zarr.json").exists():
            os.utime(path / "zarr.json")
            return False
        self._write(path, model.pack(model.embed(image, intensity)))
        return True

    def _path(
        self, model: StorableModel, image: np.ndarray, intensity: IntensityRange | None, survey: bool = False
    ) -> Path:
        digest = hashlib.sha256(f"{image.shape}{image.dtype.str}{intensity}{'survey' * survey}".encode())
        digest.update(np.ascontiguousarray(image).data)
        name = re.sub(r"[^\w.-]", "_", str(getattr(model, "name", "model")))
        return self.folder / f"{name}-{model.fingerprint}" / digest.hexdigest()[:32]

    def _write(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        import zarr
        from zarr.codecs import ZstdCodec

        values = np.concatenate([array.astype(np.float16, copy=False).ravel() for array in arrays.values()])
        chunk = min(CHUNK, len(values))
        part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
        try:
            zarr.open_group(path.parent, mode="a", zarr_format=3)
            stored = zarr.create_array(
                part,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(chunk,),
                shards=(-(-len(values) // chunk) * chunk,),
                compressors=ZstdCodec(level=1, checksum=True),
                attributes={"parts": [[name, list(array.shape)] for name, array in arrays.items()]},
            )
            stored[:] = values
            size = _size(part)
            if not (path / "zarr.json").exists():
                # What is left of a damaged one.
                shutil.rmtree(path, ignore_errors=True)
            try:
                part.rename(path)
            except OSError:
                # Another process was faster.
                if not (path / "zarr.json").exists():
                    raise
                shutil.rmtree(part)
                return
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise StorageError(f"An embedding cannot be kept in {self.folder}: {error.strerror or error}.") from error
        with self._lock:
            self.used += size
            if self.used > self.limit:
                self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        """Remove what was used longest ago; other processes may have added and removed meanwhile."""
        entries = sorted(self._entries())
        self.used = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self.used <= LEFT * self.limit:
                break
            if path != newest:
                shutil.rmtree(path, ignore_errors=True)
                self.used -= size

    def _entries(self) -> list[tuple[float, int, Path]]:
        """When each embedding was last used, its bytes and its folder."""
        found = []
        for path in self.folder.glob("*/*"):
            if path.is_dir() and not path.name.endswith(".partial"):
                with suppress(OSError):
                    found.append(((path / "zarr.json").stat().st_mtime, _size(path), path))
        return found

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        for part in self.folder.glob("*/*.partial"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > STALE:
                    shutil.rmtree(part, ignore_errors=True)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays of an embedding; None when it is not there or damaged, and a damaged one goes."""
    import zarr

    if not (path / "zarr.json").exists():
        return None
    try:
        stored: Any = zarr.open_array(path, mode="r")
        values = np.asarray(stored[:])
        os.utime(path / "zarr.json")
        arrays, start = {}, 0
        for name, shape in stored.attrs["parts"]:
            count = int(np.prod(shape))
            arrays[str(name)] = values[start : start + count].reshape(shape)
            start += count
    except Exception:
        # It can be made again, whatever happened to it.
        shutil.rmtree(path, ignore_errors=True)
        return None
    return arrays


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
