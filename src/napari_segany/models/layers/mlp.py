"""Stacks of linear layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import Activation, Linear

#: Rows that go through a feed-forward together on a CPU.
ROWS_AT_ONCE = 1024


def by_rows(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Let (..., C) rows go through layers that treat each on its own, on a CPU some at a time.

    The hidden layer of a whole image falls out of the cache and is faulted in page by page.
    """
    rows = x.flatten(0, -2)
    if x.device.type != "cpu" or len(rows) <= 2 * ROWS_AT_ONCE:
        return work(x)
    return torch.cat([work(part) for part in rows.split(ROWS_AT_ONCE)]).view(x.shape)


class Mlp(nn.Module):
    """Linear layers ``layers.0, layers.1, ...`` with ReLU between them, (..., c_in) to (..., c_out)."""

    def __init__(self, c_in: int, hidden: int, c_out: int, depth: int) -> None:
        super().__init__()
        widths = [c_in, *[hidden] * (depth - 1), c_out]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, "relu")
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers ``lin1, lin2`` with an activation between them, (..., C) to the same."""

    def __init__(self, channels: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.lin1, self.lin2 = Linear(channels, hidden), Linear(hidden, channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return by_rows(lambda rows: self.lin2(self.lin1(rows, self.activation)), x)
