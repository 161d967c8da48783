"""Memory that was freed goes back to the system."""

from __future__ import annotations

import platform

import numpy as np
import psutil
import pytest

from napari_segany.core.memory import give_back_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the allocator of glibc keeps what was freed")
def test_what_lies_between_pieces_in_use_is_given_back() -> None:
    process = psutil.Process()
    give_back_memory()
    before = process.memory_info().rss
    pieces = [np.ones(60_000, dtype=np.uint8) for _ in range(4000)]
    in_use = pieces[::40]
    del pieces
    kept = process.memory_info().rss - before
    assert kept > 100e6, "most of it is free, and still held"
    give_back_memory()
    assert process.memory_info().rss - before < 0.2 * kept
    assert all(piece.all() for piece in in_use)
