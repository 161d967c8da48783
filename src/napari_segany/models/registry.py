"""The models that can be loaded by name, and loading by name or path."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from napari_segany.core.durable import replacing
from napari_segany.core.errors import StorageError, UnknownModelError
from napari_segany.core.paths import exists
from napari_segany.core.protocols import WEIGHT_SUFFIXES, ImageModel, ModelInfo

if TYPE_CHECKING:
    from napari_segany.models.download import Progress

SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
BIOIMAGE = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/"
MIB = 1_000_000
#: Of the note beside an imported model.
VERSION = 1
#: What that note says of a model that was taught, see `napari_segany.training.adapt.Provenance`.
PROVENANCE = frozenset({"base", "date", "objects", "held_out", "steps", "before", "after", "note"})


#: What families can do beyond single images.
CAPABILITIES = {"nano": ("stack", "concept"), "sam2": ("stack",), "sam3": ("stack", "concept")}


def _info(name: str, family: str, size: int, licence: str, url: str) -> ModelInfo:
    can = frozenset({"image", *CAPABILITIES.get(family, ())})
    return ModelInfo(name, family, can, size, licence, installed=False, gated=family == "sam3", url=url)


#: Sizes follow from the number of parameters; micro-sam does not state a licence for its weights.
REGISTERED = [
    _info("nano", "nano", 13 * MIB, "BSD-3-Clause", ""),
    _info(
        "mobile-sam",
        "mobile-sam",
        40 * MIB,
        "Apache-2.0",
        "https://owncloud.gwdg.de/index.php/s/TuDzuwVDHd1ZDnQ/download",
    ),
    _info("sam-vit-b", "sam", 375 * MIB, "Apache-2.0", SAM + "sam_vit_b_01ec64.pth"),
    _info("sam-vit-l", "sam", 1249 * MIB, "Apache-2.0", SAM + "sam_vit_l_0b3195.pth"),
    _info("sam-vit-h", "sam", 2564 * MIB, "Apache-2.0", SAM + "sam_vit_h_4b8939.pth"),
    _info("sam2.1-tiny", "sam2", 156 * MIB, "Apache-2.0", SAM2 + "sam2.1_hiera_tiny.pt"),
    _info("sam2.1-small", "sam2", 184 * MIB, "Apache-2.0", SAM2 + "sam2.1_hiera_small.pt"),
    _info("sam2.1-base-plus", "sam2", 323 * MIB, "Apache-2.0", SAM2 + "sam2.1_hiera_base_plus.pt"),
    _info("sam2.1-large", "sam2", 898 * MIB, "Apache-2.0", SAM2 + "sam2.1_hiera_large.pt"),
    _info("sam3", "sam3", 3440 * MIB, "SAM License", "https://huggingface.co/facebook/sam3/resolve/main/sam3.pt"),
    _info("vit_t_lm", "mobile-sam", 40 * MIB, "not stated", BIOIMAGE + "faithful-chicken/1.1/files/vit_t.pt"),
    _info("vit_b_lm", "sam", 375 * MIB, "not stated", BIOIMAGE + "diplomatic-bug/1.2/files/vit_b.pt"),
    _info("vit_l_lm", "sam", 1249 * MIB, "not stated", BIOIMAGE + "idealistic-rat/1.2/files/vit_l.pt"),
    _info("vit_t_em_organelles", "mobile-sam", 40 * MIB, "not stated", BIOIMAGE + "greedy-whale/1/files/vit_t.pt"),
    _info("vit_b_em_organelles", "sam", 375 * MIB, "not stated", BIOIMAGE + "noisy-ox/1.2/files/vit_b.pt"),
    _info("vit_l_em_organelles", "sam", 1249 * MIB, "not stated", BIOIMAGE + "humorous-crab/1.2/files/vit_l.pt"),
]


#: Beginnings of checksums that publishers state, by name.
SHA256 = {"sam-vit-b": "01ec64", "sam-vit-l": "0b3195", "sam-vit-h": "4b8939"}


def models_folder() -> Path:
    """Where downloaded models lie: ``SEGANY_CACHE``, or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("SEGANY_CACHE")
    return (Path(chosen) if chosen else user_cache_path("napari-segany")) / "models"


def _installed_file(info: ModelInfo) -> Path | None:
    for suffix in WEIGHT_SUFFIXES:
        path = models_folder() / (info.name + suffix)
        if path.exists():
            return path
    return None


def _place(info: ModelInfo) -> Path:
    return models_folder() / (info.name + (Path(urlsplit(info.url).path).suffix or ".pt"))


def download_model(name: str, token: str | None = None, progress: Progress | None = None) -> Path:
    """Fetch the weights of a registered model; see `napari_segany.models.download.download`."""
    from napari_segany.models.download import download

    info = next((info for info in REGISTERED if info.name == name and info.url), None)
    if info is None:
        known = ", ".join(info.name for info in REGISTERED if info.url)
        raise UnknownModelError(f'There is nothing to download for "{name}"; models to download are {known}.')
    found = _installed_file(info)
    token = token or os.environ.get("HF_TOKEN")
    return found or download(info.url, _place(info), SHA256.get(name, ""), token if info.gated else None, progress)


