"""Parts of a list, and what happens when memory runs out."""

import pytest
import torch

from napari_segany.core.errors import InsufficientMemoryError
from napari_segany.models.batches import in_batches, in_memory


def test_parts_cover_the_list_in_order() -> None:
    seen: list[list[int]] = []
    in_batches(list(range(7)), 3, lambda part: seen.append(list(part)))
    assert seen == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("you tried to: not enough memory")],
)
def test_out_of_memory_halves_the_parts_and_loses_nothing(error: Exception) -> None:
    done: list[int] = []

    def work(part: list[int]) -> None:
        if len(part) > 2:
            raise error
        done.extend(part)

    in_batches(list(range(9)), 8, work)
    assert done == list(range(9))


def test_a_single_item_that_does_not_fit_is_one_clear_sentence() -> None:
    def work(part: list[int]) -> None:
        raise MemoryError

    with pytest.raises(InsufficientMemoryError, match="not enough memory for even one object"):
        in_batches([1, 2], 2, work)


def test_other_errors_are_not_swallowed() -> None:
    def work(part: list[int]) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_batches([1, 2], 2, work)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_an_image_that_does_not_fit_is_one_clear_sentence_and_can_be_tried_again(error: Exception) -> None:
    errors = [error]

    @in_memory
    def encode(image: str) -> str:
        if errors:
            raise errors.pop()
        return image

    with pytest.raises(InsufficientMemoryError, match=r'not enough memory for this image; close .* device="cpu"'):
        encode("cells")
    assert encode("cells") == "cells"
