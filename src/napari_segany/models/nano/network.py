"""nano: a convolutional promptable network for CPUs, image once, prompts as dense maps.

The encoder is a U-shaped residual network. The decoder sees a fixed window of
its features together with maps of the prompt (clicks, box, previous mask),
which learn an order of magnitude faster at this size than the token decoder
of SAM. Group norms rather than norms over the channels of each pixel: with
the latter, training stayed on the plateau where a click answers with a disc.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_segany.models.layers.long_attention import attention
from napari_segany.models.nano.concepts import ConceptHead
from napari_segany.models.nano.judge import Judge
from napari_segany.models.nano.mask_iou_head import MaskIoUHead
from napari_segany.models.nano.volume_network import VolumeNetwork

#: Side of the decoder's window in pixels of the level it works on.
WINDOW = 256
#: Strides of what the encoder gives: fine and coarse features, dense maps.
STRIDES = (4, 8, 4)
#: Channels of `prompt_maps.render`.
PROMPT_CHANNELS = 8
#: Masks per prompt: 0 answers unambiguous prompts, 1 to 3 a single click.
MASKS = 4


@dataclass(frozen=True)
class NanoConfig:
    """Widths and depths of the network.

    Attributes
    ----------
    stem : int
        Channels at stride 2.
    widths, depths : 4 ints
        Channels and residual blocks of the encoder at strides 4, 8, 16, 32.
    fine, coarse : int
        Channels of the features handed to the decoder at strides 4 and 8.
    decoder_width, decoder_depth, decoder_heads : int
        Channels, blocks and heads of the decoder's attention at stride 16.
    volume_widths : 3 ints
        See `VolumeNetwork`.
    """

    stem: int = 32
    widths: tuple[int, int, int, int] = (48, 96, 192, 256)
    depths: tuple[int, int, int, int] = (2, 3, 6, 1)
    fine: int = 24
    coarse: int = 80
    decoder_width: int = 128
    decoder_depth: int = 3
    decoder_heads: int = 2
    volume_widths: tuple[int, int, int] = (32, 64, 96)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class Residual(nn.Module):
    """Residual block of two 3x3 convolutions, (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = _norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = _norm(channels)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


def _stage(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels) for _ in range(depth)))


def _down(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False), _norm(c_out), nn.ReLU())


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Encoder(nn.Module):
    """Image to features at strides 4 and 8 and to dense maps at stride 4."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        w4, w8, w16, w32 = config.widths
        self.stem = nn.Sequential(_down(3, config.stem), _down(config.stem, w4))
        d4, d8, d16, d32 = config.depths
        self.stage4, self.stage8 = _stage(w4, d4), _stage(w8, d8)
        self.stage16, self.stage32 = _stage(w16, d16), _stage(w32, d32)
        self.down8, self.down16, self.down32 = _down(w4, w8), _down(w8, w16), _down(w16, w32)
        self.lateral16, self.lateral8 = nn.Conv2d(w32, w16, 1), nn.Conv2d(w16, w8, 1)
        self.lateral4 = nn.Conv2d(w8, w4, 1)
        self.merge16, self.merge8, self.merge4 = Residual(w16), Residual(w8), Residual(w4)
        self.to_coarse = nn.Conv2d(w8, config.coarse, 1)
        self.to_fine = nn.Conv2d(w4, config.fine, 1)
        self.to_dense = nn.Conv2d(w4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images.

        Parameters
        ----------
        x : (B, 3, H, W), H and W multiples of 32
            Intensities 0-255 mapped to -1..1.

        Returns
        -------
        fine : (B, fine, H/4, W/4)
        coarse : (B, coarse, H/8, W/8)
        dense : (B, 2, H/4, W/4)
            Logits of "inside an object" and of the depth inside it (0 edge, 1 centre).
        """
        x4 = self.stage4(self.stem(x))
        x8 = self.stage8(self.down8(x4))
        x16 = self.stage16(self.down16(x8))
        x32 = self.stage32(self.down32(x16))
        x16 = self.merge16(x16 + _up(self.lateral16(x32)))
        x8 = self.merge8(x8 + _up(self.lateral8(x16)))
        x4 = self.merge4(x4 + _up(self.lateral4(x8)))
        return self.to_fine(x4), self.to_coarse(x8), self.to_dense(x4)


