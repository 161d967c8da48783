"""What a session is made of, as plain data that can be written down."""

from __future__ import annotations

from dataclasses import dataclass, field

from napari_segany.core.intensity import IntensityRange
from napari_segany.core.prompts import Prompt

#: (object id, frame)
Key = tuple[int, int]
#: What a session knows by object id and frame; attributes of `SessionState` and of a session.
TABLES = ("prompts", "accepted", "scores", "parents", "clicks")


@dataclass(frozen=True)
class ImageReference:
    """Where the stack of a session came from.

    Attributes
    ----------
    path : str or None
        None for an array in memory, which a person has to give again.
    axes : str
    axis : str or None
        Propagation axis by name; None for a single plane.
    index : dict of axis name -> position
    shape : shape of the stack, (N, H, W[, C])
    intensity : IntensityRange
    """

    path: str | None
    axes: str
    axis: str | None
    index: dict[str, int]
    shape: tuple[int, ...]
    intensity: IntensityRange


@dataclass
class SessionState:
    """Everything of a session but its pixels.

    Attributes
    ----------
    image : ImageReference
    model : str
        Name of the model used last.
    prompts, accepted, scores : dicts of (object id, frame)
    parents : dict of (object id, first frame) -> id of the object it came from by division
    clicks : dict of (object id, frame) -> prompts a person gave until the mask there was accepted
    finished : set of frames that a propagation has written
    """

    image: ImageReference
    model: str
    prompts: dict[Key, Prompt] = field(default_factory=dict)
    accepted: dict[Key, bool] = field(default_factory=dict)
    scores: dict[Key, float] = field(default_factory=dict)
    parents: dict[Key, int] = field(default_factory=dict)
    clicks: dict[Key, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