def import_model(path: Path, name: str | None = None) -> ModelInfo:
    """Check a checkpoint and copy it to where models are kept, so that it can be loaded by name.

    Raises
    ------
    CheckpointError
        See `load_model`.
    StorageError
        The name is taken, or the copy failed.
    """
    name = name or path.stem
    model = load_model(path)
    if any(info.name == name for info in list_models()):
        raise StorageError(f'There is a model "{name}" already; give another name.')
    if not name or Path(name).name != name:
        raise StorageError(f'"{name}" is no name for a model; use letters, digits, - and _.')
    return keep_model(name, path.suffix, model.family, partial(shutil.copyfile, path))


def keep_model(
    name: str, suffix: str, family: str, write: Callable[[Path], Any], provenance: Mapping[str, Any] | None = None
) -> ModelInfo:
    """Put a model where models are kept, so that it can be loaded by name.

    Parameters
    ----------
    name, suffix, family : str
    write : callable
        Writes the weights to a path.
    provenance : mapping, optional
        Where a taught model comes from.

    Raises
    ------
    StorageError
        The disk refuses; a model of this name that was there is as it was.
    """
    place = models_folder() / (name + suffix)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # The note first: a model without one is taken for nano.
        with replacing(_note(place)) as new:
            new.write_text(json.dumps({"version": VERSION, "family": family, "provenance": provenance}))
        with replacing(place) as new:
            write(new)
    except OSError as error:
        raise StorageError(f"The model {name} cannot be kept in {place.parent}: {error.strerror or error}.") from error
    return next(info for info in list_models() if info.name == name)


def list_models() -> list[ModelInfo]:
    """List every registered model and whether its weights are on this computer."""
    listed = [replace(info, installed=not info.url or _installed_file(info) is not None) for info in REGISTERED]
    return listed + _own()


def _own() -> list[ModelInfo]:
    """Models that people have taught (see `napari_segany.training.fit`) or imported on this computer."""
    names = {info.name for info in REGISTERED}
    found = []
    for path in sorted(models_folder().glob("*")):
        if path.suffix not in WEIGHT_SUFFIXES or path.stem in names or path.name.startswith("."):
            continue
        family = str(_noted(path, "family", "nano") or "unknown")
        can = frozenset({"image", *CAPABILITIES.get(family, ())})
        taught = _noted(path, "provenance", None)
        # A note that anything may have written.
        taught = taught if isinstance(taught, dict) and taught.keys() >= PROVENANCE else None
        size = path.stat().st_size
        found.append(ModelInfo(path.stem, family, can, size, "your own", True, False, provenance=taught))
    return found


def _note(path: Path) -> Path:
    """Where it is written of what family a person's own model is, and where it comes from."""
    return path.with_suffix(".json")


def _noted(path: Path, what: str, without: Any) -> Any:
    """What the note of a model says; `without` one."""
    try:
        return json.loads(_note(path).read_text()).get(what)
    except FileNotFoundError:
        return without
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def load_model(name: str | Path, device: str = "auto", dtype: str = "auto") -> ImageModel:
    """Load a model by registered name or checkpoint path; see `napari_segany.load_model`."""
    from napari_segany.models.device import resolve_device, resolve_dtype

    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    info = next((info for info in REGISTERED if info.name == str(name)), None)
    if info is None and isinstance(name, str) and Path(name).name == name:
        # Before whatever of this name lies in the working folder: the images that a model was taught on, for one.
        own = [models_folder() / f"{name}{suffix}" for suffix in WEIGHT_SUFFIXES]
        name = next((path for path in own if exists(path)), name)
    if info is not None and not info.url:
        from napari_segany.models.nano.weights import load_nano

        return load_nano(where, precision)
    path = Path(name) if info is None else _installed_file(info)
    if info is None and not exists(Path(name)) and not Path(name).suffix:
        known = ", ".join(info.name for info in REGISTERED)
        raise UnknownModelError(f'There is no model or file "{name}"; registered models are {known}.')
    if path is None:
        assert info is not None
        agreement = ", after agreeing to its publisher's licence there" if info.gated else ""
        raise UnknownModelError(
            f'The weights of "{info.name}" are not on this computer: run "segany models download {info.name}"'
            f" or get them from {info.url}{agreement} and save them as {_place(info)}."
        )
    return _load_checkpoint(path, where, precision, info)


def _load_checkpoint(path: Path, device: object, dtype: object, info: ModelInfo | None) -> ImageModel:
    from napari_segany.models import checkpoints
    from napari_segany.models.nano.weights import is_nano, load_nano
    from napari_segany.models.sam import layouts as sam
    from napari_segany.models.sam.predictor import SamModel
    from napari_segany.models.sam2 import layouts as sam2
    from napari_segany.models.sam2.network import Sam2
    from napari_segany.models.sam2.predictor import Sam2Model
    from napari_segany.models.sam3 import layouts as sam3
    from napari_segany.models.sam3.network import Sam3
    from napari_segany.models.sam3.predictor import Sam3Model

    state = checkpoints.read_state(path)
    if is_nano(state):
        return load_nano(device, dtype, path)  # type: ignore[arg-type]
    layout, size = checkpoints.recognise(state, [*sam.LAYOUTS, *sam2.LAYOUTS, *sam3.LAYOUTS], str(path))
    network = checkpoints.build(state, layout, size, str(path))
    name = info.name if info is not None else path.stem
    if isinstance(network, Sam3):
        folder = path if path.is_dir() else path.parent
        return Sam3Model(network, name, device, dtype, folder)  # type: ignore[arg-type]
    if isinstance(network, Sam2):
        return Sam2Model(network, name, device, dtype)  # type: ignore[arg-type]
    return SamModel(network, name, layout.family, device, dtype, _noted(path, "provenance", None))  # type: ignore[arg-type]
