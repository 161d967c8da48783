"""Segment anything in microscopy: prompts to masks to labels, in napari, in scripts and on the command line.

Everything a script needs hangs on this module::

    import napari_segany as segany
    candidates = segany.segment(image, points=[(y, x)])

Coordinates are array-index coordinates, rows first: a point is (y, x), a box
is (y0, x0, y1, x1), half-open. Importing this module loads neither torch nor Qt.
"""

from napari_segany import samples, training
from napari_segany.api import (
    Session,
    VolumeSession,
    download_model,
    embed,
    everything,
    export_tracks,
    find,
    import_model,
    list_models,
    load_model,
    precompute,
    segment,
    segment_boxes,
)
from napari_segany.core.errors import SeganyError
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange
from napari_segany.core.masks import Candidates
from napari_segany.core.protocols import ModelInfo
from napari_segany.core.settings import EverythingSettings, FindSettings, PropagationSettings, TrackSettings
from napari_segany.labelling import label

__version__ = "0.1.0"

__all__ = [
    "Candidates",
    "EverythingSettings",
    "FindSettings",
    "Instances",
    "IntensityRange",
    "ModelInfo",
    "PropagationSettings",
    "SeganyError",
    "Session",
    "TrackSettings",
    "VolumeSession",
    "download_model",
    "embed",
    "everything",
    "export_tracks",
    "find",
    "import_model",
    "label",
    "list_models",
    "load_model",
    "precompute",
    "samples",
    "segment",
    "segment_boxes",
    "training",
]
