"""Exported tracks come back through readers that are not ours."""

from pathlib import Path

import geff
import networkx as nx
import numpy as np
import pytest
import zarr
from ctc_metrics.scripts.validate import validate_sequence
from ctc_metrics.utils.filesystem import read_tracking_file
from geff.convert import from_ctc_to_geff
from geff.validate.tracks import validate_lineages, validate_tracklets
from tifffile import imread, imwrite

from napari_segany.core.errors import InvalidLabelsError, StorageError, UnsupportedError
from napari_segany.io.tracks import TrackedLabels, open_tracked, write_tracks

PARENTS = {(2, 3): 1, (3, 3): 1}


def dividing(ndim: int = 2, other: int = 5) -> np.ndarray:
    """Six frames: cell 1 divides into 2 and 3, and another one is not seen on the fifth frame."""
    labels = np.zeros((6, *(4,) * (ndim - 2), 20, 30), dtype=np.int32)
    for frame in range(6):
        plane = labels[frame]
        if frame < 3:
            plane[..., 4:10, 5:15] = 1
        else:
            plane[..., 4:10, 4 : 8 + frame % 2] = 2
            plane[..., 4:10, 11 : 15 + frame // 4] = 3
        if frame != 4:
            plane[..., 14:18, 2 + frame : 6 + frame] = other
    return labels


def is_valid(folder: Path) -> bool:
    """What the challenge's own rules say."""
    return validate_sequence(str(folder), threads=1)["Valid"] == 1


def masks_in(folder: Path) -> np.ndarray:
    return np.stack([imread(file) for file in sorted(folder.glob("mask*.tif"))])


@pytest.mark.parametrize("ndim", [2, 3])
def test_cell_tracking_challenge(ndim: int, tmp_path: Path) -> None:
    labels = dividing(ndim)
    write_tracks(TrackedLabels(labels, PARENTS), tmp_path / "01_RES")
    assert is_valid(tmp_path / "01_RES")
    table = read_tracking_file(str(tmp_path / "01_RES" / "res_track.txt"))
    # Object 5 goes on as a track of its own after it was missing.
    assert table.tolist() == [[1, 0, 2, 0], [2, 3, 5, 1], [3, 3, 5, 1], [5, 0, 3, 0], [6, 5, 5, 5]]
    masks = masks_in(tmp_path / "01_RES")
    last = (np.arange(6) == 5).reshape(-1, *(1,) * ndim)
    assert masks.dtype == np.uint16
    np.testing.assert_array_equal(masks, np.where((labels == 5) & last, 6, labels))


def test_ids_beyond_sixteen_bits_are_numbered_anew(tmp_path: Path) -> None:
    labels = dividing(other=200_000)
    write_tracks(TrackedLabels(labels, PARENTS), tmp_path / "res")
    assert is_valid(tmp_path / "res")
    masks = masks_in(tmp_path / "res")
    assert set(np.unique(masks)) == {0, 1, 2, 3, 4, 5} and (masks[0][labels[0] == 200_000] == 4).all()


@pytest.mark.parametrize("ndim", [2, 3])
def test_geff(ndim: int, tmp_path: Path) -> None:
    labels = dividing(ndim)
    scale = (5.0, 2.0, 0.5, 0.5)[-ndim - 1 :]
    tracked = TrackedLabels(labels, PARENTS, {(5, 0): 0.75}, scale, tmp_path / "out.zarr" / "labels" / "segany")
    write_tracks(tracked, tmp_path / "tracks.geff")
    geff.validate_structure(tmp_path / "tracks.geff")
    # Plain zarr, so as not to trust the writer with reading.
    stored = zarr.open_group(tmp_path / "tracks.geff", mode="r")
    props = {name: np.asarray(stored[f"nodes/props/{name}/values"]) for name in stored["nodes/props"].group_keys()}
    ids, edges = np.asarray(stored["nodes/ids"]), np.asarray(stored["edges/ids"])
    assert set(props) == {"t", *"zyx"[-ndim:], "seg_id", "tracklet", "lineage", "score"}
    # Each node's centre is on its object.
    where = [np.rint(props[name]).astype(int) for name in ("t", *"zyx"[-ndim:])]
    np.testing.assert_array_equal(labels[tuple(where)], props["seg_id"])
    assert validate_tracklets(ids, edges, props["tracklet"])[0] and validate_lineages(ids, edges, props["lineage"])[0]
    missing = np.asarray(stored["nodes/props/score/missing"])
    assert props["score"][~missing].tolist() == [0.75]
    described = geff.GeffMetadata.read(tmp_path / "tracks.geff")
    assert [axis.scale for axis in described.axes] == list(scale)
    assert [(one.path, one.node_prop) for one in described.related_objects] == [("../out.zarr/labels/segany", "seg_id")]


def test_both_formats_hold_the_same_graph(tmp_path: Path) -> None:
    """The challenge's folder, turned into a graph by geff's own converter, is the graph that we wrote."""
    tracked = TrackedLabels(dividing(), PARENTS)
    write_tracks(tracked, tmp_path / "ctc")
    write_tracks(tracked, tmp_path / "ours.geff")
    from_ctc_to_geff(tmp_path / "ctc", tmp_path / "theirs.geff")
    graphs = []
    for name in ("ours", "theirs"):
        graph, _ = geff.read(tmp_path / f"{name}.geff", backend="networkx")
        places = {node: tuple(np.round([at["t"], at["y"], at["x"]], 6)) for node, at in graph.nodes.items()}
        graphs.append(nx.relabel_nodes(graph, places))
    ours, theirs = graphs
    assert set(ours.nodes) == set(theirs.nodes) and set(ours.edges) == set(theirs.edges) and len(ours.edges) == 12


def test_labels_of_other_programs_are_exported_too(tmp_path: Path) -> None:
    imwrite(tmp_path / "labels.tif", dividing().astype(np.uint16), metadata={"axes": "TYX"})
    write_tracks(open_tracked(tmp_path / "labels.tif"), tmp_path / "res")
    assert is_valid(tmp_path / "res")


def test_what_cannot_be_exported_is_said_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        write_tracks(TrackedLabels(dividing()), tmp_path / "full")
    with pytest.raises(InvalidLabelsError, match="are empty"):
        write_tracks(TrackedLabels(np.zeros((3, 4, 4), int)), tmp_path / "new")
    with pytest.raises(InvalidLabelsError, match="shape"):
        write_tracks(TrackedLabels(np.ones((4, 4), int)), tmp_path / "new")
    # A diagonal of single pixels, each an object: more than the challenge's masks can number.
    many = np.arange(1, 2 * 40_000 + 1).reshape(2, 200, 200)
    with pytest.raises(InvalidLabelsError, match=r"65535 tracks.*\.geff"):
        write_tracks(TrackedLabels(many), tmp_path / "new")
    monkeypatch.setitem(__import__("sys").modules, "geff", None)
    with pytest.raises(UnsupportedError, match=r"napari-segany\[tracking\]"):
        write_tracks(TrackedLabels(dividing()), tmp_path / "new.geff")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
