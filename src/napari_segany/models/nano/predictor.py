"""nano as an `ImageModel`: finds the zoom that suits each object, then decodes all of them together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.errors import UnsupportedError
from napari_segany.core.intensity import IntensityRange, to_rgb
from napari_segany.core.masks import Candidates, LogitsGrid, bounding_box, linear_interpolation
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Multimask
from napari_segany.models.nano.embedding import NanoEmbedding
from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.prompt_maps import WINDOW, WindowPrompts, render

#: Longest side, in pixels of the level, that an object should have in the decoder's window.
COMFORTABLE_SIZE = 72.0
#: Level at which a click is looked at first, and how often the view may change after that.
FIRST_LEVEL, MOVES = -1, 2
#: Level that enlarges the image most.
FINEST_LEVEL = -3
#: Prompts decoded at once: more only costs memory.
BATCH = 32


#: Logits (4, h, w) and scores (4,) of one prompt.
Answer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class View:
    """The window through which one prompt is answered: zoom level and first pixel (y, x) there."""

    level: int
    origin: tuple[int, int]

    @classmethod
    def around(cls, centre: Sequence[float], size: float, coarsest: int) -> View:
        """Choose the level at which `size` image pixels look comfortable, centred on (y, x)."""
        level = round(math.log2(max(size, 1.0) / COMFORTABLE_SIZE))
        return cls.at(centre, min(max(level, FINEST_LEVEL), coarsest))

    @classmethod
    def at(cls, centre: Sequence[float], level: int) -> View:
        """Centre the window of a level on an image position (y, x) given in pixel edges."""
        y, x = (8 * round((c * 2.0**-level - WINDOW / 2) / 8) for c in centre)
        return cls(level, (y, x))


class NanoModel:
    """The model that ships with the package.

    Parameters
    ----------
    network : Nano
    name : str
    device : torch.device
    dtype : torch.dtype
    """

    family = "nano"
    capabilities = frozenset({"image"})

    def __init__(self, network: Nano, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self.name = name
        self.device, self.dtype = device, dtype
        self.network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)

    @torch.inference_mode()
    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> NanoEmbedding:
        """Encode an (H, W[, C]) image at its own size; other zoom levels follow on demand."""
        rgb = torch.from_numpy(to_rgb(image, intensity)).permute(2, 0, 1)[None]
        scaled = (rgb / 127.5 - 1.0).to(device=self.device, dtype=self.dtype)
        embedding = NanoEmbedding(tuple(image.shape[:2]), self.name, scaled)
        embedding.encode_level(self.network.encoder, 0)
        return embedding

    @torch.inference_mode()
    def predict(
        self, embedding: NanoEmbedding, prompts: Sequence[Prompt], multimask: Multimask = "auto"
    ) -> list[Candidates]:
        """Answer prompts, one object each; see `ImageModel.predict`.

        A prompt without box or mask does not tell how large its object is. It
        is looked at under twofold magnification first, where objects of
        microscopy are mostly of a comfortable size, and then at the zoom that
        the answer asks for.
        """
        if not isinstance(embedding, NanoEmbedding) or embedding.model_name != self.name:
            raise UnsupportedError(f"This embedding was not made by {self.name}; embed the image again.")
        views = [_first_view(embedding, prompt) for prompt in prompts]
        answers: dict[int, Answer] = {}
        unsure = [i for i, prompt in enumerate(prompts) if prompt.box is None and prompt.mask is None]
        asked = list(range(len(prompts)))
        for _ in range(1 + MOVES):
            found = self._decode_all(embedding, [prompts[i] for i in asked], [views[i] for i in asked])
            answers.update(zip(asked, found, strict=True))
            asked = []
            for i in unsure:
                better = _better_view(embedding, views[i], answers[i][0][0])
                if better.level != views[i].level:
                    views[i] = better
                    asked.append(i)
            unsure = asked
            if not asked:
                break
        return [
            _candidates(embedding.image_shape, prompt, views[i], answers[i], multimask)
            for i, prompt in enumerate(prompts)
        ]

    def _decode_all(self, embedding: NanoEmbedding, prompts: Sequence[Prompt], views: Sequence[View]) -> list[Answer]:
        by_level = defaultdict(list)
        for index, view in enumerate(views):
            by_level[view.level].append(index)
        answers: dict[int, Answer] = {}
        for level, indices in by_level.items():
            for start in range(0, len(indices), BATCH):
                part = indices[start : start + BATCH]
                logits, scores = self._decode(
                    embedding, level, [prompts[i] for i in part], [views[i].origin for i in part]
                )
                answers.update(zip(part, zip(logits, scores, strict=True), strict=True))
        return [answers[i] for i in range(len(prompts))]

    def _decode(
        self,
        embedding: NanoEmbedding,
        level: int,
        prompts: Sequence[Prompt],
        origins: Sequence[tuple[int, int]],
    ) -> tuple[np.ndarray, np.ndarray]:
        fine, coarse = embedding.windows(self.network.encoder, level, origins)
        in_window = _to_windows(prompts, origins, level)
        maps4, maps8 = (m.to(device=self.device, dtype=self.dtype) for m in render(in_window))
        logits, scores = self.network.decoder(fine, coarse, maps4, maps8)
        return logits.float().cpu().numpy(), scores.float().sigmoid().cpu().numpy()


def _first_view(embedding: NanoEmbedding, prompt: Prompt) -> View:
    if prompt.box is not None:
        y0, x0, y1, x1 = prompt.box
    elif prompt.mask is not None and (prompt.mask > 0).any():
        y0, x0, y1, x1 = bounding_box(prompt.mask > 0)
    else:
        return View.at(_click_centre(prompt), FIRST_LEVEL)
    return View.around(((y0 + y1) / 2, (x0 + x1) / 2), max(y1 - y0, x1 - x0), embedding.coarsest)


def _candidates(
    image_shape: tuple[int, int], prompt: Prompt, view: View, answer: Answer, multimask: Multimask
) -> Candidates:
    several = prompt.is_ambiguous if multimask == "auto" else multimask
    kept = slice(1, None) if several else slice(0, 1)
    logits, scores = answer
    return Candidates(logits[kept], scores[kept], _grid(image_shape, view))


def _click_centre(prompt: Prompt) -> tuple[float, float]:
    points = prompt.points[prompt.labels == 1] if (prompt.labels == 1).any() else prompt.points
    y, x = (points.min(axis=0) + points.max(axis=0)) / 2 + 0.5
    return float(y), float(x)


def _better_view(embedding: NanoEmbedding, view: View, logits: np.ndarray) -> View:
    """The view that suits a mask; the same one if the mask is of a comfortable size, or empty."""
    inside = logits > 0
    if not inside.any():
        return view
    y0, x0, y1, x1 = (4 * edge for edge in bounding_box(inside))
    scale = 2.0**view.level
    centre = ((y0 + y1) / 2 + view.origin[0]) * scale, ((x0 + x1) / 2 + view.origin[1]) * scale
    return View.around(centre, max(y1 - y0, x1 - x0) * scale, embedding.coarsest)


def _to_windows(prompts: Sequence[Prompt], origins: Sequence[tuple[int, int]], level: int) -> WindowPrompts:
    """Move prompts into their windows: the one place where (y, x) becomes (x, y)."""
    scale, count = 2.0**-level, len(prompts)
    most = max(1, max(len(prompt.points) for prompt in prompts))
    points = torch.zeros(count, most, 2)
    labels = torch.full((count, most), -1)
    boxes = torch.full((count, 4), torch.nan)
    masks = torch.zeros(count, 1, WINDOW // 4, WINDOW // 4)
    has_mask = torch.zeros(count)
    for i, (prompt, (oy, ox)) in enumerate(zip(prompts, origins, strict=True)):
        n = len(prompt.points)
        if n:
            yx = (prompt.points + 0.5) * scale - (oy, ox)
            points[i, :n] = torch.from_numpy(yx[:, ::-1].copy())
            labels[i, :n] = torch.from_numpy(prompt.labels)
        if prompt.box is not None:
            y0, x0, y1, x1 = prompt.box * scale - (oy, ox, oy, ox)
            boxes[i] = torch.tensor([x0, y0, x1, y1])
        if prompt.mask is not None:
            masks[i, 0] = _mask_in_window(prompt.mask, (oy, ox), level)
            has_mask[i] = 1.0
    return WindowPrompts(points, labels, boxes, masks, has_mask)


def _mask_in_window(logits: np.ndarray, origin: tuple[int, int], level: int) -> Tensor:
    """Probability of a mask prompt in the cells of a window, (WINDOW/4, WINDOW/4)."""
    scale, (height, width) = 2.0**level, logits.shape
    y0, x0 = (o * scale for o in origin)
    side = WINDOW * scale
    top, left = max(0, math.floor(y0)), max(0, math.floor(x0))
    bottom, right = min(height, math.ceil(y0 + side)), min(width, math.ceil(x0 + side))
    full = torch.zeros(math.ceil(side), math.ceil(side))
    if bottom > top and right > left:
        part = torch.from_numpy(logits[top:bottom, left:right]).sigmoid()
        dy, dx = top - math.floor(y0), left - math.floor(x0)
        full[dy : dy + part.shape[0], dx : dx + part.shape[1]] = part[: full.shape[0] - dy, : full.shape[1] - dx]
    cells = (WINDOW // 4, WINDOW // 4)
    return F.interpolate(full[None, None], size=cells, mode="bilinear", align_corners=False, antialias=True)[0, 0]


def _grid(image_shape: tuple[int, int], view: View) -> LogitsGrid:
    scale = 2.0**view.level
    matrices, starts = [], []
    for origin, extent in zip(view.origin, image_shape, strict=True):
        first = max(0, math.floor(origin * scale))
        last = max(first, min(extent, math.ceil((origin + WINDOW) * scale)))
        start, stop = ((edge / scale - origin) / 4 for edge in (first, last))
        matrices.append(linear_interpolation(WINDOW // 4, last - first, start, stop))
        starts.append(first)
    return LogitsGrid(image_shape, (starts[0], starts[1]), matrices[0], matrices[1])
