"""Attention over very many keys."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.models.layers.linear import linear

#: Bytes of scores held at once. On a CPU so few that they stay in its cache.
SCORES_AT_ONCE = {"cpu": 2**24, "cuda": 2**26, "mps": 2**26}
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
    queries = q.shape[1]
    rows = max(1, SCORES_AT_ONCE[q.device.type] // (keys * q.element_size()))
    q, k, v = q * q.shape[-1] ** -0.5, k.contiguous(), v.contiguous()
    out = q.new_empty(batch, queries, v.shape[-1])
    for b in range(batch):
        for part, into in zip(q[b].split(rows), out[b].split(rows), strict=True):
            scores = linear(part, k[b])
            torch.softmax(scores, dim=-1, out=scores)
            into.copy_(linear(scores, v[b].t()))
    return out
