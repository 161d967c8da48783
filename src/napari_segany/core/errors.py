"""Errors whose message is one sentence a person can act on.

Each also inherits the built-in exception that callers would expect.
"""


def first_line(error: BaseException) -> str:
    """What an error says first, without the full stop; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


class SeganyError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidPromptError(SeganyError, ValueError):
    """A point, box or mask that cannot be used on this image."""


class InvalidImageError(SeganyError, ValueError):
    """An image or stack with an unusable shape, axis or dtype."""


class InvalidLabelsError(SeganyError, ValueError):
    """Labels whose shape or dtype does not fit the stack."""


class CheckpointError(SeganyError, ValueError):
    """A model file that is missing, damaged, unsafe or of an unknown kind."""


class UnknownModelError(SeganyError, ValueError):
    """A model name that is not registered, or is not installed."""


class UnsupportedError(SeganyError, ValueError):
    """A request that this model or layer cannot serve."""


class StorageError(SeganyError, OSError):
    """Reading or writing labels, sessions or embeddings failed."""


class UnreadableError(StorageError):
    """Pixels that are damaged or gone."""


class DownloadError(SeganyError, OSError):
    """Weights could not be fetched."""


class ClusterError(SeganyError, ConnectionError):
    """A scheduler or worker that cannot be reached, or cannot do the work."""


class InsufficientMemoryError(SeganyError, MemoryError):
    """The smallest part of the work does not fit into the memory."""
