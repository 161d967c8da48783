"""SAM 2 put together, and the numbers of its sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_segany.models.layers.linear import Linear
from napari_segany.models.layers.mlp import Mlp
from napari_segany.models.sam.prompt_encoder import PromptEncoder
from napari_segany.models.sam2.hiera import Hiera
from napari_segany.models.sam2.image_encoder import ImageEncoder, Neck
from napari_segany.models.sam2.mask_decoder import Decoded, MaskDecoder
from napari_segany.models.sam2.memory_attention import MemoryAttention
from napari_segany.models.sam2.memory_encoder import MemoryEncoder
from napari_segany.models.sam2.positions import sine_distance, sine_grid


@dataclass(frozen=True)
class HieraSize:
    """Numbers of an image encoder; see `Hiera`."""

    channels: int
    heads: int
    stages: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    background: tuple[int, int] = (7, 7)


SIZES = {
    "tiny": HieraSize(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": HieraSize(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base-plus": HieraSize(112, 2, (2, 3, 16, 3), (12, 16, 20), background=(14, 14)),
    "large": HieraSize(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8)),
}


@dataclass(frozen=True)
class Sam2Config:
    """What is shared by all sizes; smaller numbers are for tests.

    Attributes
    ----------
    input_size : int
        Side of the network's square input, pixels.
    stride : int
        Pixels of the input to a cell of the image embedding.
    channels, memory_channels : int
    heads, hidden : int
        Of the mask decoder's transformer.
    score_hidden : int
        Width of the IoU head.
    attention_hidden, attention_depth : int
        Of the memory attention.
    memory_hidden : int
        Of the memory encoder's fuser.
    improved : bool
        2.1: object pointers know how old they are, and absence is remembered.
    max_prompted : int
        Prompted frames that an answer looks at, the nearest ones; 0 for all.
    """

    input_size: int = 1024
    stride: int = 16
    channels: int = 256
    memory_channels: int = 64
    heads: int = 8
    hidden: int = 2048
    score_hidden: int = 256
    attention_hidden: int = 2048
    attention_depth: int = 4
    memory_hidden: int = 1024
    improved: bool = True
    max_prompted: int = 0


#: Frames an object is remembered on: the prompted ones share the last slot.
MEMORY_SLOTS = 7
#: Pointers to an object's earlier appearances.
POINTERS = 16


class MemoryNetwork(nn.Module):
    """All parts of SAM 2 but the image encoder, under the names of the published checkpoints.

    Parameters
    ----------
    config : Sam2Config
    """

    def __init__(self, config: Sam2Config) -> None:
        super().__init__()
        self.config = config
        c, m = config.channels, config.memory_channels
        self.sam_prompt_encoder = PromptEncoder(c, self.grid, config.input_size)
        self.sam_mask_decoder = MaskDecoder(c, config.heads, config.hidden, score_hidden=config.score_hidden)
        self.memory_attention = MemoryAttention(c, m, config.attention_hidden, config.attention_depth)
        self.memory_encoder = MemoryEncoder(c, m, config.memory_hidden)
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.obj_ptr_proj = Mlp(c, c, c, 3)
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(MEMORY_SLOTS, 1, 1, m))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, c))
        # In every checkpoint, used by none.
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, c))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, c))
        if config.improved:
            self.obj_ptr_tpos_proj = Linear(c, m)
            self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, m))

    @property
    def grid(self) -> int:
        """Side of the image embedding."""
        return self.config.input_size // self.config.stride

    @property
    def mask_size(self) -> int:
        """Side of masks on their way into the memory, pixels."""
        return 16 * self.grid

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.no_mem_embed.dtype

    def decode(
        self, image: Tensor, skips: tuple[Tensor, Tensor], tokens: Tensor, masks: Tensor | None, several: bool
    ) -> Decoded:
        """Answer prompts on features (P or 1, N, C), with or without memories in them."""
        encoder = self.sam_prompt_encoder
        position = encoder.pe_layer.grid(encoder.grid).to(self.dtype)
        return self.sam_mask_decoder(image + encoder.dense(masks), position, skips, tokens, several)

    def recall(self, image: Tensor, memories: Tensor, slots: Tensor, pointers: Tensor, distances: Tensor) -> Tensor:
        """Add to a frame's features what is remembered of each object.

        Parameters
        ----------
        image : (1, N, C)
        memories : (B, F, N, c)
            Of F frames, c channels.
        slots : (B, F) int
            0 for the frame before, ..., 6 for a prompted one.
        pointers : (B, K, C)
        distances : (B, K) float
            Frames between now and each pointer's frame, in units of the longest, positive towards the past.

        Returns
        -------
        (B, N, C)
        """
        width = memories.shape[-1]
        places = sine_grid(self.grid, width, image.device).to(self.dtype)
        when = self.maskmem_tpos_enc[slots][:, :, 0]  # (B, F, 1, c)
        position = (places[:, None] + when).flatten(1, 2)
        # A pointer is as long as several memories; its parts share one time.
        parts = pointers.shape[-1] // width
        tokens = pointers.unflatten(-1, (parts, width)).flatten(1, 2)
        if self.config.improved:
            age = self.obj_ptr_tpos_proj(sine_distance(distances, image.shape[-1]).to(self.dtype))
            token_position = age.repeat_interleave(parts, dim=1)
        else:
            token_position = torch.zeros_like(tokens)
        return self.memory_attention(
            image,
            sine_grid(self.grid, image.shape[-1], image.device).to(self.dtype),
            torch.cat([memories.flatten(1, 2), tokens], dim=1),
            torch.cat([position, token_position], dim=1),
            tokens.shape[1],
        )

    def point_to(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Object pointers of mask tokens (P, C); where absent (P,) the learned one, (P, C)."""
        return torch.where(present[:, None], self.obj_ptr_proj(tokens), self.no_obj_ptr)

    def remember(self, image: Tensor, probability: Tensor, present: Tensor) -> Tensor:
        """Memories of masks (P, 1, S, S) on features (1, N, C), (P, N, c)."""
        memories = self.memory_encoder(image, probability.to(self.dtype))
        if self.config.improved:
            memories = memories + torch.where(present[:, None, None], 0.0, self.no_obj_embed_spatial[:, None])
        return memories


