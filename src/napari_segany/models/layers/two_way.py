"""Two-way attention between a few prompt tokens and the many tokens of an image.

There are some ten tokens and thousands of image positions, so projections of
the image are what costs. Where an image differs from prompt to prompt they are
folded into the tokens' side: with ``q`` the few and ``X`` the many,
``(q Wq) (X Wk)^T`` is ``((q Wq) Wk^T) X^T``, and ``P (X Wv)`` is ``(P X) Wv``.
That is the same function with less than half of the arithmetic. Where all
prompts share one image, it is projected once for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.mlp import FeedForward


class TwoWayAttention(nn.Module):
    """Multi-head attention whose inner width may be smaller than its channels.

    Parameters
    ----------
    channels, heads : int
    shrink : int
        Channels divided by the inner width.
    """

    def __init__(self, channels: int, heads: int, shrink: int = 1) -> None:
        super().__init__()
        inner = channels // shrink
        self.heads, self.width = heads, inner // heads
        self.q_proj, self.k_proj, self.v_proj = (Linear(channels, inner) for _ in range(3))
        self.out_proj = Linear(inner, channels)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, inner) to (B, heads, N, width)."""
        return x.unflatten(-1, (self.heads, self.width)).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)

    def _per_head(self, projection: nn.Linear) -> Tensor:
        """Weight of a projection into the heads, (heads, width, channels)."""
        return projection.weight.unflatten(0, (self.heads, self.width))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Plain attention; (B, Nq, C), (B, Nk, C), (B, Nk, C) to (B, Nq, C)."""
        q, k, v = (
            self._split(projection(x))
            for projection, x in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        return self.out_proj(self._join(F.scaled_dot_product_attention(q, k, v)))

    def from_image(self, tokens: Tensor, image_with_position: Tensor, image: Tensor) -> Tensor:
        """Let tokens look at the image.

        Parameters
        ----------
        tokens : (P, T, C)
        image_with_position, image : (P or 1, N, C)

        Returns
        -------
        (P, T, C)
        """
        q = self._split(self.q_proj(tokens))  # (P, heads, T, width)
        prompts, _, count, _ = q.shape
        if len(image) == 1:
            k, v = self._split(self.k_proj(image_with_position)), self._split(self.v_proj(image))
            together = q.transpose(0, 1).flatten(1, 2)[None]  # all prompts' tokens in one sequence
            seen = F.scaled_dot_product_attention(together, k, v)[0].unflatten(1, (prompts, count)).transpose(0, 1)
            return self.out_proj(self._join(seen))
        # The key's bias adds the same to every position, which the softmax takes away again.
        asked = torch.einsum("phtw,hwc->phtc", q, self._per_head(self.k_proj)).flatten(1, 2)
        weights = (asked @ image_with_position.transpose(1, 2) * self.width**-0.5).softmax(dim=-1)
        seen = (weights @ image).unflatten(1, (self.heads, count))
        values = torch.einsum("phtc,hwc->phtw", seen, self._per_head(self.v_proj))
        values = values + self.v_proj.bias.unflatten(0, (self.heads, self.width))[:, None]
        return self.out_proj(self._join(values))

    def onto_image(
        self, image: Tensor, image_with_position: Tensor, tokens_with_position: Tensor, tokens: Tensor
    ) -> Tensor:
        """Let the image look at tokens, and add what it sees to it.

        Parameters
        ----------
        image, image_with_position : (P or 1, N, C)
        tokens_with_position, tokens : (P, T, C)

        Returns
        -------
        (P, N, C)
        """
        k, v = self._split(self.k_proj(tokens_with_position)), self._split(self.v_proj(tokens))
        prompts, _, count, _ = k.shape
        scale = self.width**-0.5
        if len(image_with_position) == 1:
            q = self._split(self.q_proj(image_with_position))  # (1, heads, N, width)
            scores = (q @ k.transpose(2, 3) * scale).transpose(1, 2)  # (P, N, heads, T)
        else:
            asked = torch.einsum("phtw,hwc->pcht", k, self._per_head(self.q_proj)).flatten(2)
            offset = torch.einsum("phtw,hw->pht", k, self.q_proj.bias.unflatten(0, (self.heads, self.width)))
            scores = torch.baddbmm(offset.flatten(1)[:, None], image_with_position, asked) * scale
            scores = scores.unflatten(2, (self.heads, count))
        weights = scores.softmax(dim=-1).flatten(2)  # (P, N, heads * T)
        outward = self.out_proj.weight.unflatten(1, (self.heads, self.width))  # (C, heads, width)
        # The weights of a head sum to one, so the bias can be given out with the values.
        given = torch.einsum("phtw,chw->phtc", v, outward) + self.out_proj.bias / self.heads
        return torch.baddbmm(image.expand(prompts, -1, -1), weights, given.flatten(1, 2))


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, feed-forward, image to tokens; post-norm."""

    def __init__(self, channels: int, heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = TwoWayAttention(channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = TwoWayAttention(channels, heads, shrink=2)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels, hidden, "relu")
        self.norm3 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = TwoWayAttention(channels, heads, shrink=2)
        self.norm4 = nn.LayerNorm(channels)

    def forward(
        self, tokens: Tensor, image: Tensor, token_position: Tensor, image_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (P, T, C) and image (P or 1, N, C); the image comes back as (P, N, C)."""
        if self.first:
            # Here the answer replaces the tokens, and positions are not added.
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_position
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_image = image + image_position
        tokens = tokens + self.cross_attn_token_to_image.from_image(tokens + token_position, placed_image, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.cross_attn_image_to_token.onto_image(image, placed_image, tokens + token_position, tokens)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    """Blocks of two-way attention and a last look of the tokens at the image."""

    def __init__(self, depth: int, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(channels, heads, hidden, i == 0) for i in range(depth))
        self.final_attn_token_to_image = TwoWayAttention(channels, heads, shrink=2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, image: Tensor, image_position: Tensor) -> tuple[Tensor, Tensor]:
        """Decode tokens against an image.

        Parameters
        ----------
        tokens : (P, T, C)
            Also their own position codes, added again in every layer.
        image : (P or 1, N, C)
        image_position : (1, N, C)

        Returns
        -------
        tokens : (P, T, C)
        image : (P, N, C)
        """
        position = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, position, image_position)
        seen = self.final_attn_token_to_image.from_image(tokens + position, image + image_position, image)
        return self.norm_final_attn(tokens + seen), image
