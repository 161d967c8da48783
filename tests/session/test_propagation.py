"""Propagation: where masks go, what stays, what can be stopped."""

import numpy as np
import pytest

from napari_segany.core.masks import Candidates
from napari_segany.session.propagating_session import PropagatingSession as Session
from tests.fakes import DiscModel, disc
from tests.session.conftest import ArrayFrames, ArrayLabels

SHAPE = (40, 50)


def run(session: Session, **options) -> list[int]:
    return [frame for frame, _ in session.propagate(**options)]


def test_every_frame_is_visited_once_and_labelled(session: Session) -> None:
    session.prompt(1, 2, points=[(20, 25)])
    assert run(session) == [2, 3, 4, 5, 1, 0]
    for frame in range(6):
        np.testing.assert_array_equal(session.labels[frame] == 1, disc(SHAPE, (20, 25), 5))
    assert session.tracks[0][:4] == (1, 0, 5, 0)


@pytest.mark.parametrize(
    ("direction", "frames"), [("forward", [2, 3, 4, 5]), ("backward", [2, 1, 0]), ("both", [2, 3, 4, 5, 1, 0])]
)
def test_directions(session: Session, direction: str, frames: list[int]) -> None:
    session.prompt(1, 2, points=[(20, 25)])
    assert run(session, direction=direction) == frames
    assert sorted(np.flatnonzero(session.labels.any(axis=(1, 2)))) == sorted(frames)


def test_range_bounds_the_run(session: Session) -> None:
    session.prompt(1, 2, points=[(20, 25)])
    assert sorted(run(session, start=1, stop=4)) == [1, 2, 3]


def test_objects_starting_on_different_frames_do_not_disturb_each_other(session: Session) -> None:
    session.prompt(1, 1, points=[(10, 10)])
    session.prompt(2, 4, points=[(30, 40)])
    run(session)
    for frame in range(6):
        assert session.labels[frame][10, 10] == 1 and session.labels[frame][30, 40] == 2
    assert len(session.model.embedded) <= 12  # one image-side run per frame and direction at most


@pytest.mark.parametrize("stop", range(1, 9))
def test_wherever_a_run_is_cancelled_it_goes_on_to_the_same_end(session: Session, stop: int) -> None:
    # Both ways visit the frames between the two prompts.
    session.prompt(1, 1, points=[(10, 10)])
    session.prompt(2, 4, points=[(30, 40)])
    visits = session.propagate()
    for _ in range(stop):
        next(visits)
    visits.close()
    run(session, resume=True)
    for frame in range(6):
        assert session.labels[frame][10, 10] == 1 and session.labels[frame][30, 40] == 2


def test_a_later_prompt_puts_the_object_right(session: Session) -> None:
    session.prompt(1, 0, points=[(10, 10)])
    session.prompt(1, 3, points=[(30, 30)])
    run(session)
    assert session.labels[2][10, 10] == 1 and session.labels[2][30, 30] == 0
    assert session.labels[4][30, 30] == 1 and session.labels[4][10, 10] == 0


def test_accepted_masks_are_used_and_never_overwritten(session: Session) -> None:
    drawn = disc(SHAPE, (20, 20), 9)
    session.prompt(1, 2, points=[(20, 25)])
    session.accept(1, 2, mask=drawn)
    run(session)
    for frame in range(6):
        np.testing.assert_array_equal(session.labels[frame] == 1, drawn)


def test_other_objects_labels_win(session: Session) -> None:
    session.accept(9, 3, mask=disc(SHAPE, (20, 25), 3))
    session.prompt(1, 2, points=[(20, 25)])
    run(session, objects=[1])
    np.testing.assert_array_equal(session.labels[3] == 9, disc(SHAPE, (20, 25), 3))
    assert (session.labels[3] == 1).sum() == disc(SHAPE, (20, 25), 5).sum() - disc(SHAPE, (20, 25), 3).sum()


def test_an_object_known_only_by_its_labels_is_carried(session: Session) -> None:
    session.store.data[1][5:12, 5:12] = 6
    session.store.data[2][5:15, 5:15] = 6
    run(session, objects=[6])
    assert (session.labels[5][5:15, 5:15] == 6).all()


def test_stopping_keeps_what_was_yielded_and_undoes_as_one_step(session: Session, events: list[dict]) -> None:
    session.prompt(1, 2, points=[(20, 25)])
    running = session.propagate()
    next(running), next(running)
    running.close()
    assert list(np.flatnonzero(session.labels.any(axis=(1, 2)))) == [2, 3]
    assert [event["frame"] for event in events if event["event"] == "frame"] == [2, 3]
    assert session.undo() == "propagate"
    assert not session.labels.any() and not session.scores
    session.redo()
    assert list(np.flatnonzero(session.labels.any(axis=(1, 2)))) == [2, 3]


class Vanishing(DiscModel):
    """From the fourth image on it no longer believes in anything."""

    def predict(self, embedding, prompts, multimask="auto"):
        answers = super().predict(embedding, prompts, multimask)
        if len(self.embedded) > 3:
            return [Candidates(a.logits, np.full_like(a.scores, 0.1), a.grid) for a in answers]
        return answers


def test_an_object_that_leaves_ends_and_its_old_labels_go() -> None:
    session = Session(ArrayFrames(np.zeros((6, *SHAPE), np.uint8)), Vanishing(), ArrayLabels((6, *SHAPE)))
    session.store.data[4][18:22, 20:24] = 1  # left from an earlier run
    session.prompt(1, 0, points=[(20, 25)])
    run(session)
    assert list(np.flatnonzero(session.labels.any(axis=(1, 2)))) == [0, 1, 2]
    assert session.tracks[0].last == 2
    assert np.isnan(session.uncertainty(1)[3:]).all() and (session.uncertainty(1)[:3] < 0.2).all()


