"""nano as an `ImageModel`: finds the zoom that suits each object, then decodes all of them together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from napari_segany.core.concepts import Examples
from napari_segany.core.errors import UnsupportedError
from napari_segany.core.instances import Instances
from napari_segany.core.intensity import IntensityRange, to_rgb
from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Multimask
from napari_segany.core.settings import EverythingSettings, FindSettings
from napari_segany.models.batches import in_batches
from napari_segany.models.nano import finder
from napari_segany.models.nano.concepts import ANYTHING, CONCEPTS
from napari_segany.models.nano.embedding import NanoEmbedding
from napari_segany.models.nano.finder import Described
from napari_segany.models.nano.network import WINDOW, Nano
from napari_segany.models.nano.prompt_maps import WindowPrompts, render
from napari_segany.models.nano.tracker import NanoTracker
from napari_segany.models.nano.views import Answer, View, search_views, view_of, vote

#: Images up to this side are magnified to look for objects in them.
MAGNIFY_UP_TO = 1024
#: Product of "inside" and "depth" above which a peak is proposed.
PROPOSAL_THRESHOLD = 0.25
#: Prompts decoded at once: more only costs memory.
BATCH = 32


class NanoModel:
    """The model that ships with the package.

    Parameters
    ----------
    network : Nano
    name : str
    device : torch.device
    dtype : torch.dtype
    provenance : mapping, optional
        Where an adapted model comes from; see `napari_segany.training.adapt.Provenance`.
    """

    family = "nano"
    capabilities = frozenset({"image", "stack", "concept"})
    words = (*CONCEPTS, *ANYTHING)
    #: Its proposals come one to an object, so overlaps are duplicates.
    everything_settings = EverythingSettings(
        score_threshold=0.5, stability_threshold=0.25, overlap_threshold=0.4, min_area=16
    )

    def __init__(
        self,
        network: Nano,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.provenance = name, provenance
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

        A prompt without box or mask does not tell how large its object is: it
        is looked at on several zoom levels, which then vote.
        """
        self.check(embedding)
        views = [view_of(prompt, embedding.coarsest) for prompt in prompts]
        asked = [
            (i, look)
            for i, (prompt, view) in enumerate(zip(prompts, views, strict=True))
            for look in (search_views(prompt, embedding.coarsest) if view is None else [view])
        ]
        looks: dict[int, dict[View, Answer]] = defaultdict(dict)
        self._look(embedding, prompts, asked, looks)
        chosen = [view or vote(list(looks[i].items()), embedding.coarsest) for i, view in enumerate(views)]
        self._look(embedding, prompts, [(i, view) for i, view in enumerate(chosen) if view not in looks[i]], looks)
        return [
            _candidates(embedding.image_shape, prompt, view, looks[i][view], multimask)
            for i, (prompt, view) in enumerate(zip(prompts, chosen, strict=True))
        ]

    @torch.inference_mode()
    def propose_boxes(self, embedding: NanoEmbedding) -> np.ndarray:
        """Boxes (y0, x0, y1, x1) of the objects that the encoder's dense maps show, (N, 4).

        Peaks of depth are flooded over what lies inside objects; a flooded
        basin need only be good enough to tell where its object is and how large.
        """
        from skimage.feature import peak_local_max
        from skimage.segmentation import watershed

        level = -1 if max(embedding.image_shape) <= MAGNIFY_UP_TO else 0
        inside, depth = embedding.encode_level(self.network.encoder, level).dense[0].float().sigmoid().cpu().numpy()
        height = ndimage.gaussian_filter(inside * depth, 1.0)
        peaks = peak_local_max(height, min_distance=2, threshold_abs=PROPOSAL_THRESHOLD, exclude_border=False)
        seeds = np.zeros(height.shape, dtype=np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        basins = ndimage.find_objects(watershed(-height, seeds, mask=inside > 0.5))
        boxes = [(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in filter(None, basins)]
        size = np.array(embedding.image_shape * 2)
        clipped = np.minimum(np.array(boxes, dtype=np.float64).reshape(-1, 4) * 4 * 2.0**level, size)
        return clipped[(clipped[:, 2:] > clipped[:, :2]).all(axis=1)]

    @torch.inference_mode()
    def describe(self, text: str | None, examples: Sequence[Examples]) -> Described:
        """Encode what to look for; see `ConceptModel.describe`."""
        return finder.describe(self, text, examples)

    @torch.inference_mode()
    def find(self, embedding: NanoEmbedding, described: Described, settings: FindSettings) -> Instances:
        """Find the objects of a concept; see `ConceptModel.find`."""
        self.check(embedding)
        return finder.find(self, embedding, described, settings)

    def codes(self, embedding: NanoEmbedding, prompts: Sequence[Prompt], answers: Sequence[Candidates]) -> Tensor:
        """Codes (P, CODE) float32 of the objects that boxes were answered with; see `ConceptHead`."""
        views = {i: view_of(prompt, embedding.coarsest) for i, prompt in enumerate(prompts)}
        codes: dict[int, Tensor] = {}

        def encode(part: Sequence[tuple[int, View]]) -> None:
            _, coarse = embedding.windows(self.network.encoder, part[0][1].level, [view.origin for _, view in part])
            inside = finder.inside_cells([answers[i] for i, _ in part]).to(self.device)
            codes.update(zip((i for i, _ in part), self.network.concepts.codes(coarse, inside), strict=True))

        for same_level in _by_level((i, view) for i, view in views.items() if view is not None):
            in_batches(same_level, BATCH, encode)
        return torch.stack([codes[i] for i in range(len(prompts))]).float()

    def check(self, embedding: NanoEmbedding) -> None:
        """Raise `UnsupportedError` when an embedding was made by another model."""
        if not isinstance(embedding, NanoEmbedding) or embedding.model_name != self.name:
            raise UnsupportedError(f"This embedding was not made by {self.name}; embed the image again.")

    def tracker(self, frames: int, motion: bool = False) -> NanoTracker:
        """A fresh memory for objects on a stack; see `StackModel.tracker`."""
        return NanoTracker(self, motion)

    def look(
        self,
        embedding: NanoEmbedding,
        prompts: Mapping[int, Prompt],
        views: Mapping[int, View],
        memories: Mapping[int, Tensor],
    ) -> dict[int, Candidates]:
        """Answer prompts (by number) through given views with memories (M, C) of other frames; one mask each."""
        looks: dict[int, dict[View, Answer]] = defaultdict(dict)
        by_size = defaultdict(list)
        for i, memory in memories.items():
            by_size[len(memory)].append(i)
        for part in by_size.values():
            self._look(embedding, prompts, [(i, views[i]) for i in part], looks, memories)
        return {
            i: _candidates(embedding.image_shape, prompt, views[i], looks[i][views[i]], False)
            for i, prompt in prompts.items()
        }

    def remember(
        self, embedding: NanoEmbedding, prompts: Mapping[int, Prompt], views: Mapping[int, View]
    ) -> dict[int, Tensor]:
        """What later frames look at, (M, C), of prompts (by number) seen through given views."""
        tokens: dict[int, Tensor] = {}

        def encode(part: Sequence[tuple[int, View]]) -> None:
            _, coarse, maps = self._windows(embedding, part, prompts)
            tokens.update(zip((i for i, _ in part), self.network.decoder.remember(coarse, maps), strict=True))

        for same_level in _by_level(views.items()):
            in_batches(same_level, BATCH, encode)
        return tokens

    def _look(
        self,
        embedding: NanoEmbedding,
        prompts: Sequence[Prompt] | Mapping[int, Prompt],
        asked: Iterable[tuple[int, View]],
        looks: dict[int, dict[View, Answer]],
        memories: Mapping[int, Tensor] | None = None,
    ) -> None:
        """Answer prompts (by number) through views, in batches of one level, into `looks`."""

        def decode(part: Sequence[tuple[int, View]]) -> None:
            fine, coarse, maps = self._windows(embedding, part, prompts)
            memory = None if memories is None else torch.stack([memories[i] for i, _ in part])
            logits, scores = self.network.decoder(fine, coarse, maps, memory)
            logits, scores = logits.float().cpu().numpy(), scores.float().sigmoid().cpu().numpy()
            for (i, view), *answer in zip(part, logits, scores, strict=True):
                looks[i][view] = (answer[0], answer[1])

        for same_level in _by_level(asked):
            in_batches(same_level, BATCH, decode)

    def _windows(
        self,
        embedding: NanoEmbedding,
        asked: Sequence[tuple[int, View]],
        prompts: Sequence[Prompt] | Mapping[int, Prompt],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features under windows of one level, and maps of the prompts in them; see `Decoder.forward`."""
        level, origins = asked[0][1].level, [view.origin for _, view in asked]
        fine, coarse = embedding.windows(self.network.encoder, level, origins)
        maps = render(_to_windows([prompts[i] for i, _ in asked], origins, level))
        return fine, coarse, maps.to(device=self.device, dtype=self.dtype)


def _by_level(asked: Iterable[tuple[int, View]]) -> Iterable[list[tuple[int, View]]]:
    found = defaultdict(list)
    for number, view in asked:
        found[view.level].append((number, view))
    return found.values()


def _candidates(
    image_shape: tuple[int, int], prompt: Prompt, view: View, answer: Answer, multimask: Multimask
) -> Candidates:
    several = prompt.is_ambiguous if multimask == "auto" else multimask
    kept = slice(1, None) if several else slice(0, 1)
    logits, scores = answer
    return Candidates(logits[kept], scores[kept], view.grid(image_shape))


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
