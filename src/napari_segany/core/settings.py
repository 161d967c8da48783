"""Named numbers that people may change, each with its meaning beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: How much "there is such a thing in this image" counts: wholly, less, or not.
Presence = Literal["product", "soft", "off"]


@dataclass(frozen=True)
class EverythingSettings:
    """How all objects of an image are found from many single clicks.

    Attributes
    ----------
    points_per_side : int
        Clicks along each side of the grid, at the centres of its cells.
    score_threshold : float
        Masks whose predicted IoU is lower are dropped.
    stability_threshold, stability_offset : float
        Masks whose area changes by more than this when the threshold moves by
        the offset are dropped; see `Candidates.stability`.
    overlap_threshold : float
        Of two masks whose boxes overlap with a higher IoU, the better stays.
    min_area : int
        Smaller objects, holes and islands go, pixels.
    max_share : float
        Masks that cover more of the image are taken for its background.
    """

    points_per_side: int = 32
    score_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    overlap_threshold: float = 0.7
    min_area: int = 0
    max_share: float = 0.9


@dataclass(frozen=True)
class FindSettings:
    """How all objects of a concept are found.

    Attributes
    ----------
    threshold : float
        Objects whose score is lower are left out.
    presence : {"product", "soft", "off"}
        For models that judge whether there is such a thing at all: multiply each score with that probability,
        with its square root, or with nothing.
    overlap_threshold : float
        Of two masks that overlap with a higher IoU, the better stays.
    min_area : int
        Smaller objects go, pixels.
    tile, tile_overlap : int
        Images with a longer side are searched in tiles of this side that overlap by so much, pixels.
        Objects longer than the overlap are put together from their parts.
    """

    threshold: float = 0.5
    presence: Presence = "product"
    overlap_threshold: float = 0.5
    min_area: int = 0
    tile: int = 1024
    tile_overlap: int = 256


@dataclass(frozen=True)
class PropagationSettings:
    """How a mask is carried to the next frame.

    Attributes
    ----------
    min_score : float
        An object whose predicted IoU falls below has left.
    min_overlap : float
        An object whose mask overlaps that of the frame before with a lower IoU has left.
    max_growth : float
        A mask that grows or shrinks by a larger factor within a frame is not believed, and ends the object.
    memory_frames : int
        Frames to look back on when a run goes on where another stopped, and frames on which nothing
        changes before a correction is taken to have had its full effect.
    motion : bool
        Let models with a memory expect objects to go on moving as they did; for time-lapses.
    unchanged_overlap : float
        A mask that overlaps the one before a correction with this IoU has not changed.
    """

    min_score: float = 0.3
    min_overlap: float = 0.05
    max_growth: float = 4.0
    memory_frames: int = 6
    motion: bool = False
    unchanged_overlap: float = 0.98
