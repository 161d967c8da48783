"""The main job from end to end: one click, one mask, carried through a stack, written as OME-Zarr, shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_segany import api, samples
from napari_segany.core.errors import StorageError, UnsupportedError
from napari_segany.core.instances import Instances
from napari_segany.core.masks import interior_point
from napari_segany.core.settings import EverythingSettings

#: A coarse look for something to click on; every answer counts, the surest is taken.
LOOK_AROUND = EverythingSettings(points_per_side=8, score_threshold=0.0, stability_threshold=0.0, max_share=0.2)


@dataclass(frozen=True)
class DemoResult:
    """Where the demo left its results.

    Attributes
    ----------
    folder, image, labels : Path
    frames : int
        Frames on which the object was found.
    score : float
        Mean predicted IoU over them.
    """

    folder: Path
    image: Path
    labels: Path
    frames: int
    score: float


def run(
    image: Path | None,
    folder: Path,
    start: Sequence[float] | None = None,
    model: str = api.DEFAULT_MODEL,
    progress: Callable[[int, int], None] | None = None,
) -> DemoResult:
    """Click one object of a stack and carry it through.

    Parameters
    ----------
    image : Path or None
        A stack; generated nuclei when there is none, saved in `folder`.
    folder : Path
        Where results go; a result of an earlier demo there is replaced.
    start : (frame, y, x), optional
        Where to click; on the surest object of the middle frame by default.
    """
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error
    if image is None:
        image = folder / "nuclei.tif"
        _save_tiff(image, samples.stack("nuclei-3d")[0])
    network = api.load_model(model)
    session = api.Session(image.resolve(), model=network, labels=_fresh(folder / "labels.zarr"))
    try:
        frame, *point = start if start is not None else _somewhere(session)
        session.prompt(1, int(frame), points=[point])
        for done, _ in enumerate(session.propagate(), start=1):
            if progress is not None:
                progress(done, len(session.frames))
        session.save(folder / "labels.zarr")
    finally:
        session.close()
    (track,) = session.tracks
    score = round(float(np.mean(list(track.scores.values()))), 3)
    return DemoResult(folder, image.resolve(), folder / "labels.zarr", len(track.scores), score)


def _somewhere(session: api.Session) -> tuple[int, int, int]:
    """A click (frame, y, x) on the surest object of the middle frame."""
    frame = len(session.frames) // 2
    found = api.everything(session.embedding(frame), session.model, LOOK_AROUND)
    if not len(found):
        raise UnsupportedError("No object was found to click on; give its place with --point frame,y,x.")
    y, x = interior_point(found.mask(_surest(found)))
    return frame, y, x


def _surest(found: Instances) -> int:
    """The best object of middling size, for a demo should show more than a speck."""
    areas = np.array([patch.sum() for patch in found.patches])
    return int(np.argmax(found.scores * (areas >= np.median(areas))))


def _fresh(labels: Path) -> Path:
    """Remove the labels of an earlier demo, and nothing else."""
    import shutil

    if (labels / "segany").exists():
        shutil.rmtree(labels)
    return labels


def _save_tiff(path: Path, stack: np.ndarray) -> None:
    from tifffile import imwrite

    imwrite(path, stack, metadata={"axes": "ZYX"})


def show(result: DemoResult, screenshot: Path) -> int:
    """Open napari on a result; return the exit code.

    Where there is no display, a virtual screen is used, only for the screenshot.
    """
    command: list[Any] = [sys.executable, "-m", "napari_segany.gui.show", result.image, result.labels, screenshot]
    screens = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not screens:
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1200x24", *command, "--quit"]
    try:
        return subprocess.run(list(map(str, command)), check=False).returncode
    except FileNotFoundError:
        print("There is no display and no xvfb-run; install xvfb for a screenshot.", file=sys.stderr)
        return 1
