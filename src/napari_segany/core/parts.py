"""Working through a list in parts of a size that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def in_parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Parts of at most `size` items, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
