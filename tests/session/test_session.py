"""Prompting, accepting, undoing: what a person does with a session."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_segany.core.errors import InvalidImageError, InvalidLabelsError, InvalidPromptError
from napari_segany.session.propagating_session import PropagatingSession as Session
from napari_segany.session.session import CANDIDATES_KEPT, EMBEDDINGS_KEPT
from tests.fakes import DiscModel, disc
from tests.session.conftest import ArrayFrames, ArrayLabels


def test_prompt_previews_without_touching_labels(session: Session) -> None:
    mask = session.prompt(1, 2, points=[(20, 25)])
    np.testing.assert_array_equal(mask, disc((40, 50), (20, 25), 5))
    assert not session.labels.any()


def test_prompts_of_an_object_add_up_and_can_be_replaced(session: Session) -> None:
    session.prompt(1, 2, points=[(10, 10)])
    both = session.prompt(1, 2, points=[(30, 40)])
    assert both[10, 10] and both[30, 40]
    without = session.prompt(1, 2, points=[(10, 13)], labels=[0])
    assert not without[10, 13] and without[30, 40]
    alone = session.prompt(1, 2, box=(1, 2, 5, 6), replace=True)
    assert alone.sum() == 16 and not alone[30, 40]


def test_accept_keeps_other_objects_unless_told_otherwise(session: Session) -> None:
    session.prompt(1, 0, box=(0, 0, 10, 10))
    session.accept(1, 0)
    session.prompt(2, 0, box=(5, 5, 15, 15))
    session.accept(2, 0)
    assert (session.labels[0][5:10, 5:10] == 1).all()
    assert (session.labels[0] == 2).sum() == 75
    session.accept(2, 0, overwrite=True)
    assert (session.labels[0] == 2).sum() == 100
    assert (session.labels[0] == 1).sum() == 75


def test_accepting_again_moves_the_object(session: Session) -> None:
    session.accept(3, 1, mask=disc((40, 50), (10, 10), 4))
    session.accept(3, 1, mask=disc((40, 50), (30, 30), 4))
    np.testing.assert_array_equal(session.labels[1] == 3, disc((40, 50), (30, 30), 4))


def test_undo_and_redo_bring_back_exactly_what_was(session: Session) -> None:
    session.prompt(1, 0, box=(0, 0, 10, 10))
    session.accept(1, 0)
    first = session.labels.copy()
    session.prompt(2, 0, box=(5, 5, 15, 15))
    session.accept(2, 0, overwrite=True)
    second = session.labels.copy()
    assert session.undo() == "accept"
    np.testing.assert_array_equal(session.labels, first)
    assert session.undo() == "prompt"
    assert (2, 0) not in session.prompts
    assert session.redo() == "prompt" and session.redo() == "accept"
    np.testing.assert_array_equal(session.labels, second)
    assert session.redo() is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(0, 30), st.booleans()), max_size=8))
def test_any_work_can_be_undone_to_the_start_and_redone(work: list[tuple[int, int, int, bool]]) -> None:
    session = Session(ArrayFrames(np.zeros((3, 40, 50), np.uint8)), DiscModel(), ArrayLabels((3, 40, 50)))
    states = [session.labels.copy()]
    for object_id, frame, place, overwrite in work:
        session.accept(object_id, frame, mask=disc((40, 50), (place, place), 6), overwrite=overwrite)
        states.append(session.labels.copy())
    for state in reversed(states[:-1]):
        session.undo()
        np.testing.assert_array_equal(session.labels, state)
    for state in states[1:]:
        session.redo()
        np.testing.assert_array_equal(session.labels, state)


def test_signals_tell_what_changed(session: Session) -> None:
    prompts, frames = [], []
    session.prompt_changed.connect(lambda object_id, frame: prompts.append((object_id, frame)))
    session.labels_changed.connect(frames.append)
    session.prompt(4, 3, points=[(5, 5)])
    session.accept(4, 3)
    session.undo()
    session.undo()
    assert prompts == [(4, 3), (4, 3)]
    assert frames == [3, 3]


def test_few_embeddings_are_kept(session: Session) -> None:
    for frame in range(6):
        session.embedding(frame)
    assert sum(session.is_embedded(frame) for frame in range(6)) == EMBEDDINGS_KEPT
    before = len(session.model.embedded)
    session.embedding(5)
    assert len(session.model.embedded) == before


def test_candidates_of_many_prompts_are_not_all_kept_and_can_be_had_again(session: Session) -> None:
    for object_id in range(1, CANDIDATES_KEPT + 20):
        session.prompt(object_id, object_id % 6, points=[(20, 25)])
    assert len(session._candidates) == CANDIDATES_KEPT and len(session.prompts) == CANDIDATES_KEPT + 19
    again = session.candidates(1, 1)
    assert again is not None and again.best[20, 25]
    session.accept(2, 2)
    assert (session.labels[2] == 2).any()


def test_another_model_keeps_prompts_and_labels(session: Session) -> None:
    session.prompt(1, 0, points=[(5, 5)])
    session.accept(1, 0)
    session.use_model(DiscModel("other"))
    assert (session.labels[0] == 1).any() and (1, 0) in session.prompts
    session.prompt(1, 0, points=[(30, 30)])


def test_a_removed_object_is_not_accepted_until_it_is_back(session: Session) -> None:
    session.prompt(1, 0, points=[(20, 25)])
    session.remove(1)
    assert session.candidates(1, 0) is None
    with pytest.raises(InvalidPromptError, match="prompt it first"):
        session.accept(1, 0)
    session.undo()
    session.accept(1, 0)
    assert (session.labels[0] == 1).any()


def test_next_object_id_is_free(session: Session) -> None:
    assert session.next_object_id() == 1
    session.prompt(4, 0, points=[(5, 5)])
    assert session.next_object_id() == 5


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.prompt(0, 0, points=[(5, 5)]), InvalidPromptError, "positive whole number"),
        (lambda s: s.prompt(1, 6, points=[(5, 5)]), InvalidImageError, "6 frames"),
        (lambda s: s.prompt(1, 0), InvalidPromptError, "at least one point"),
        (lambda s: s.prompt(1, 0, points=[(40, 5)]), InvalidPromptError, "outside the image"),
        (lambda s: s.prompt(1, 0, points=[(np.nan, 5)]), InvalidPromptError, "finite"),
        (lambda s: s.prompt(1, 0, box=(5, 5, 5, 9)), InvalidPromptError, "covers no part"),
        (lambda s: s.prompt(1, 0, box=(50, 60, 70, 80)), InvalidPromptError, "covers no part"),
        (lambda s: s.prompt(1, 0, mask=np.zeros((40, 50), bool)), InvalidPromptError, "empty"),
        (lambda s: s.prompt(1, 0, mask=np.ones((4, 5), bool)), InvalidPromptError, r"\(4, 5\)"),
        (lambda s: s.accept(1, 0), InvalidPromptError, "prompt it first"),
        (lambda s: s.accept(1, 0, mask=np.ones((2, 2), bool)), InvalidPromptError, r"\(2, 2\)"),
        (lambda s: s.accept(2**40, 0, mask=np.ones((40, 50), bool)), InvalidLabelsError, "wider dtype"),
        (lambda s: s.propagate(), InvalidPromptError, "prompt at least one object"),
        (lambda s: s.propagate(start=4, stop=2), InvalidPromptError, "not a range"),
        (lambda s: s.propagate(direction="up"), InvalidPromptError, "direction"),
        (lambda s: s.propagate(objects=[7]), InvalidPromptError, "no prompt and no labels"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(session: Session, call, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        call(session)
    assert "\n" not in str(caught.value)
    assert not session.labels.any() and not session.prompts and not session.history.done


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(InvalidLabelsError, match="must be the same"):
        Session(ArrayFrames(np.zeros((6, 40, 50), np.uint8)), DiscModel(), ArrayLabels((6, 40, 51)))


def test_a_frame_is_encoded_once_however_many_ask_and_nobody_else_waits(session: Session) -> None:
    session.model.delay = 0.3
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(session.embedding, 3) for _ in range(3)]
        time.sleep(0.05)
        began = time.monotonic()
        session.store.write(0, session.store.read(0))
        session.accept(1, 0, mask=np.ones(session.frames.shape[1:3], bool))
        assert time.monotonic() - began < 0.2
        assert len({id(future.result()) for future in slow}) == 1
    assert len(session.model.embedded) == 1


def test_an_encoding_that_fails_fails_for_all_who_wait_and_can_be_tried_again(session: Session) -> None:
    good = session.model.embed

    def bad(image: np.ndarray, intensity: object = None) -> object:
        time.sleep(0.1)
        raise MemoryError("no room")

    session.model.embed = bad  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(session.embedding, 1) for _ in range(2)]:
            with pytest.raises(MemoryError):
                future.result()
    session.model.embed = good  # type: ignore[method-assign]
    assert session.embedding(1).image_shape == (40, 50)
