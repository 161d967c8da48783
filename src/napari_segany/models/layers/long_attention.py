"""Attention of one head over very many keys."""

from __future__ import annotations

import torch
from torch import Tensor

#: Scores held at once; a buffer of this size is used again and again.
SCORES_AT_ONCE = 33_554_432


def long_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention in chunks of queries, written into buffers that are used again.

    On CPUs the fused kernel runs half precision at the speed of single
    precision, and fresh temporaries of this size cost as much as the
    arithmetic.

    Parameters
    ----------
    q : (B or 1, N, C)
    k : (B, M, C)
    v : (B, M, D)
        D may differ from C.

    Returns
    -------
    (B, N, D)
    """
    batch, keys, _ = k.shape
    queries = q.shape[1]
    rows = max(1, min(queries, SCORES_AT_ONCE // keys))
    q = q * q.shape[-1] ** -0.5
    buffer = q.new_empty(rows, keys)
    out = q.new_empty(batch, queries, v.shape[-1])
    for b in range(batch):
        transposed = k[b].t()
        for start in range(0, queries, rows):
            part = q[b if len(q) > 1 else 0, start : start + rows]
            scores = torch.mm(part, transposed, out=buffer[: len(part)])
            torch.softmax(scores, dim=-1, out=scores)
            torch.mm(scores, v[b], out=out[b, start : start + rows])
    return out
