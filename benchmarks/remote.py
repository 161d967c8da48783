"""Click to mask with a model on another computer, over loopback, against the same model here.

``python benchmarks/remote.py`` starts a Dask scheduler and one worker on this
computer. Here and there take turns with one thread each. The worker notes how
long it computes itself; what is left of the time is the way there and back.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from clock import timed
from distributed import LocalCluster

import napari_segany as segany
from napari_segany.cluster import server


class TimedServer(server.ModelServer):
    """Notes the seconds of its last call."""

    seconds = 0.0

    def call(self, method: str, *args: Any) -> tuple[bool, Any]:
        """Answer; "last" asks for the seconds."""
        if method == "last":
            return True, self.seconds
        began = time.perf_counter()
        answer = super().call(method, *args)
        self.seconds = time.perf_counter() - began
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--clicks", type=int, default=15)
    args = parser.parse_args()
    # As Dask does for its workers.
    torch.set_num_threads(1)
    server.ModelServer = TimedServer  # type: ignore[misc]
    image = (np.random.default_rng(0).random((args.side, args.side)) * 60000).astype(np.uint16)
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        here = segany.load_model("nano", device="cpu")
        there: Any = segany.load_model("nano", device=cluster.scheduler_address)
        places = np.random.default_rng(1).uniform(0.1 * args.side, 0.9 * args.side, (args.clicks, 2))
        near, far = here.embed(image), there.embed(image)
        kinds = {
            "click": lambda y, x: {"points": [(y, x)]},
            "box": lambda y, x: {"box": (y - 20, x - 20, y + 20, x + 20)},
        }
        for kind, prompt in kinds.items():
            rows = []
            for y, x in places:
                local = timed(lambda: segany.segment(near, model=here, **prompt(y, x)).best)
                remote = timed(lambda: segany.segment(far, model=there, **prompt(y, x)).best)
                rows.append((local, remote, remote - there.link.call("last")))
            local, remote, way = 1e3 * np.median(rows, axis=0)
            print(f"{kind}: here {local:.0f} ms, there {remote:.0f} ms, of which on the way {way:.0f} ms")
        way = timed(lambda: there.embed(image)) - there.link.call("last")
        print(f"sending a plane of {args.side} pixels: {1e3 * way:.0f} ms on the way")
        there.link.close()


if __name__ == "__main__":
    main()