class Sam2(MemoryNetwork):
    """SAM 2.

    Parameters
    ----------
    size : HieraSize
    config : Sam2Config
    """

    def __init__(self, size: HieraSize, config: Sam2Config) -> None:
        super().__init__(config)
        widths = [size.channels * 2**stage for stage in range(4)]
        trunk = Hiera(size.channels, size.heads, size.stages, size.global_blocks, size.windows, size.background)
        self.image_encoder = ImageEncoder(trunk, Neck(widths, config.channels))

    def encode(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Normalised pixels (1, 3, S, S) to features (1, N, C) and the decoder's skips."""
        fine, middle, coarse = self.image_encoder(pixels)
        return coarse.flatten(1, 2), self.sam_mask_decoder.skips(fine, middle)


def build_sam2(size: str) -> Sam2:
    """Build a published size: "2.1-tiny", "2.0-large", ..."""
    version, name = size.split("-", 1)
    return Sam2(SIZES[name], Sam2Config(improved=version == "2.1"))


def size_of(channels: int, blocks: int, improved: bool) -> str | None:
    """Name of the published size with so many channels and blocks, None when there is none."""
    for name, size in SIZES.items():
        if (size.channels, sum(size.stages)) == (channels, blocks):
            return f"{'2.1' if improved else '2.0'}-{name}"
    return None


def chosen(values: Tensor, index: Sequence[int] | Tensor) -> Tensor:
    """Pick one entry of each row, (P, K, ...) and (P,) to (P, ...)."""
    return values[torch.arange(len(values), device=values.device), index]
