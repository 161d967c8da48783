"""SAM ViT-B against transformers: encoding and 64 prompts, same weights, same dtype, one run.

``python benchmarks/sam.py`` prints times, ratios, and the share of this
machine's peak in matrix products. Runs are interleaved and the fastest of each
is taken, in seconds of processor time over threads, for other work on the
machine makes times longer, never shorter.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from clock import fastest, gemm_peak
from transformers import SamConfig
from transformers import SamModel as TransformersSam

from napari_segany.core.prompts import Prompt
from napari_segany.models.sam.layouts import from_transformers
from napari_segany.models.sam.network import build_sam
from napari_segany.models.sam.predictor import SamModel

#: Multiply-adds of ViT-B's encoder on 1024 x 1024, counted twice; of 64 prompts by the published route.
ENCODE_GFLOP, PROMPTS_GFLOP = 742, 232


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    args = parser.parse_args()
    torch.manual_seed(0)
    theirs = TransformersSam(SamConfig()).eval()
    network = build_sam("vit_b")
    network.load_state_dict(from_transformers(theirs.state_dict()))
    points = np.random.default_rng(0).uniform(100, 900, (64, 2))
    prompts = [Prompt(points=point[None], labels=np.ones(1, dtype=np.int64)) for point in points]
    input_points = torch.from_numpy(points[:, ::-1].astype(np.float32).copy())[None, :, None]
    image = torch.randn(1, 3, 1024, 1024)
    array = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in args.dtypes:
        dtype = getattr(torch, name)
        peak = gemm_peak(dtype)
        ours = SamModel(network, "vit_b", "sam", torch.device("cpu"), dtype)
        theirs = theirs.to(dtype)
        x = image.to(dtype)
        encode = fastest(
            {"ours": lambda: ours.network.image_encoder(x), "theirs": lambda: theirs.get_image_embeddings(x)},
            args.rounds,
        )
        embedding = ours.embed(array)
        features = embedding.features.transpose(1, 2).reshape(1, 256, 64, 64).contiguous()
        decode = fastest(
            {
                "ours": lambda: ours.predict(embedding, prompts, True),
                "theirs": lambda: theirs(
                    image_embeddings=features, input_points=input_points.to(dtype), multimask_output=True
                ),
            },
            args.rounds,
        )
        print(f"{name}: peak of matrix products {peak:.0f} GFLOP/s")
        for what, times, gflop in (("encode", encode, ENCODE_GFLOP), ("64 prompts", decode, PROMPTS_GFLOP)):
            ratio = times["theirs"] / times["ours"]
            print(
                f"  {what:10} ours {times['ours']:.2f} s, transformers {times['theirs']:.2f} s, ratio {ratio:.2f}, "
                f"share of peak {gflop / times['ours'] / peak:.0%} (theirs {gflop / times['theirs'] / peak:.0%})"
            )


if __name__ == "__main__":
    main()
