"""Attention over very many keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.models.layers.linear import linear, product

#: Scores of the queries that are worked on together.
SCORES_AT_ONCE = 2**25
#: Keys of a tile on a CPU: its scores stay in the cache.
TILE = 1024
#: Sums of powers between which nothing that counts was too large or too small for a float.
SAFE = 1e-30, 1e30
#: Keys from which on CPUs without tiles of their own (AMX) are slow with the fused kernel in half precision.
LONG = 256
HAS_AMX = torch.cpu._is_amx_tile_supported()


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of several heads, (B, heads, N, C) to the same, by what is fastest."""
    slow = q.device.type == "cpu" and q.dtype != torch.float32 and k.shape[2] >= LONG and not HAS_AMX
    if slow and not q.requires_grad:
        return long_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).view_as(q)
    return F.scaled_dot_product_attention(q, k, v)


def long_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of one head in chunks of queries.

    On CPUs without AMX the fused kernel runs half precision at the speed of
    single precision, and on all it wants values as wide as the keys.

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
    gather = _gather_in_tiles if q.device.type == "cpu" else _gather
    parts = math.ceil(q.shape[1] * k.shape[1] / SCORES_AT_ONCE)
    q, k, v = q * q.shape[-1] ** -0.5, k.contiguous(), v.contiguous()
    out = q.new_empty(*q.shape[:2], v.shape[-1])
    for queries, keys, values, found in zip(q, k, v, out, strict=True):
        for some, into in zip(queries.chunk(parts), found.chunk(parts), strict=True):
            into.copy_(gather(some, keys, values))
    return out


def _gather(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Gather values (M, D) by the softmax of the scores of queries (N, C) and keys (M, C), (N, D)."""
    scores = linear(q, k)
    return linear(torch.softmax(scores, dim=-1, out=scores), v.t())


def _gather_in_tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Do as `_gather`, some keys at a time.

    Neither is the maximum taken off first nor each weight divided by their sum: two passes over all scores less.
    """
    q2 = q / math.log(2)
    total = torch.zeros(len(q), 1)
    gathered = torch.zeros(len(q), v.shape[1])
    tile, part = q.new_empty(len(q) * TILE), q.new_empty(gathered.shape)
    for keys, values in zip(k.split(TILE), v.split(TILE), strict=True):
        powers = product(q2, keys, tile[: len(q) * len(keys)].view(len(q), -1)).exp2_()
        total += powers.sum(dim=-1, keepdim=True)
        gathered += product(powers, values.t(), part)
    least, most = total.aminmax()
    return gathered / total if least > SAFE[0] and most < SAFE[1] else _gather(q, k, v)
