"""Click to mask with a model on another computer, over loopback, against the same model here.

``python benchmarks/remote.py`` starts a Dask scheduler and one worker on this
computer. Here and there take turns with one thread each, so that other work
on the machine slows both alike; "nothing" is a call without work.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from distributed import LocalCluster
from sam import timed

import napari_segany as segany


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--clicks", type=int, default=15)
    args = parser.parse_args()
    # As Dask does for its workers.
    torch.set_num_threads(1)
    image = (np.random.default_rng(0).random((args.side, args.side)) * 60000).astype(np.uint16)
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        models = {"here": segany.load_model("nano", device="cpu")}
        models["there"] = segany.load_model("nano", device=cluster.scheduler_address)
        embeddings, encode = {}, {}
        for name, model in models.items():
            model.embed(image)
            encode[name] = timed(lambda name=name, model=model: embeddings.update({name: model.embed(image)}))  # type: ignore[misc]
        places = np.random.default_rng(1).uniform(0.1 * args.side, 0.9 * args.side, (args.clicks, 2))
        times: dict[str, list[float]] = {f"{kind}, {name}": [] for kind in ("click", "box") for name in models}
        for y, x in places:
            for name, model in models.items():
                embedding = embeddings[name]
                click = timed(lambda: segany.segment(embedding, points=[(y, x)], model=model).best)
                box = timed(lambda: segany.segment(embedding, box=(y - 20, x - 20, y + 20, x + 20), model=model).best)
                times[f"click, {name}"].append(1e3 * click)
                times[f"box, {name}"].append(1e3 * box)
        for kind in ("click", "box"):
            here, there = (np.array(times[f"{kind}, {name}"]) for name in models)
            print(
                f"{kind}: here {np.median(here):.0f} ms, there {np.median(there):.0f} ms; "
                f"median difference of pairs {np.median(there - here):+.0f} ms"
            )
        nothing = [1e3 * timed(lambda: models["there"].link.call("facts")) for _ in range(args.clicks)]
        print(f"nothing: {np.median(nothing):.1f} ms")
        print(f"embed {args.side} px: here {1e3 * encode['here']:.0f} ms, there {1e3 * encode['there']:.0f} ms")
        models["there"].link.close()


if __name__ == "__main__":
    main()
