"""Tracks in the formats that tracking programs read: Cell Tracking Challenge folders and GEFF graphs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidLabelsError, StorageError, UnsupportedError
from napari_segany.core.lineage import Lineage, trace
from napari_segany.core.paths import exists
from napari_segany.core.state import Key
from napari_segany.io.label_checks import check_label_dtype
from napari_segany.io.labels import check_writable
from napari_segany.io.ngff import DEFAULT_NAME
from napari_segany.io.session_store import load_state
from napari_segany.io.sources import open_source
from napari_segany.io.volumes import read_parents

GEFF_SUFFIX = ".geff"
#: Labels of the Cell Tracking Challenge are 16 bits wide.
MOST_TRACKS = 2**16 - 1


@dataclass(frozen=True)
class TrackedLabels:
    """Labels whose objects keep their ids along the first axis, and what is known of them.

    Attributes
    ----------
    labels : integer array-like (T, [Z,] H, W)
        Read one frame at a time.
    parents : dict of (object id, frame) -> object id
        Of objects that come from another one by division.
    scores : dict of (object id, frame) -> float
    scale : size of a voxel along the axes; ones by default
    path : Path, optional
        Label image on disk.
    """

    labels: Any
    parents: Mapping[Key, int] = field(default_factory=dict)
    scores: Mapping[Key, float] = field(default_factory=dict)
    scale: Sequence[float] | None = None
    path: Path | None = None


def open_tracked(path: Path) -> TrackedLabels:
    """Open a saved session, or any label image on disk.

    Raises
    ------
    InvalidLabelsError
        The array holds no integers.
    StorageError
    """
    state = load_state(path) if exists(path / "segany" / "session.json") else None
    if exists(path / "labels" / DEFAULT_NAME):
        path = path / "labels" / DEFAULT_NAME
    source = open_source(path)
    check_label_dtype(np.dtype(source.array.dtype))
    scale = [source.scale.get(name, 1.0) for name in source.axes] if source.axes else None
    on_disk = path if path.is_dir() else None
    if state is None:
        parents = {} if on_disk is None else {(child, 0): parent for child, parent in read_parents(path).items()}
        return TrackedLabels(source.array, parents, scale=scale, path=on_disk)
    return TrackedLabels(source.array, state.parents, state.scores, scale, on_disk)


def write_tracks(tracked: TrackedLabels, output: Path) -> Lineage:
    """Write tracks as GEFF where the name ends with ".geff", else as a Cell Tracking Challenge folder.

    Raises
    ------
    InvalidLabelsError, StorageError, UnsupportedError
        See `write_ctc` and `write_geff`.
    """
    labels = tracked.labels
    if len(labels.shape) not in (3, 4):
        raise InvalidLabelsError(f"Tracks need labels (T, Y, X) or (T, Z, Y, X), got the shape {tuple(labels.shape)}.")
    lineage = trace((labels[time] for time in range(labels.shape[0])), tracked.parents)
    if not len(lineage.frames):
        raise InvalidLabelsError("There is nothing to export: the labels are empty.")
    if output.suffix == GEFF_SUFFIX:
        write_geff(output, lineage, tracked.scale or [1.0] * len(labels.shape), tracked.scores, tracked.path)
    else:
        write_ctc(output, (labels[time] for time in range(labels.shape[0])), lineage)
    return lineage


def write_ctc(folder: Path, frames: Iterable[np.ndarray], lineage: Lineage) -> None:
    """Write results as the Cell Tracking Challenge asks for them (Maška et al. 2023).

    A folder of ``mask000.tif``, ``mask001.tif``, ..., and ``res_track.txt``
    with a line "label first last parent" for each track. A track there has no
    missing frames and ends where it divides, so that an object may be several;
    where it goes on, the earlier one is the later one's parent.

    Parameters
    ----------
    folder : Path
        New, or empty.
    frames : integer arrays ([Z,] H, W)
    lineage : Lineage
        Of these labels.

    Raises
    ------
    InvalidLabelsError
        More tracks than 16 bits can number.
    StorageError
    """
    from tifffile import imwrite

    segments = lineage.segments
    names = np.unique(segments)
    if len(names) > MOST_TRACKS:
        raise InvalidLabelsError(
            f"The Cell Tracking Challenge's format holds {MOST_TRACKS} tracks and these are {len(names)}; "
            f"export to a name that ends with {GEFF_SUFFIX}."
        )
    if names.max(initial=0) > MOST_TRACKS:
        segments = np.searchsorted(names, segments) + 1
    table = _table(lineage, segments)

    def write(new: Path) -> None:
        nodes = np.searchsorted(lineage.frames, np.arange(lineage.frames.max(initial=-1) + 2))
        new.mkdir()
        for time, labels in enumerate(frames):
            here = slice(*nodes[time : time + 2]) if time + 1 < len(nodes) else slice(0, 0)
            imwrite(
                new / f"mask{time:03d}.tif",
                _relabelled(np.asarray(labels), lineage.object_ids[here], segments[here]),
                compression="zlib",
            )
        np.savetxt(new / "res_track.txt", table, fmt="%d")

    _write_folder(folder, write)


def _table(lineage: Lineage, segments: np.ndarray) -> np.ndarray:
    """Label, first frame, last frame and parent of each segment, (K, 4)."""
    names, first = np.unique(segments, return_index=True)
    last = len(segments) - 1 - np.unique(segments[::-1], return_index=True)[1]
    source = {int(later): int(earlier) for earlier, later in lineage.edges}
    parents = [int(segments[source[node]]) if node in source else 0 for node in first.tolist()]
    return np.stack([names, lineage.frames[first], lineage.frames[last], np.array(parents, dtype=np.int64)], axis=1)


def _relabelled(labels: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Labels with other numbers, uint16; `old` ascends."""
    known, numbers = np.concatenate([[0], old]), np.concatenate([[0], new]).astype(np.uint16)
    return numbers[np.searchsorted(known, labels)]


