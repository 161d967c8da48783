"""A model that workers load by name without a network, and workers that have it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from distributed import WorkerPlugin

from napari_segany.core.errors import UnknownModelError
from tests.fakes import DiscModel
from tests.session.test_tiling import BoxedIslands


class Slow(BoxedIslands):
    """Takes a while for each tile, and leaves a note of it."""

    def __init__(self, delay: float) -> None:
        super().__init__(40)
        self.pause = delay

    def embed(self, image, intensity=None):
        time.sleep(self.pause)
        return super().embed(image, intensity)


class Fainting(BoxedIslands):
    """Brings its worker down, always, or once when there is a note of that."""

    def __init__(self, note: Path | None = None) -> None:
        super().__init__(40)
        self.note = note

    def embed(self, image, intensity=None):
        if self.note is None or not self.note.exists():
            if self.note is not None:
                self.note.touch()
            os._exit(9)
        return super().embed(image, intensity)


class Kept(DiscModel):
    """Its embeddings can be kept."""

    fingerprint = "kept"

    def pack(self, embedding):
        return {"a": np.ones(3, np.float16)}

    def unpack(self, arrays, image, intensity=None):
        return super().embed(image, intensity)


def load(name, device="auto", dtype="auto"):
    """What `registry.load_model` is on these workers."""
    kind, _, argument = str(name).partition(":")
    if kind == "slow":
        return Slow(float(argument))
    if kind == "faint":
        return Fainting(Path(argument) if argument else None)
    if kind == "disc":
        return DiscModel(delay=float(argument or 0))
    if kind == "kept":
        return Kept()
    raise UnknownModelError(f'There is no model or file "{name}".')


class FakeModels(WorkerPlugin):
    """Every worker, those that are restarted too, loads these models."""

    name = "fake-models"

    def setup(self, worker) -> None:
        from napari_segany.models import registry

        registry.load_model = load
