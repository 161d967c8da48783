"""Memory attention: a frame's features look at each object's memories (Ravi et al. 2024)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.long_attention import long_attention
from napari_segany.models.layers.mlp import by_rows
from napari_segany.models.sam2.positions import rotate, rotations


class RotaryAttention(nn.Module):
    """One head of attention whose queries and keys are rotated by their place.

    Parameters
    ----------
    channels : int
    key_channels : int
        Width of keys and values before projection.
    """

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.q_proj = Linear(channels, channels)
        self.k_proj, self.v_proj = Linear(key_channels, channels), Linear(key_channels, channels)
        self.out_proj = Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, placeless: int = 0) -> Tensor:
        """Attend.

        Parameters
        ----------
        queries : (B, N, C)
            A square grid of N places.
        keys, values : (B, M, c)
            Whole grids one after another, then `placeless` keys that are not rotated.

        Returns
        -------
        (B, N, C)
        """
        turn = rotations(int(queries.shape[1] ** 0.5), queries.shape[2], queries.device)
        q, k = rotate(self.q_proj(queries), turn), self.k_proj(keys)
        placed = k.shape[1] - placeless
        k[:, :placed] = rotate(k[:, :placed], turn)
        # Projecting what was gathered instead of every value is the same, and cheaper for narrow values.
        gathered = long_attention(q, k, values)
        return self.out_proj(self.v_proj(gathered))


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to memories, feed-forward; pre-norm."""

    def __init__(self, channels: int, memory_channels: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(channels, channels)
        self.cross_attn_image = RotaryAttention(channels, memory_channels)
        self.linear1, self.linear2 = Linear(channels, hidden), Linear(hidden, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def look_around(self, x: Tensor) -> Tensor:
        """Let a frame look at itself, (B, N, C) to the same."""
        normed = self.norm1(x)
        return x + self.self_attn(normed, normed, normed)

    def look_back(self, x: Tensor, keys: Tensor, memory: Tensor, pointers: int) -> Tensor:
        """Let a frame (B, N, C) look at memories (B, M, c); (B, N, C)."""
        x = x + self.cross_attn_image(self.norm2(x), keys, memory, pointers)
        return x + by_rows(lambda rows: self.linear2(self.linear1(self.norm3(rows), "relu")), x)


class MemoryAttention(nn.Module):
    """Stack of layers and a last norm.

    Until the first look at a memory all objects share one frame. From there on
    objects go one by one: each has work enough for any processor, and the keys
    of several would only fall out of a CPU's cache.
    """

    def __init__(self, channels: int = 256, memory_channels: int = 64, hidden: int = 2048, depth: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(channels, memory_channels, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, image: Tensor, position: Tensor, memory: Tensor, memory_position: Tensor, pointers: int
    ) -> Tensor:
        """Condition a frame on memories.

        Parameters
        ----------
        image, position : (1, N, C)
        memory, memory_position : (B, M, c)
            Whole grids of N memories first, then `pointers` tokens.
        pointers : int

        Returns
        -------
        (B, N, C)
        """
        first, *others = cast("list[MemoryAttentionLayer]", list(self.layers))
        shared = first.look_around(image + 0.1 * position)
        reminded = []
        for values, place in zip(memory[:, None], memory_position[:, None], strict=True):
            keys = values + place
            x = first.look_back(shared, keys, values, pointers)
            for layer in others:
                x = layer.look_back(layer.look_around(x), keys, values, pointers)
            reminded.append(self.norm(x))
        return torch.cat(reminded)
