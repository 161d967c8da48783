"""Linear layers at the full speed of the processor.

PyTorch hands products in single precision to MKL, which on AMD's processors
uses half of the registers' width. oneDNN, which PyTorch brings along for half
precision and convolutions, uses all of it, and is twice as fast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ONEDNN = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do as `torch.nn.functional.linear`: (..., c_in) times (c_out, c_in) transposed."""
    wide = ONEDNN and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if wide and not torch.is_grad_enabled():
        # It takes a bias for dense whatever it is, and is a hundred times slower where rows have gaps between them.
        weight = weight if weight.t().is_contiguous() else weight.contiguous()
        bias = None if bias is None else bias.contiguous()
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` that uses `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
