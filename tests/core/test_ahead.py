"""One piece is read ahead: the right one, its errors with it, and never more than one."""

from threading import Event, active_count

import pytest

from napari_segany.core.ahead import Ahead


def test_each_piece_is_read_once_and_the_error_of_one_is_raised_for_it() -> None:
    read: list[int] = []

    def fetch(key: int) -> int:
        read.append(key)
        if key == 2:
            raise ValueError("2 is damaged")
        return 10 * key

    ahead: Ahead[int, int] = Ahead(fetch)
    assert [ahead(0, 1), ahead(1, 2)] == [0, 10]
    with pytest.raises(ValueError, match="2 is damaged"):
        ahead(2, 3)
    assert ahead(3, 4) == 30
    ahead.close()
    assert read == [0, 1, 2, 3, 4]
    assert ahead(4) == 40 and read[-2:] == [4, 4], "what was read before closing is forgotten"


def test_one_read_is_on_its_way_at_most() -> None:
    go_on, read, threads = Event(), [], active_count()

    def fetch(key: int) -> int:
        read.append(key)
        if key == 1:
            go_on.wait(10)
        return key

    ahead: Ahead[int, int] = Ahead(fetch)
    ahead(0, 1)
    # Somebody else asks for other pieces while it lasts.
    assert [ahead(key, key + 1) for key in (50, 60, 70)] == [50, 60, 70]
    assert sorted(read) == [0, 1, 50, 60, 70] and active_count() == threads + 1
    go_on.set()
    assert ahead(1) == 1 and read.count(1) == 1
