"""Carrying masks from frame to frame: the mask found on one frame prompts the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Embedding, ImageModel
from napari_segany.core.settings import PropagationSettings
from napari_segany.session.carried import Carried

#: Where an object is known: frame -> what to ask there, or the mask already given.
Anchors = Mapping[int, Prompt | Carried]


def carry(
    model: ImageModel,
    embed: Callable[[int], Embedding],
    objects: Mapping[int, Anchors],
    frames: Sequence[int],
    settings: PropagationSettings,
) -> Iterator[tuple[int, dict[int, Carried]]]:
    """Carry objects along frames in one direction, all objects of a frame in one batch.

    Parameters
    ----------
    model : ImageModel
    embed : callable
        Gives the embedding of a frame; not called where nothing is asked.
    objects : object id -> Anchors
        An object starts at its first anchor in the order of `frames`; later
        ones put it right again, or bring it back.
    frames : frames in the order to visit
    settings : PropagationSettings

    Yields
    ------
    frame : int
    found : object id -> Carried
        Objects present on that frame.
    """
    alive: dict[int, Carried] = {}
    for frame in frames:
        found: dict[int, Carried] = {}
        asked: dict[int, Prompt] = {}
        for object_id, anchors in objects.items():
            anchor = anchors.get(frame)
            if isinstance(anchor, Carried):
                found[object_id] = anchor
            elif anchor is not None:
                asked[object_id] = anchor
            elif object_id in alive:
                asked[object_id] = alive[object_id].next_prompt()
        if asked:
            answers = model.predict(embed(frame), list(asked.values()))
            for object_id, answer in zip(asked, answers, strict=True):
                now = Carried.from_candidates(answer)
                prompted = frame in objects[object_id]
                if (prompted and not now.is_empty) or (not prompted and now.continues(alive[object_id], settings)):
                    found[object_id] = now
        alive = found
        yield frame, found
