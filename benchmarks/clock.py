"""How long calls take, and the speed that matrix products can reach."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from napari_segany.models.layers.linear import linear


def timed(call: Callable[[], object]) -> float:
    """Seconds by the clock on the wall."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, of each thread, which other work on the machine adds little to."""
    began = time.process_time()
    call()
    return (time.process_time() - began) / torch.get_num_threads()


def fastest(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Fewest seconds of each call, taken in turns after one call to warm up."""
    for call in calls.values():
        call()
    times = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] = min(times[name], seconds(call))
    return times


@torch.inference_mode()
def gemm_peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Fastest of a few square matrix products by the fastest library, GFLOP/s."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda by=by: by(a, b)) for by in [torch.mm, linear] * 8) / 1e9  # type: ignore[misc]
