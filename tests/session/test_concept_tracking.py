"""Every object of a concept through a stack: identities, births, ends, divisions, and what never was."""

import numpy as np
import pytest

from napari_segany.core.errors import InvalidPromptError
from napari_segany.core.instances import Instances
from napari_segany.core.settings import FindSettings, TrackSettings
from napari_segany.session import concept_session
from napari_segany.session.association import assign, mask_overlaps, similarity
from napari_segany.session.carrying import CarryingTracker
from napari_segany.session.concept_session import ConceptSession
from tests.session.conftest import ArrayFrames, ArrayLabels
from tests.session.test_finding import Islands


def squares(*tracks: dict[int, tuple[int, int]], size: int = 8, frames: int = 12) -> np.ndarray:
    """A stack in which each track puts a square at (y, x) on the frames it names."""
    stack = np.zeros((frames, 64, 64), dtype=np.uint8)
    for track in tracks:
        for frame, (y, x) in track.items():
            stack[frame, y : y + size, x : x + size] = 255
    return stack


def run(stack: np.ndarray, settings: TrackSettings | None = None, text="island") -> tuple[ConceptSession, np.ndarray]:  # type: ignore[no-untyped-def]
    session = ConceptSession(ArrayFrames(stack), Islands(), ArrayLabels(stack.shape))
    visited = [frame for frame, _ in session.track(text, settings=settings)]
    assert visited == list(range(len(stack)))
    return session, np.asarray(session.labels)


def steady(y: int, speed: int = 2, first: int = 0, last: int = 11, x: int = 4) -> dict[int, tuple[int, int]]:
    return {frame: (y, x + speed * (frame - first)) for frame in range(first, last + 1)}


def test_each_object_keeps_its_id() -> None:
    session, labels = run(squares(steady(4), steady(20, 3), steady(40, 1)))
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for y in (8, 24, 44):
        found = {int(i) for frame in labels for i in np.unique(frame[y]) if i}
        assert len(found) == 1
    assert [(track.first, track.last) for track in session.tracks] == [(0, 11)] * 3


def test_objects_appear_and_end() -> None:
    session, labels = run(squares(steady(4), steady(30, 2, first=4, last=8)))
    first, second = session.tracks
    # It is kept alive for three frames more.
    assert (first.first, first.last, second.first, second.last) == (0, 11, 4, 11)
    assert (labels[3, 30:38] == 0).all() and (labels[6, 30:38] == second.object_id).any()


def test_what_is_seen_once_never_was() -> None:
    _, labels = run(squares(steady(4), {5: (40, 40)}))
    assert set(np.unique(labels)) == {0, 1}


def test_an_object_outlives_missing_detections() -> None:
    still = {frame: (30, 30) for frame in range(12) if frame not in (5, 6)}
    _, labels = run(squares(still))
    assert [int(frame[33, 33]) for frame in labels] == [1] * 12


def test_a_track_ends_when_it_goes_unseen_for_too_long() -> None:
    gone = dict.fromkeys(range(5), (30, 30))
    _, labels = run(squares(gone), TrackSettings(keep_alive=2))
    assert [int(frame[33, 33]) for frame in labels[:7]] == [1] * 7 and not labels[7:].any()


def test_objects_that_touch_for_long_stay_two() -> None:
    frames = range(12)
    stack = squares(dict.fromkeys(frames, (30, 20)), dict.fromkeys(frames, (30, 30)))
    # A bridge makes one island of them, for longer than an unseen track is kept alive.
    stack[4:10, 32:36, 28:30] = 255
    session, labels = run(stack)
    assert [(int(frame[33, 23]), int(frame[33, 33])) for frame in labels] == [(1, 2)] * 12
    assert [(track.first, track.last) for track in session.tracks] == [(0, 11)] * 2


