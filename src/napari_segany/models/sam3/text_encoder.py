"""Text encoder: the text half of CLIP (Radford et al. 2021), one code per token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.mlp import FeedForward


class TextBlock(nn.Module):
    """Transformer block in which tokens see those before them; pre-norm."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = FeedForward(channels, hidden, "gelu")

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        """(1, T, C) to the same; `later` (T, T) is -inf where a token must not look."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, attn_mask=later, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class TextEncoder(nn.Module):
    """Encode a phrase.

    Padding is left out: no token sees what comes after it, and nothing later
    on looks at padding.

    Parameters
    ----------
    channels, depth, heads, hidden : int
    vocabulary, length : int
        Tokens there are, and tokens at most in a phrase.
    c_out : int
    """

    def __init__(
        self, channels: int, depth: int, heads: int, hidden: int, vocabulary: int, length: int, c_out: int
    ) -> None:
        super().__init__()
        self.length = length
        self.token_embedding = nn.Embedding(vocabulary, channels)
        self.positional_embedding = nn.Parameter(torch.zeros(length, channels))
        self.blocks = nn.ModuleList(TextBlock(channels, heads, hidden) for _ in range(depth))
        self.ln_final = nn.LayerNorm(channels)
        self.resizer = Linear(channels, c_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """(T,) token ids to (1, T, c_out)."""
        x = (self.token_embedding(tokens) + self.positional_embedding[: len(tokens)])[None]
        later = nn.Transformer.generate_square_subsequent_mask(len(tokens), device=x.device, dtype=x.dtype)
        for block in self.blocks:
            x = block(x, later)
        return self.resizer(self.ln_final(x))
