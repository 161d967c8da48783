"""The weight file of nano: half-precision safetensors with the network's numbers beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_segany.core.errors import CheckpointError
from napari_segany.models.checkpoints import Layout, State, build
from napari_segany.models.nano.network import Nano, NanoConfig
from napari_segany.models.nano.predictor import NanoModel


def save_weights(model: Nano, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a model as fp16 safetensors, with where it comes from."""
    state = {name: value.to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    metadata = {"family": "nano", "config": json.dumps(asdict(model.config)), "provenance": json.dumps(provenance)}
    save_file(state, path, metadata=metadata)


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
    source = path or Path(str(files("napari_segany.models.nano") / "nano.safetensors"))
    try:
        with safe_open(source, framework="pt") as file:
            numbers = json.loads(file.metadata()["config"])
            provenance = json.loads(file.metadata().get("provenance", "null"))
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        config = NanoConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in numbers.items()})  # type: ignore[arg-type]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} is damaged or no weight file of nano ({error}).") from error
    layout = Layout("nano", lambda _: "nano", dict, lambda _: Nano(config))
    network = build(state, layout, "nano", str(source))
    assert isinstance(network, Nano)
    return NanoModel(network, "nano" if path is None else path.stem, device, dtype, provenance)
