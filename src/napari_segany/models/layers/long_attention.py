"""Attention over very many keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.models.layers.linear import linear

#: Scores held at once. On a CPU so few that they stay in its cache.
SCORES_AT_ONCE = {"cpu": 2**23, "cuda": 2**25, "mps": 2**25}
#: Rows of a product that processors work on together.
TILE = 64
#: Sums of powers between which nothing that counts was too large or too small for a float.
SAFE = 1e-30, 1e30
#: Keys from which on CPUs are slow with the fused kernel in half precision.
LONG = 256


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of several heads, (B, heads, N, C) to the same, by what is fastest."""
    if q.device.type != "cpu" or q.dtype == torch.float32 or k.shape[2] < LONG or q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v)
    return long_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).view_as(q)


def long_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of one head in chunks of queries.

    On CPUs the fused kernel runs half precision at the speed of single
    precision.

    Parameters
    ----------
    q : (B, N, C)
    k : (B, M, C)
    v : (B, M, D)
        D may differ from C.

    Returns
    -------
    (B, N, D)
    """
    batch, keys, _ = k.shape
    rows = max(1, SCORES_AT_ONCE[q.device.type] // keys)
    rows -= rows % TILE if rows > TILE else 0
    q, k, v = q * q.shape[-1] ** -0.5, k.contiguous(), v.contiguous()
    out = q.new_empty(batch, q.shape[1], v.shape[-1])
    for b in range(batch):
        for part, into in zip(q[b].split(rows), out[b].split(rows), strict=True):
            into.copy_(_gather(part, k[b], v[b].t()))
    return out


def _gather(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Gather values (D, M) by the softmax of the scores of queries (N, C) and keys (M, C), (N, D)."""
    if q.device.type == "cpu":
        # Neither is the maximum taken off first nor each weight divided by their sum: two passes over all scores less.
        powers = linear(q / math.log(2), k).exp2_()
        total = powers.sum(dim=-1, keepdim=True)
        least, most = total.aminmax()
        if least > SAFE[0] and most < SAFE[1]:
            return linear(powers, v) / total
    scores = linear(q, k)
    return linear(torch.softmax(scores, dim=-1, out=scores), v)
