"""Memory attention: a frame's features look at each object's memories (Ravi et al. 2024)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.long_attention import long_attention
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
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj, self.v_proj = nn.Linear(key_channels, channels), nn.Linear(key_channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, placeless: int = 0) -> Tensor:
        """Attend.

        Parameters
        ----------
        queries : (B or 1, N, C)
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
        self.linear1, self.linear2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor, memory_position: Tensor, pointers: int) -> Tensor:
        """(B or 1, N, C) and memories (B, M, c) to (B, N, C)."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed, normed)
        x = x + self.cross_attn_image(self.norm2(x), memory + memory_position, memory, pointers)
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class MemoryAttention(nn.Module):
    """Stack of layers and a last norm.

    Until the first look at a memory all objects share one frame, so a batch of
    one row of features is encoded once for all of them.
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
        x = image + 0.1 * position
        for layer in self.layers:
            x = layer(x, memory, memory_position, pointers)
        return self.norm(x)
