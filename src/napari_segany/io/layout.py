"""What about the chunks of a stack makes work on it slow or wrong, said before the work begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_segany.io.frames import Frames

#: Smaller stacks are read fast, whatever their chunks are.
SMALL = 50_000_000
#: A plane that makes so many times its size be read, or lies in so many chunks, is worth a word.
WASTE, MANY = 8.0, 20_000
#: Chunks are counted up to this many.
COUNTED = 100_000


def remarks(frames: Frames) -> list[str]:
    """Sentences on chunks that defeat reading by planes, and on chunks that are missing."""
    array = frames.source.array
    chunks = _chunk_shape(array)
    if chunks is None:
        return []
    return [sentence for sentence in (_waste(frames, chunks), _missing(array)) if sentence]


def _chunk_shape(array: Any) -> tuple[int, ...] | None:
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return None
    # Dask lists the extents of all chunks along each axis.
    return tuple(max(one) if isinstance(one, tuple) else int(one) for one in chunks)


def _waste(frames: Frames, chunks: tuple[int, ...]) -> str:
    shape, itemsize = frames.source.array.shape, frames.dtype.itemsize
    if math.prod(shape) * itemsize < SMALL:
        return ""
    planes = frames.planes
    read, needed, count = 1, 1, 1
    for axis, (extent, chunk) in enumerate(zip(shape, chunks, strict=True)):
        if axis in (planes.rows, planes.columns, planes.channels):
            pieces = -(-extent // chunk)
            read, needed, count = read * min(pieces * chunk, extent), needed * extent, count * pieces
        else:
            read *= min(chunk, extent)
    if read < WASTE * needed and count < MANY:
        return ""
    better = [min(extent, 512) if axis in (planes.rows, planes.columns) else 1 for axis, extent in enumerate(shape)]
    if planes.channels is not None:
        better[planes.channels] = shape[planes.channels]
    return (
        f"Reading one plane means reading {read / needed:.0f} times its size from {count} chunks, since the chunks are "
        f"{' x '.join(map(str, chunks))}; copy the stack to chunks of {' x '.join(map(str, better))} to be faster."
    )


def _missing(array: Any) -> str:
    count = getattr(array, "nchunks", None)
    if count is None or not hasattr(array, "nchunks_initialized"):
        return ""
    shards = getattr(array, "shards", None)
    if shards:
        count = math.prod(-(-extent // side) for extent, side in zip(array.shape, shards, strict=True))
        stored = array.nchunks_initialized // math.prod(
            shard // chunk for shard, chunk in zip(shards, array.chunks, strict=True)
        )
    elif count > COUNTED:
        return ""
    else:
        stored = array.nchunks_initialized
    if stored >= count or count > COUNTED:
        return ""
    return (
        f"{count - stored} of {count} chunks of the stack are missing and read as {array.fill_value}; if they should "
        "be there, copy it again before you trust what is found."
    )
