"""A stack and labels without files, so that the session is tested without zarr."""

import numpy as np
import pytest

from napari_segany.core.intensity import IntensityRange
from napari_segany.session.propagating_session import PropagatingSession as Session
from tests.fakes import DiscModel


class ArrayFrames:
    """A stack in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.intensity = IntensityRange((0.0,), (255.0,))

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, frame: int) -> np.ndarray:
        return self.array[frame]

    def plane(self, frame: int) -> np.ndarray:
        return self.array[frame]


class ArrayLabels:
    """Labels in memory that count how often each frame is written."""

    def __init__(self, shape: tuple[int, int, int], dtype: type = np.int32) -> None:
        self.data = np.zeros(shape, dtype=dtype)
        self.shape, self.dtype = shape, self.data.dtype
        self.writes: list[int] = []

    def read(self, frame: int) -> np.ndarray:
        return self.data[frame].copy()

    def write(self, frame: int, labels: np.ndarray) -> None:
        self.data[frame] = labels
        self.writes.append(frame)

    def array(self) -> np.ndarray:
        return self.data


@pytest.fixture
def events() -> list[dict]:
    return []


@pytest.fixture
def session(events: list[dict]) -> Session:
    """Six empty frames of 40 x 50 and a model that draws discs."""
    frames = ArrayFrames(np.zeros((6, 40, 50), dtype=np.uint8))
    return Session(frames, DiscModel(), ArrayLabels((6, 40, 50)), record=events.extend)
