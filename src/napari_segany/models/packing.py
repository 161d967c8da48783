"""Embeddings as arrays that can be stored, and what tells one set of weights from another."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

#: The largest number that half precision holds.
LARGEST = 65504.0


def to_half(features: Tensor) -> np.ndarray:
    """Features as a float16 array; bfloat16 values keep all of their digits."""
    return features.float().clamp(-LARGEST, LARGEST).half().cpu().contiguous().numpy()


def from_half(array: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Undo `to_half`."""
    return torch.from_numpy(array).to(device=device, dtype=dtype)


def fingerprint(network: nn.Module) -> str:
    """Hash of all weights in the precision they are used in, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
