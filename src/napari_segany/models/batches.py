"""Working through many prompts or objects in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from napari_segany.core.errors import InsufficientMemoryError

Item = TypeVar("Item")
Given = ParamSpec("Given")
Answer = TypeVar("Answer")

HELP = 'close other programs, use a smaller model, or load it with device="cpu".'


def in_batches(items: Sequence[Item], size: int, work: Callable[[Sequence[Item]], None]) -> None:
    """Call `work` on parts of a list; when memory runs out, on halves of them from then on.

    Parameters
    ----------
    items : sequence
    size : int
        Items in a part to begin with.
    work : callable
        May be called again with items it has failed on.

    Raises
    ------
    InsufficientMemoryError
        Not even a single item fits.
    """
    start = 0
    while start < len(items):
        part = items[start : start + size]
        try:
            work(part)
        except (MemoryError, RuntimeError) as error:
            if not _ran_out_of_memory(error):
                raise
            if len(part) == 1:
                raise InsufficientMemoryError(
                    f"There is not enough memory for even one object at a time; {HELP}"
                ) from error
            size = len(part) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start += len(part)


def in_memory(encode: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Let a function that encodes an image say in one sentence that memory ran out."""

    @wraps(encode)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        try:
            return encode(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, InsufficientMemoryError) or not _ran_out_of_memory(error):
                raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise InsufficientMemoryError(f"There is not enough memory for this image; {HELP}") from error

    return guarded


def _ran_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator has no exception of its own.
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)