class Attention(nn.Module):
    """Pre-norm transformer block over the cells of a window, (P, N, C) to the same."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """Let cells look at one another and at remembered cells, (P, N, C) and (P, M, C) to (P, N, C)."""
        seen = x if memory is None else torch.cat([x, memory], dim=1)
        q, k, v = self.qkv(self.norm1(seen)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attention(q[:, :, : x.shape[1]], k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    """Window of features and prompt maps to mask logits and scores.

    Prompts meet the features at stride 8; attention at stride 16 tells what
    belongs to the clicked object. At stride 4 nothing depends on the prompt but
    the weights with which the encoder's fine features are added up, as in the
    mask head of SAM, except that here the weights vary over the window.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.fine = config.fine
        w8, w16 = config.coarse, config.decoder_width
        self.prompt = nn.Conv2d(4 * PROMPT_CHANNELS, w8, 3, padding=1)
        self.mix = nn.Sequential(nn.Conv2d(w8, w8, 3, padding=1, bias=False), _norm(w8), nn.ReLU())
        self.down16 = nn.Sequential(nn.Conv2d(w8, w16, 3, stride=2, padding=1, bias=False), _norm(w16))
        self.position = nn.Parameter(torch.empty(1, (WINDOW // 16) ** 2, w16))
        nn.init.normal_(self.position, std=0.02)
        self.remembered = nn.Parameter(torch.zeros(1, 1, w16))
        self.attention = nn.ModuleList(Attention(w16, config.decoder_heads) for _ in range(config.decoder_depth))
        self.norm16 = nn.LayerNorm(w16)
        self.lateral8 = nn.Conv2d(w16, w8, 1)
        self.out8 = Residual(w8)
        self.to_weights = nn.Conv2d(w8, MASKS * (config.fine + 4), 1)
        self.score = nn.Sequential(nn.Linear(w8 + w16 + MASKS + 2, 128), nn.ReLU(), nn.Linear(128, 1))
        self.mask_iou = MaskIoUHead(MASKS, w8, w16)

    def forward(
        self, fine: Tensor, coarse: Tensor, maps: Tensor, memory: Tensor | None = None, asked: int = MASKS
    ) -> tuple[Tensor, Tensor]:
        """Decode one window per prompt.

        Parameters
        ----------
        fine : (P, fine, h, w)
        coarse : (P, coarse, h/2, w/2)
        maps : (P, PROMPT_CHANNELS, h, w)
        memory : (P, M, decoder_width), optional
            What `remember` made of windows of other frames.
        asked : int
            Only so many of the first masks can be the answer, and are scored with care.

        Returns
        -------
        logits : (P, MASKS, h, w)
        scores : (P, MASKS)
            Logits of the predicted IoU.
        """
        logits, (seen, around, drawn, scores) = self.draw(fine, coarse, maps, memory)
        better = self.mask_iou(seen, around, drawn[:, :asked], scores[:, :asked])
        return logits, torch.cat([better, scores[:, asked:]], dim=1)

    def draw(
        self, fine: Tensor, coarse: Tensor, maps: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The masks of `forward`, and what `MaskIoUHead.forward` looks at."""
        x8, tokens = self._cells(coarse, maps)
        side = x8.shape[2] // 2
        for block in self.attention:
            tokens = block(tokens, memory)
        tokens = self.norm16(tokens)
        x8 = self.out8(x8 + _up(self.lateral8(tokens.transpose(1, 2).unflatten(2, (side, side)))))
        weights = self.to_weights(x8).unflatten(1, (MASKS, self.fine + 4))
        local = F.pixel_unshuffle(fine, 2).unflatten(1, (self.fine, 4))
        cells = (weights[:, :, : self.fine, None] * local[:, None]).sum(dim=2) + weights[:, :, self.fine :]
        logits = F.pixel_shuffle(cells.flatten(1, 2), 2)
        around, drawn = tokens.mean(dim=1), logits.detach()
        return logits, (x8, around, drawn, self._scores(drawn, x8, around))

    def remember(self, coarse: Tensor, maps: Tensor) -> Tensor:
        """Cells of a window in which the object is known, as later frames look at them.

        Parameters
        ----------
        coarse : (P, coarse, h/2, w/2)
        maps : (P, PROMPT_CHANNELS, h, w)
            With the object's mask in them.

        Returns
        -------
        (P, h/4 * w/4, decoder_width)
        """
        return self._cells(coarse, maps)[1] + self.remembered

    def _cells(self, coarse: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Features that know the prompt, at stride 8 as a map and at stride 16 as tokens."""
        x8 = self.mix(F.relu(coarse + self.prompt(F.pixel_unshuffle(maps, 2))))
        return x8, self.down16(x8).flatten(2).transpose(1, 2) + self.position

    def _scores(self, logits: Tensor, x8: Tensor, around: Tensor) -> Tensor:
        """Judge each mask by the features under it, its size and its decidedness; (P, MASKS)."""
        inside4 = logits.float().sigmoid()
        inside = F.avg_pool2d(inside4, 2).to(x8.dtype)
        area = inside.sum(dim=(2, 3))
        under = torch.einsum("pmhw,pchw->pmc", inside, x8) / (area[..., None] + 1e-2)
        # Share of the soft area that is decided, high for a mask with a clear edge.
        decided = (2 * inside4 - 1).clamp(min=0).sum(dim=(2, 3)) / (inside4.sum(dim=(2, 3)) + 1e-2)
        which = torch.eye(MASKS, dtype=x8.dtype, device=x8.device).expand(len(x8), -1, -1)
        size = torch.stack([(area.float() + 1).log() / 7, decided], dim=-1).to(x8.dtype)
        everywhere = around[:, None].expand(-1, MASKS, -1)
        return self.score(torch.cat([under, everywhere, which, size], dim=-1))[..., 0]


class Nano(nn.Module):
    """Encoder, decoder, judge, words and what draws volumes, with the numbers that shaped them."""

    def __init__(self, config: NanoConfig | None = None) -> None:
        super().__init__()
        self.config = config or NanoConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.judge = Judge(MASKS)
        self.concepts = ConceptHead(self.config.coarse)
        self.volume = VolumeNetwork(self.config.volume_widths)
