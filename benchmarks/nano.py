"""Latency of nano: encoding an image, and from a click to its mask; share of the machine's peak.

``python benchmarks/nano.py``
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from clock import gemm_peak
from torch.utils.flop_counter import FlopCounterMode

import napari_segany as segany


def median_ms(call: Callable[[int], object], rounds: int = 15) -> float:
    call(0)
    times = []
    for number in range(rounds):
        began = time.perf_counter()
        call(number)
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times))


def main() -> None:
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    rng = np.random.default_rng(0)
    for dtype in ("float32", "auto"):
        model = segany.load_model("nano", device="cpu", dtype=dtype)
        peak = gemm_peak(model.dtype)
        print(f"dtype {dtype} ({str(model.dtype).removeprefix('torch.')}), peak {peak:.0f} GFLOP/s")
        for side in (256, 512, 1024):
            image = (rng.random((side, side)) * 255).astype(np.uint8)
            tensor = torch.zeros(1, 3, side, side, dtype=model.dtype)
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                model.network.encoder(tensor)
            encode = median_ms(lambda _, image=image: model.embed(image), 5)
            embedding = model.embed(image)
            places = rng.uniform(0.1 * side, 0.9 * side, (16, 2))

            def click(number: int, embedding=embedding, places=places) -> object:
                return segany.segment(embedding, points=[places[number]], model=model).best

            def box(number: int, embedding=embedding, places=places) -> object:
                y, x = places[number]
                return segany.segment(embedding, box=(y - 20, x - 20, y + 20, x + 20), model=model).best

            boxes = [(y - 20, x - 20, y + 20, x + 20) for y, x in places]
            batch = median_ms(lambda _, e=embedding, b=boxes: segany.segment_boxes(e, b, model=model), 5)
            share = counter.get_total_flops() / 1e9 / (encode / 1e3) / peak
            print(
                f"  {side:5} px: embed {encode:6.0f} ms ({share:.0%} of peak), "
                f"click to mask {median_ms(click):5.0f} ms, box {median_ms(box):5.0f} ms, 16 boxes {batch:5.0f} ms"
            )


if __name__ == "__main__":
    main()