def test_overlaps_go_to_the_larger_logit_not_the_higher_id(session: Session) -> None:
    class Sure(DiscModel):
        def predict(self, embedding, prompts, multimask="auto"):
            answers = super().predict(embedding, prompts, multimask)
            # The first object of a batch is the surer one.
            return [Candidates(a.logits * (2.0 if i == 0 else 1.0), a.scores, a.grid) for i, a in enumerate(answers)]

    session.use_model(Sure())
    session.prompt(1, 0, box=(5, 5, 15, 15))
    session.prompt(2, 0, box=(10, 10, 20, 20))
    run(session)
    assert (session.labels[0][5:15, 5:15] == 1).all()
    assert (session.labels[0] == 2).sum() == 75


def test_where_both_ways_carry_objects_to_the_same_pixels_the_one_known_nearer_has_them(session: Session) -> None:
    session.prompt(1, 0, box=(5, 5, 15, 15))
    session.prompt(2, 5, box=(10, 10, 20, 20))
    run(session)
    # The way forward came to all of these frames first, with object 1.
    owners = [session.labels[frame][12, 12] for frame in range(1, 5)]
    assert owners == [1, 1, 2, 2]
    # Labels of an object that is not of the run are kept.
    before = session.labels.copy()
    session.prompt(3, 2, box=(10, 10, 20, 20))
    run(session, objects=[3])
    np.testing.assert_array_equal(session.labels[before > 0], before[before > 0])


def test_a_cancelled_run_can_go_on(session: Session) -> None:
    session.prompt(1, 2, points=[(20, 25)])
    running = session.propagate()
    next(running), next(running), next(running)
    running.close()
    before = len(session.model.embedded)
    assert run(session, resume=True) == [5, 1, 0]
    assert len(session.model.embedded) - before <= 7
    for frame in range(6):
        np.testing.assert_array_equal(session.labels[frame] == 1, disc(SHAPE, (20, 25), 5))


def test_an_object_removed_while_it_is_carried_does_not_come_back(session: Session) -> None:
    session.prompt(1, 0, points=[(10, 10)])
    session.prompt(2, 0, points=[(30, 40)])
    running = session.propagate()
    next(running), next(running)
    session.remove(1)
    list(running)
    assert set(np.unique(session.labels)) == {0, 2}
    assert {track.object_id for track in session.tracks} == {2}


def test_removing_is_one_step_to_undo(session: Session) -> None:
    session.prompt(1, 0, points=[(10, 10)])
    run(session)
    before = session.labels.copy()
    session.remove(1)
    assert not session.labels.any() and not session.prompts and not session.scores
    assert session.undo() == "remove"
    np.testing.assert_array_equal(session.labels, before)
    assert (1, 0) in session.prompts and len(session.scores) == 6


def test_the_most_uncertain_frame(session: Session) -> None:
    assert session.most_uncertain() is None
    session.scores.update({(1, 0): 0.9, (1, 3): 0.4, (2, 1): 0.6, (2, 5): 0.2})
    session.accepted[2, 5] = True
    assert session.most_uncertain() == (1, 3)
    assert session.most_uncertain(2) == (2, 1)


class TestUpdate:
    @pytest.fixture
    def long(self) -> Session:
        """Sixty frames through which two objects have been carried."""
        frames = ArrayFrames(np.zeros((60, *SHAPE), np.uint8))
        session = Session(frames, DiscModel(), ArrayLabels((60, *SHAPE)))
        session.prompt(1, 0, points=[(10, 10)])
        session.prompt(2, 0, points=[(30, 40)])
        session.prompt(1, 50, points=[(10, 10)])
        list(session.propagate())
        session.model.embedded.clear()
        return session

    def test_nothing_changed_nothing_to_do(self, long: Session) -> None:
        assert list(long.update()) == [] and long.model.embedded == []

    def test_a_correction_reaches_as_far_as_it_changes_anything(self, long: Session) -> None:
        untouched = long.labels.copy()
        long.prompt(1, 30, points=[(10, 30)], replace=True)
        visited = [frame for frame, _ in long.update()]
        # Forward until the prompt on frame 50 has put the object right for as long as a memory lasts,
        # backward half of the way to the prompt on frame 0.
        assert visited == [*range(30, 56), *range(30, 15, -1)]
        assert [int(long.labels[frame][10, 30]) for frame in (15, 16, 49, 50)] == [0, 1, 1, 0]
        np.testing.assert_array_equal(long.labels == 2, untouched == 2)
        assert list(long.update()) == []

    def test_a_correction_that_changes_nothing_ends_soon(self, long: Session) -> None:
        long.accept(1, 30, mask=long.labels[30] == 1)
        visited = {frame for frame, _ in long.update()}
        assert visited == set(range(25, 36))

    def test_accepted_frames_stay(self, long: Session) -> None:
        drawn = disc(SHAPE, (12, 12), 7)
        long.accept(1, 35, mask=drawn)
        long.prompt(1, 30, points=[(25, 25)], replace=True)
        list(long.update())
        np.testing.assert_array_equal(long.labels[35] == 1, drawn)

    def test_it_is_one_step_to_undo(self, long: Session) -> None:
        before = long.labels.copy()
        long.prompt(1, 30, points=[(10, 30)], replace=True)
        list(long.update())
        assert long.undo() == "update"
        np.testing.assert_array_equal(long.labels, before)
