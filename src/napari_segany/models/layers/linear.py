"""Linear layers at the full speed of the processor.

PyTorch hands products in single precision to MKL, which on AMD's processors
uses half of the registers' width. oneDNN, which PyTorch brings along for half
precision and convolutions, uses all of it, and is twice as fast. In half
precision PyTorch uses it too, but copies the bias into the answer before, and
goes over the answer again for an activation; oneDNN does both on the way.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["none", "relu", "gelu"]
ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


def _dtypes() -> set[torch.dtype]:
    """Find out in which numbers oneDNN multiplies on this machine."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return set()
    return {torch.float32} | ({torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set())


ONEDNN = _dtypes()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """Do as `torch.nn.functional.linear`, and then as an activation: (..., c_in) times (c_out, c_in) transposed."""
    if x.device.type == "cpu" and x.dtype == weight.dtype and x.dtype in ONEDNN and not torch.is_grad_enabled():
        # It takes a bias for dense whatever it is, and is a hundred times slower where rows have gaps between them.
        weight = weight if weight.t().is_contiguous() else weight.contiguous()
        bias = None if bias is None else bias.contiguous()
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, activation, [], "none")
    return ACTIVATIONS[activation](F.linear(x, weight, bias))


def product(x: Tensor, y: Tensor, into: Tensor) -> Tensor:
    """Multiply (N, C) by (M, C) transposed, (N, M); what lies in `into`, of that shape, may be lost to it.

    Half precision is written there, in memory that the cache still holds, which is a tenth faster.
    """
    return linear(x, y) if x.dtype == torch.float32 else torch.mm(x, y.t(), out=into)


class Linear(nn.Linear):
    """`torch.nn.Linear` that uses `linear`."""

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        return linear(x, self.weight, self.bias, activation)
