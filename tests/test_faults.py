"""Those of the faults in docs/reliability.md that have no test beside the part they belong to."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import napari_segany as segany
from napari_segany import api
from napari_segany.io.frames import open_frames
from tests.fakes import DiscModel, disc

SHAPE = (5, 40, 50)


def worked_on(path: Path) -> api.Session:
    session = api.Session(np.zeros(SHAPE, np.uint8), model=DiscModel(), labels=path)
    session.accept(1, 2, mask=disc(SHAPE[1:], (20, 25), 8))
    list(session.propagate())
    return session


def test_labels_that_are_gone_are_told_from_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "work.zarr"
    session = worked_on(path)
    session.accept(1, 4, mask=np.zeros(SHAPE[1:], bool))
    assert not session.labels[4].any(), "empty, and rightly so"
    session.close()
    shutil.rmtree(path / "labels" / "segany" / "0" / "c" / "1")
    with pytest.warns(UserWarning, match=r"The labels of frame 1 in .* are gone; accept or propagate"):
        again = api.Session.open(path, stack=np.zeros(SHAPE, np.uint8), model=DiscModel())
    list(again.propagate(resume=True))
    assert (again.labels[1] == 1).any(), "what is missing is done again"
    again.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        api.Session.open(path, stack=np.zeros(SHAPE, np.uint8), model=DiscModel()).close()


def test_a_damaged_plane_is_named_and_the_others_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "work.zarr"
    session = worked_on(path)
    before = np.array(session.labels)
    session.close()
    (path / "labels" / "segany" / "0" / "c" / "3" / "0" / "0").write_bytes(b"not a shard")
    again = api.Session.open(path, stack=np.zeros(SHAPE, np.uint8), model=DiscModel())
    for frame in (0, 1, 2, 4):
        np.testing.assert_array_equal(again.labels[frame], before[frame])
    with pytest.raises(OSError, match=r"Frame 3 of the labels .* is damaged .* remove .*3 to begin it anew"):
        again.store.read(3)
    again.store.write(3, before[3])
    np.testing.assert_array_equal(np.array(again.labels), before)
    again.close()


@pytest.mark.parametrize("value", [np.nan, -np.inf, 7.0])
def test_images_without_contrast_run_and_say_so(value: float) -> None:
    image = np.full((40, 48), value, np.float32)
    with pytest.warns(UserWarning, match="no contrast"):
        found = segany.everything(image)
    assert len(found) == 0
    with pytest.warns(UserWarning, match="no contrast"):
        assert open_frames(image).intensity.low == open_frames(image).intensity.high
    with pytest.warns(UserWarning, match="no contrast"):
        assert segany.segment(image, points=[(20, 30)]).best.shape == image.shape
