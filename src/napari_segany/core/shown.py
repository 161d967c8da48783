"""An array and where it lies in the world, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shown:
    """An array that is read as it is shown.

    Attributes
    ----------
    data : array-like, or list of them
        A list holds resolution levels, the finest first.
    axes : str
        One letter for each axis of the array; "c" is that of channels.
    scale, translate : tuples of float
        Along all axes but that of channels.
    """

    data: Any
    axes: str
    scale: tuple[float, ...]
    translate: tuple[float, ...]

    @property
    def places(self) -> str:
        """The axes without that of channels."""
        return self.axes.replace("c", "")
