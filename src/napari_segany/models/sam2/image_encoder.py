"""Hiera with a feature pyramid (Lin et al. 2017) that mixes its two coarsest levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import linear
from napari_segany.models.sam2.hiera import Hiera


class LateralConv(nn.Module):
    """The 1x1 convolution of one level of the pyramid."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, c_in) to (B, H, W, c_out): on channels that come last, one matrix product."""
        return linear(x, self.conv.weight.flatten(1), self.conv.bias)


class Neck(nn.Module):
    """Bring features of strides 4, 8, 16 and 32 to one width.

    Parameters
    ----------
    widths : 4 ints
        Channels at strides 4, 8, 16, 32.
    channels : int
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        # Published checkpoints count from the coarsest level.
        self.convs = nn.ModuleList(LateralConv(width, channels) for width in reversed(widths))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Four (B, H, W, C) to three (B, H, W, channels) at strides 4, 8 and 16."""
        fine, middle, coarse, coarsest = (
            conv(x)
            for conv, x in zip(reversed(self.convs), features, strict=True)  # type: ignore[arg-type]
        )
        down = F.interpolate(coarsest.permute(0, 3, 1, 2).float(), scale_factor=2, mode="nearest")
        return [fine, middle, coarse + down.permute(0, 2, 3, 1).to(coarse.dtype)]


class ImageEncoder(nn.Module):
    """Trunk and neck under the names of the published checkpoints."""

    def __init__(self, trunk: Hiera, neck: Neck) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) normalised to (B, S/4, S/4, C), (B, S/8, S/8, C), (B, S/16, S/16, C)."""
        return self.neck(self.trunk(x))
