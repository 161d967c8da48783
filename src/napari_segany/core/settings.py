"""Named numbers that people may change, each with its meaning beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_segany.core.masks import Candidates

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
    contained_threshold : float
        Of two masks of which one lies in the other with a larger share, the better stays; 1 keeps both.
    min_area : int
        Smaller objects, holes and islands go, pixels.
    max_share : float
        Masks that cover more of the image, or of a tile, are taken for its background.
    tile, tile_overlap : int
        Images with a longer side are searched in tiles of this side that overlap by so much, pixels.
    """

    points_per_side: int = 32
    score_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    overlap_threshold: float = 0.7
    contained_threshold: float = 1.0
    min_area: int = 0
    max_share: float = 0.9
    tile: int = 2048
    tile_overlap: int = 256

    def accepts(self, candidates: Candidates) -> np.ndarray:
        """(K,) bool, which masks of a prompt are sure and stable enough."""
        stable = candidates.stability(self.stability_offset) >= self.stability_threshold
        return (candidates.scores >= self.score_threshold) & stable


@dataclass(frozen=True)
class FindSettings:
    """How all objects of a concept are found.

    Attributes
    ----------
    threshold : float
        Objects whose score is lower are left out.
    presence : {"product", "soft", "off"}
        For models that judge whether there is such a thing at all: multiply each score with that probability,
        let it lower the scores but not by more than a clear object can outweigh, or leave it out.
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
    depth : bool or None
        Frames are planes in space, not moments: models that can, draw each object on the planes around at once.
        None where nobody said; then it is found out, see `napari_segany.session.depth`.
    motion : bool
        Let models with a memory expect objects to go on moving as they did; for time-lapses, whatever `depth` says.
    unchanged_overlap : float
        A mask that overlaps the one before a correction with this IoU has not changed.
    """

    min_score: float = 0.3
    min_overlap: float = 0.05
    max_growth: float = 4.0
    memory_frames: int = 6
    depth: bool | None = None
    motion: bool = False
    unchanged_overlap: float = 0.98


@dataclass(frozen=True)
class TrackSettings:
    """How all objects of a concept are followed through a stack.

    Defaults suit many small objects; `published` gives SAM 3's own rules and numbers.

    Attributes
    ----------
    find : FindSettings
        How objects are detected on each frame.
    rule : {"assignment", "published"}
        Match tracks and detections by the assignment of greatest likeness, or
        each track with the detection that overlaps it most.
    overlap_weight, motion_weight, appearance_weight, score_weight : float
        What counts for likeness: IoU of the masks, IoU with the box expected
        by motion, cosine of appearances (where the model gives them), score.
    least : float
        Less alike is not the same object.
    published_overlap : float
        Published rule: IoU from which a track counts as matched.
    new_threshold : float
        Score from which an unmatched detection begins a track.
    new_overlap : float
        Unless it overlaps a track with this IoU.
    delay : int
        Frames for which a young track is on probation; results come so much later.
    unmatched_limit : int
        A track on probation that goes unmatched on so many frames never was.
    keep_alive : int
        Frames in a row without a detection after which a track ends; -1 for never.
    agree : float
        Where the memory's mask overlaps a detection with a lower IoU, the memory is reminded of the detection.
    renew_every : int
        Every so many frames the memory of a track is renewed by a good detection; 0 for never.
    renew_score : float
        Score of a good detection.
    duplicate_overlap : float
        Of two tracks whose masks overlap with this IoU the younger goes. By the published rule, the one
        that was hidden last is taken to be hidden again.
    divisions : bool
        Take an object that appears out of a shrinking one for its daughter; for time, not for depth.
    duplicate_limit : int
        Published rule: a track on probation that shares its detection with an older one on so many frames never was.
    renew_overlap : float
        Published rule: IoU with the memory's mask from which a detection renews it.
    renew_from : {"detection", "memory"}
        Published rule: renew the memory by the mask detected, or, as transformers does, by its own.
    speck_area : int
        Published rule: holes and islands of so many cells of a mask are cleared.
    least_visible : float
        Published rule: a track that keeps less of its mask, where others are likelier, is remembered as hidden.
    """

    find: FindSettings = FindSettings()
    rule: Literal["assignment", "published"] = "assignment"
    overlap_weight: float = 0.5
    motion_weight: float = 0.25
    appearance_weight: float = 0.15
    score_weight: float = 0.1
    least: float = 0.2
    published_overlap: float = 0.5
    new_threshold: float = 0.5
    new_overlap: float = 0.3
    delay: int = 3
    unmatched_limit: int = 2
    keep_alive: int = 3
    agree: float = 0.8
    renew_every: int = 16
    renew_score: float = 0.8
    duplicate_overlap: float = 0.7
    divisions: bool = False
    duplicate_limit: int = 8
    renew_overlap: float = 0.8
    renew_from: Literal["detection", "memory"] = "detection"
    speck_area: int = 16
    least_visible: float = 0.3

    @classmethod
    def published(cls) -> TrackSettings:
        """SAM 3's rules and numbers."""
        return cls(
            find=FindSettings(overlap_threshold=0.1),
            rule="published",
            new_threshold=0.7,
            new_overlap=0.1,
            delay=15,
            unmatched_limit=8,
            keep_alive=-1,
        )