def write_geff(
    folder: Path,
    lineage: Lineage,
    scale: Sequence[float],
    scores: Mapping[Key, float],
    labels: Path | None,
) -> None:
    """Write the graph in the Graph Exchange File Format.

    Nodes have `t`, (`z`,) `y`, `x` in pixels, `seg_id`, `tracklet`, `lineage`
    and, where known, `score`.

    Parameters
    ----------
    folder : Path
        New, or empty.
    lineage : Lineage
    scale : size of a voxel along time and the axes of the centroids
    scores : dict of (object id, frame) -> float
    labels : Path, optional
        Label image that `seg_id` counts in.

    Raises
    ------
    UnsupportedError
        The package geff is not installed.
    StorageError
    """
    try:
        import geff
        from geff.core_io import write_arrays
        from geff_spec import Axis, RelatedObject
    except ImportError as error:
        raise UnsupportedError(
            "Tracks are written as GEFF by the package geff; install napari-segany[tracking]."
        ) from error
    names = ["t", *"zyx"[-lineage.centroids.shape[1] :]]
    axes = [
        Axis(name=name, type="time" if name == "t" else "space", scale=float(step))
        for name, step in zip(names, scale, strict=True)
    ]
    places = np.column_stack([lineage.frames, lineage.centroids])
    known = [scores.get(key) for key in zip(lineage.object_ids.tolist(), lineage.frames.tolist(), strict=True)]
    properties: dict[str, Any] = {
        **{name: {"values": column, "missing": None} for name, column in zip(names, places.T, strict=True)},
        "seg_id": {"values": lineage.object_ids, "missing": None},
        "tracklet": {"values": lineage.tracklets, "missing": None},
        "lineage": {"values": lineage.families, "missing": None},
    }
    if any(score is not None for score in known):
        values = np.array([np.nan if score is None else score for score in known], dtype=np.float64)
        properties["score"] = {"values": values, "missing": np.isnan(values)}
    related = None
    if labels is not None:
        beside = os.path.relpath(labels.resolve(), folder.resolve())
        related = [RelatedObject(type="labels", path=Path(beside).as_posix(), node_prop="seg_id")]

    def write(new: Path) -> None:
        write_arrays(
            new,
            np.arange(len(lineage.frames), dtype=np.uint64),
            properties,
            lineage.edges.astype(np.uint64),
            {},
            geff.GeffMetadata(
                geff_version=geff.__version__,
                axes=axes,
                directed=True,
                node_props_metadata={},
                edge_props_metadata={},
                track_node_props={"tracklet": "tracklet", "lineage": "lineage"},
                related_objects=related,
            ),
        )

    _write_folder(folder, write)


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a folder that is there either whole or not at all."""
    check_writable(folder)
    if exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} exists already and is not empty; choose another output.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
            new = Path(place) / folder.name
            write(new)
            if folder.exists():
                folder.rmdir()
            new.rename(folder)
    except OSError as error:
        raise StorageError(f"The tracks cannot be written to {folder}: {error.strerror or error}.") from error
