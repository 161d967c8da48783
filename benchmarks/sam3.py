"""SAM 3's image encoder at full size against transformers: same random weights, same dtype, one run.

``python benchmarks/sam3.py [--rounds 2] [--dtypes bfloat16]`` encodes one image
of 1008 x 1008 pixels, necks of detector and tracker included, and prints times,
their ratio, how far outputs lie apart, and the share of this machine's peak in
matrix products. Runs are taken in turns, and the fastest of each is counted,
in seconds of processor time over threads, which other work on the machine adds
little to.
"""

from __future__ import annotations

import argparse

import torch
from clock import gemm_peak, seconds
from torch import Tensor, nn
from transformers.models.sam3.configuration_sam3 import Sam3VisionConfig
from transformers.models.sam3.modeling_sam3 import Sam3VisionModel, Sam3VisionNeck

from napari_segany.models.sam3.layouts import from_transformers
from napari_segany.models.sam3.neck import Pyramid
from napari_segany.models.sam3.network import Sam3Config
from napari_segany.models.sam3.perception_encoder import PerceptionEncoder

NUMBERS = Sam3Config()
GRID = NUMBERS.memory.input_size // NUMBERS.memory.stride


class Theirs(nn.Module):
    """The parts of transformers' Sam3VideoModel that see the image, under its names."""

    def __init__(self) -> None:
        super().__init__()
        config = Sam3VisionConfig()
        self.detector_model = nn.ModuleDict({"vision_encoder": Sam3VisionModel(config)})
        self.tracker_neck = Sam3VisionNeck(config)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pixels to the levels of both necks."""
        seen = self.detector_model["vision_encoder"](pixels)
        features = seen.last_hidden_state.view(1, GRID, GRID, -1).permute(0, 3, 1, 2)
        return [*seen.fpn_hidden_states[:3], *self.tracker_neck(features)[0][:3]]


class Ours(nn.Module):
    """The same parts of `Sam3`."""

    def __init__(self) -> None:
        super().__init__()
        n, channels = NUMBERS, NUMBERS.memory.channels
        self.trunk = PerceptionEncoder(
            n.width, n.depth, n.heads, n.hidden, n.memory.stride, GRID, n.window, n.global_blocks, n.learned
        )
        self.detector_neck, self.tracker_neck = Pyramid(n.width, channels), Pyramid(n.width, channels)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pixels to the levels of both necks."""
        seen = self.trunk(pixels)
        return [*self.detector_neck(seen), *self.tracker_neck(seen)]


def products() -> float:
    """GFLOP of the encoder's matrix products and attentions, counted twice."""
    n, tokens = NUMBERS, GRID**2
    linear = n.depth * tokens * (4 * n.width**2 + 2 * n.width * n.hidden)
    seen = [tokens if i in n.global_blocks else n.window**2 for i in range(n.depth)]
    attention = sum(2 * tokens * keys * n.width for keys in seen)
    return 2 * (linear + attention) / 1e9


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16"])
    args = parser.parse_args()
    torch.manual_seed(0)
    theirs, ours = Theirs().eval(), Ours().eval()
    ours.load_state_dict(from_transformers(theirs.state_dict()), strict=True)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {products():.0f} GFLOP")
    for name in args.dtypes:
        dtype = getattr(torch, name)
        peak = gemm_peak(dtype)
        ours, theirs = ours.to(dtype), theirs.to(dtype)
        pixels = torch.randn(1, 3, NUMBERS.memory.input_size, NUMBERS.memory.input_size, dtype=dtype)
        # The first pass, which faults in the memory, is compared and not counted.
        apart = max(
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours(pixels), theirs(pixels), strict=True)
        )
        times = {"ours": float("inf"), "theirs": float("inf")}
        for _ in range(args.rounds):
            for who, network in (("ours", ours), ("theirs", theirs)):
                times[who] = min(times[who], seconds(lambda: network(pixels)))
        print(
            f"{name}: ours {times['ours']:.2f} s, transformers {times['theirs']:.2f} s, "
            f"ratio {times['theirs'] / times['ours']:.2f}, apart {apart:.1e}; "
            f"peak of matrix products {peak:.0f} GFLOP/s, share {products() / times['ours'] / peak:.0%} "
            f"(theirs {products() / times['theirs'] / peak:.0%})"
        )


if __name__ == "__main__":
    main()
