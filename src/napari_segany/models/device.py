"""Which device and precision to compute with."""

from __future__ import annotations

import torch

from napari_segany.core import memory
from napari_segany.core.errors import UnsupportedError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that is there.

    Raises
    ------
    UnsupportedError
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UnsupportedError(f'"{name}" is no device; use "auto", "cpu", "cuda" or "mps".') from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise UnsupportedError(f'This computer has no device "{name}"; use "auto" or "cpu".')
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn "auto" or a dtype's name into a dtype that `device` is fast with.

    Raises
    ------
    UnsupportedError
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        if device.type == "cpu" and _cpu_multiplies_bfloat16():
            return torch.bfloat16
        return torch.float32
    if name not in DTYPES:
        raise UnsupportedError(f'"{name}" is no precision; use "auto", {", ".join(DTYPES)}.')
    if name == "float16" and device.type == "cpu":
        raise UnsupportedError('A CPU does not compute in float16; use "auto", "bfloat16" or "float32".')
    return DTYPES[name]


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, None where it does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return memory.free_memory()


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has matrix instructions for bfloat16; without them it is slower than float32."""
    capabilities: dict[str, bool] = dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}
    if capabilities:
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())
