"""The weight file of nano: half-precision safetensors with the network's numbers beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_segany.core.durable import replacing
from napari_segany.core.errors import CheckpointError, first_line
from napari_segany.models.checkpoints import Layout, State, Undrawn, build
from napari_segany.models.nano.judge import Judge
from napari_segany.models.nano.mask_iou_head import MaskIoUHead
from napari_segany.models.nano.network import MASKS, Nano, NanoConfig
from napari_segany.models.nano.predictor import NanoModel

#: Of the file; those without are of the first, which has no `MaskIoUHead`, and those before 3 no `VolumeNetwork`.
VERSION = 3
#: Channels and depths above this are those of no network of ours.
LARGEST = 512
#: What the judge looked at before it was shown how far looks agree. What a person taught a model then, or before there
#: was a `MaskIoUHead`, is kept; only these begin anew, and give the decoder's scores.
EARLIER_FIGURES = 17
#: Names of the weights of `MaskIoUHead`.
HEAD = "decoder.mask_iou."
#: Names of the weights of `VolumeNetwork`.
VOLUME = "volume."


def save_weights(model: Nano, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a model as fp16 safetensors, with where it comes from, in one step.

    Raises
    ------
    OSError
        The place cannot be written; a file that was there is as it was.
    """
    state = {name: value.to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    metadata = {
        "version": str(VERSION),
        "family": "nano",
        "config": json.dumps(asdict(model.config)),
        "provenance": json.dumps(provenance),
    }
    with replacing(path) as new:
        try:
            save_file(state, new, metadata=metadata)
        except SafetensorError as error:
            raise OSError(first_line(error)) from error


def is_nano(state: State) -> bool:
    """Whether a state is one of nano."""
    return "decoder.to_weights.weight" in state and "encoder.stem.0.0.weight" in state


def load_nano(device: torch.device, dtype: torch.dtype, path: Path | None = None) -> NanoModel:
    """Load the weights in the package, or those at `path`.

    Raises
    ------
    CheckpointError
        The file is damaged or was not written by `save_weights`.
    """
    shipped = Path(str(files("napari_segany.models.nano") / "nano.safetensors"))
    source = path or shipped
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata()
            newer = int(metadata.get("version", 1)) > VERSION
            config = _config(json.loads(metadata["config"]))
            provenance = json.loads(metadata.get("provenance", "null"))
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{source} is damaged or no weight file of nano ({first_line(error)}).") from error
    if newer:
        raise CheckpointError(f"{source} was written by a newer version; update napari-segany.")
    if (earlier := state.get("judge.mlp.0.weight")) is not None and earlier.shape[1:] == (EARLIER_FIGURES,):
        state |= {f"judge.{name}": value for name, value in Judge(MASKS).state_dict().items()}
    if is_nano(state) and not any(key.startswith(HEAD) for key in state):
        head = MaskIoUHead(MASKS, config.coarse, config.decoder_width)
        state |= {f"{HEAD}{name}": value for name, value in head.state_dict().items()}
    if is_nano(state) and not any(key.startswith(VOLUME) for key in state):
        # A person teaches nothing of it, so that of the package serves as well.
        with safe_open(shipped, framework="pt") as file:
            state |= {key: file.get_tensor(key).float() for key in file.keys() if key.startswith(VOLUME)}  # noqa: SIM118
    layout = Layout("nano", lambda _: "nano", dict, lambda _: Nano(config))
    network = build(state, layout, "nano", str(source))
    assert isinstance(network, Nano)
    return NanoModel(network, "nano" if path is None else path.stem, device, dtype, provenance)


def _config(numbers: Mapping[str, Any]) -> NanoConfig:
    """The numbers of a network that can be built."""
    config = NanoConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in numbers.items()})  # type: ignore[arg-type]
    stated = [n for value in astuple(config) for n in (value if isinstance(value, tuple) else (value,))]
    if not all(type(n) is int and 1 <= n <= LARGEST for n in stated):
        raise ValueError(f"the numbers of a network lie between 1 and {LARGEST}")
    with torch.device("meta"), Undrawn():
        Nano(config)
    return config
