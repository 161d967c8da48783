"""Objects over time as a graph: who continues, who divides, where tracks begin and end."""

import numpy as np

from napari_segany.core.lineage import trace


def test_nodes_lie_at_the_centres_of_objects() -> None:
    labels = np.zeros((2, 3, 8, 8), dtype=np.int32)
    labels[0, 1, 2:5, 3:6] = 7
    labels[1, 0:3, 0:2, 0:4] = 7
    traced = trace(labels, {})
    assert traced.object_ids.tolist() == [7, 7] and traced.frames.tolist() == [0, 1]
    np.testing.assert_allclose(traced.centroids, [(1, 3, 4), (1, 0.5, 1.5)])
    assert traced.edges.tolist() == [[0, 1]]


def rows(*present: str) -> np.ndarray:
    """Labels in which object i + 1 has a pixel on each frame where its text has an x."""
    labels = np.zeros((len(present[0]), len(present), 1), dtype=np.int32)
    for i, text in enumerate(present):
        for frame, letter in enumerate(text):
            labels[frame, i] = (i + 1) * (letter == "x")
    return labels


def test_daughters_follow_the_mothers_last_appearance() -> None:
    traced = trace(rows("xx...", "..xxx", "...xx"), {(2, 2): 1, (3, 3): 1})
    named = [
        tuple((int(traced.object_ids[node]), int(traced.frames[node])) for node in edge)
        for edge in traced.edges.tolist()
    ]
    assert set(named) >= {((1, 1), (2, 2)), ((1, 1), (3, 3))} and len(named) == 6
    assert set(traced.families.tolist()) == {1} and set(traced.tracklets.tolist()) == {1, 2, 3}


def test_a_mother_that_stays_is_cut_where_a_daughter_leaves() -> None:
    traced = trace(rows("xxxx", "..xx"), {(2, 2): 1})
    assert traced.segments.tolist() == traced.tracklets.tolist() == [1, 1, 3, 2, 3, 2]


def test_gaps_cut_segments_but_not_tracklets() -> None:
    traced = trace(rows("x.x", "xxx"), {})
    assert len(set(traced.tracklets.tolist())) == 2 and len(set(traced.segments.tolist())) == 3


def test_a_parent_that_was_never_there_is_no_parent() -> None:
    assert len(trace(rows(".x", "x."), {(1, 1): 9, (2, 0): 1}).edges) == 0
