"""Neck: features of one stride to a pyramid of three (Li et al. 2022)."""

from __future__ import annotations

from torch import Tensor, nn


class Level(nn.Module):
    """Enlarge by 4, 2 or 1, and bring to another width; (B, c_in, H, W) to (B, c_out, H', W')."""

    def __init__(self, c_in: int, c_out: int, times: int) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        width = c_in
        while times > 1:
            steps += [nn.GELU()] if steps else []
            steps += [nn.ConvTranspose2d(width, width // 2, 2, stride=2)]
            width, times = width // 2, times // 2
        self.up = nn.Sequential(*steps)
        self.conv_1x1 = nn.Conv2d(width, c_out, 1)
        self.conv_3x3 = nn.Conv2d(c_out, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_3x3(self.conv_1x1(self.up(x)))


class Pyramid(nn.Module):
    """Levels at a quarter and at half of the features' stride, and at that stride."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Level(c_in, c_out, times) for times in (4, 2, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, c_in, H, W) to (B, c_out, 4H, 4W), (B, c_out, 2H, 2W), (B, c_out, H, W)."""
        return [level(x) for level in self.convs]