def test_an_object_of_another_concept_may_hold_several() -> None:
    class Nested(Islands):
        """Finds islands, and from the third frame on, as "frame", what lies around them."""

        asked = 0

        def find(self, embedding, described, settings):  # type: ignore[no-untyped-def]
            if described == "island":
                return super().find(embedding, described, settings)
            self.asked += 1
            around = [((24, 12, 44, 46), np.ones((20, 34), dtype=bool))] if self.asked > 2 else []
            return Instances.from_patches(embedding.image_shape, around, [0.9] * len(around))

    stack = squares(dict.fromkeys(range(12), (30, 20)), dict.fromkeys(range(12), (30, 30)))
    session = ConceptSession(ArrayFrames(stack), Nested(), ArrayLabels(stack.shape))
    list(session.track(["island", "frame"]))
    assert [track.first for track in session.tracks] == [0, 0, 2]


def test_what_was_two_only_at_first_is_not_kept_as_two() -> None:
    stack = squares(dict.fromkeys(range(12), (30, 20)), dict.fromkeys(range(12), (30, 28)))
    stack[0, :, 27:29] = 0
    _, labels = run(stack)
    assert set(np.unique(labels[6])) == {0, labels[6, 33, 23]} and labels[6, 33, 23] == labels[6, 33, 33] > 0


def test_a_division_makes_two_daughters() -> None:
    stack = squares(dict.fromkeys(range(6), (24, 24)), size=16)
    for frame in range(6, 12):
        stack[frame, 24:40, 22:30] = stack[frame, 24:40, 34:42] = 255
    session, labels = run(stack, TrackSettings(divisions=True))
    by_id = {track.object_id: track for track in session.tracks}
    assert by_id[1].last == 5 and by_id[1].parent == 0
    daughters = [track for track in by_id.values() if track.parent == 1]
    assert len(daughters) == 2 and all((track.first, track.last) == (6, 11) for track in daughters)
    assert {int(labels[9, 30, 25]), int(labels[9, 30, 38])} == {track.object_id for track in daughters}
    # In depth the same pictures are one object with two branches.
    session, _ = run(stack, TrackSettings(divisions=False))
    assert all(track.parent == 0 for track in session.tracks)


def test_new_objects_do_not_take_ids_or_pixels_of_old_ones() -> None:
    stack = squares(steady(4))
    session = ConceptSession(ArrayFrames(stack), Islands(), ArrayLabels(stack.shape))
    session.accept(7, 3, mask=np.eye(64, dtype=bool))
    list(session.track("island"))
    labels = np.asarray(session.labels)
    assert set(np.unique(labels)) == {0, 7, 8} and (labels[3][np.eye(64, dtype=bool)] == 7).all()


def test_a_run_is_one_step_to_undo() -> None:
    stack = squares(steady(4), steady(30))
    session, before = run(stack)
    assert session.undo() == "track" and not np.asarray(session.labels).any() and session.tracks == []
    session.redo()
    assert np.array_equal(np.asarray(session.labels), before)


def test_stopping_keeps_what_is_done() -> None:
    stack = squares(steady(4))
    session = ConceptSession(ArrayFrames(stack), Islands(), ArrayLabels(stack.shape))
    for frame, _ in session.track("island"):
        if frame == 4:
            break
    labels = np.asarray(session.labels)
    assert labels[:5].any(axis=(1, 2)).all() and not labels[5:].any()


def test_a_run_in_time_tells_how_far_it_has_looked_and_ends_when_told_to() -> None:
    stack = squares(steady(4))
    session = ConceptSession(ArrayFrames(stack), Islands(), ArrayLabels(stack.shape))
    told: list[int] = []
    visited = [frame for frame, _ in session.track("island", progress=lambda done, total: told.append(done))]
    assert told == list(range(1, 13)) and visited == list(range(12))
    session.undo()
    visited = [frame for frame, _ in session.track("island", progress=lambda done, total: done < 5)]
    labels = np.asarray(session.labels)
    assert visited == list(range(5)) and labels[:5].any(axis=(1, 2)).all() and not labels[5:].any()


def test_published_rules_take_the_memorys_masks_and_never_end() -> None:
    gone = dict.fromkeys(range(9), (30, 30))
    settings = TrackSettings.published()
    _, labels = run(squares(gone), settings)
    assert [int(frame[33, 33]) for frame in labels] == [1] * 12


