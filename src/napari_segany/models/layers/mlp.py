"""Stacks of linear layers."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """Linear layers ``layers.0, layers.1, ...`` with ReLU between them, (..., c_in) to (..., c_out)."""

    def __init__(self, c_in: int, hidden: int, c_out: int, depth: int) -> None:
        super().__init__()
        widths = [c_in, *[hidden] * (depth - 1), c_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers ``lin1, lin2`` with an activation between them, (..., C) to the same."""

    def __init__(self, channels: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.activation: nn.Module = {"relu": nn.ReLU(), "gelu": nn.GELU()}[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.activation(self.lin1(x)))
