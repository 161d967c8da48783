"""The weight file of nano: half-precision safetensors with the network's numbers beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from napari_segany.models.nano.network import Nano


def save_weights(model: Nano, path: Path) -> None:
    """Write a model as fp16 safetensors."""
    state = {name: value.to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, metadata={"family": "nano", "config": json.dumps(asdict(model.config))})