def test_published_rules_keep_concepts_apart() -> None:
    """What two concepts see alike are two objects, of which each keeps to its own."""
    stack = squares(steady(4, speed=0, last=4), frames=5)
    session = ConceptSession(ArrayFrames(stack), Islands(), ArrayLabels(stack.shape))
    list(session.track(["island", "island"], settings=TrackSettings.published()))
    assert [(track.first, track.last) for track in session.tracks] == [(0, 4)] * 2


def test_ended_tracks_are_forgotten_by_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = squares(dict.fromkeys(range(4), (30, 30)))
    session = ConceptSession(ArrayFrames(stack), Islands(), ArrayLabels(stack.shape))
    tracker = CarryingTracker(session.model, session.settings)
    monkeypatch.setattr(concept_session, "begin_memory", lambda *_: tracker)
    list(session.track("island", settings=TrackSettings(keep_alive=1)))
    assert session.tracks and not tracker.known and not tracker.latest


def test_examples_are_shown_once_for_all_frames() -> None:
    stack = squares(steady(4))
    model = Islands()
    session = ConceptSession(ArrayFrames(stack), model, ArrayLabels(stack.shape))
    list(session.track(exemplars=[(4, 4, 12, 12)], frame=0, stop=3))
    assert model.shown[0].boxes.tolist() == [[4, 4, 12, 12]]


def test_something_must_be_looked_for() -> None:
    session = ConceptSession(ArrayFrames(squares(steady(4))), Islands(), ArrayLabels((12, 64, 64)))
    with pytest.raises(InvalidPromptError, match="Say what to look for"):
        session.track()


def test_found_objects_are_written_as_new_ones() -> None:
    stack = squares(steady(4), steady(30))
    session = ConceptSession(ArrayFrames(stack), Islands(), ArrayLabels(stack.shape))
    session.accept(3, 0, mask=stack[0] * (np.arange(64) < 20)[:, None] > 0)
    found = session.find("island", frame=0)
    assert len(found) == 2
    assert session.accept_found(found, 0) == [4]
    assert set(np.unique(np.asarray(session.labels)[0])) == {0, 3, 4}
    assert session.undo() == "accept" and set(np.unique(np.asarray(session.labels)[0])) == {0, 3}


class TestAssociation:
    def test_the_assignment_is_the_best_for_all_together(self) -> None:
        likeness = np.array([[0.9, 0.8], [0.85, 0.0]])
        assert sorted(assign(likeness, 0.2)) == [(0, 1), (1, 0)]
        assert assign(likeness, 0.86) == [(0, 0)]

    def test_overlaps_are_those_of_the_masks(self) -> None:
        square = np.ones((4, 4), dtype=bool)
        overlaps = mask_overlaps([((0, 0, 4, 4), square)], [((0, 2, 4, 6), square), ((9, 9, 13, 13), square)])
        assert overlaps[0] == pytest.approx([8 / 24, 0])

    def test_appearance_tells_apart_what_lies_alike(self) -> None:
        overlaps = np.array([[0.5, 0.5]])
        boxes = np.array([[0.0, 0, 4, 4], [0.0, 0, 4, 4]])
        looks = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.1]])
        alike = similarity(overlaps, boxes[:1], boxes, looks, np.ones(2), TrackSettings())
        assert alike[0, 1] > alike[0, 0] + 0.1

    def test_what_is_far_away_is_not_the_same(self) -> None:
        far = similarity(
            np.zeros((1, 1)),
            np.array([[0.0, 0, 4, 4]]),
            np.array([[50.0, 50, 54, 54]]),
            None,
            np.ones(1),
            TrackSettings(),
        )
        assert far[0, 0] == 0


def test_thresholds_reach_the_detector() -> None:
    seen = []

    class Asked(Islands):
        def find(self, embedding, described, settings):  # type: ignore[no-untyped-def]
            seen.append(settings.threshold)
            return super().find(embedding, described, settings)

    stack = squares(steady(4, last=2), frames=3)
    session = ConceptSession(ArrayFrames(stack), Asked(), ArrayLabels(stack.shape))
    list(session.track("island", settings=TrackSettings(find=FindSettings(threshold=0.31))))
    assert set(seen) == {0.31}
