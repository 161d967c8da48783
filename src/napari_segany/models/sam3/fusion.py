"""Fusion: the image learns what is asked for, and boxes learn what they contain."""

from __future__ import annotations

from torch import Tensor, nn

from napari_segany.models.layers.linear import Linear


class FusionLayer(nn.Module):
    """Self-attention, attention to a context, feed-forward; pre-norm."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.cross_attn_image = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.linear1, self.linear2 = Linear(channels, hidden), Linear(hidden, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, position: Tensor | None, context: Tensor, context_position: Tensor | None) -> Tensor:
        """(B, N, C), and a context (B, M, C), to (B, N, C); positions are added to queries and keys."""
        normed = self.norm1(x)
        placed = normed if position is None else normed + position
        x = x + self.self_attn(placed, placed, normed, need_weights=False)[0]
        keys = context if context_position is None else context + context_position
        x = x + self.cross_attn_image(self.norm2(x), keys, context, need_weights=False)[0]
        return x + self.linear2(self.linear1(self.norm3(x), "relu"))


class FusionEncoder(nn.Module):
    """Let the image look at the prompt."""

    def __init__(self, channels: int, heads: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(channels, heads, hidden) for _ in range(depth))

    def forward(self, image: Tensor, position: Tensor, prompt: Tensor) -> Tensor:
        """(1, N, C), (1, N, C) and (1, T, C) to (1, N, C)."""
        for layer in self.layers:
            image = layer(image, position, prompt, None)
        return image
