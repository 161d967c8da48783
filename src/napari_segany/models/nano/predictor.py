"""nano as an `ImageModel`: finds the zoom that suits each object, then decodes all of them together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_segany.core.concepts import Examples
from napari_segany.core.errors import UnsupportedError
from napari_segany.core.instances import Instances, non_maximum_suppression
from napari_segany.core.intensity import IntensityRange, to_rgb
from napari_segany.core.masks import Candidates
from napari_segany.core.prompts import Prompt
from napari_segany.core.protocols import Multimask
from napari_segany.core.settings import EverythingSettings, FindSettings
from napari_segany.models.batches import in_batches, in_memory
from napari_segany.models.nano import finder, survey
from napari_segany.models.nano.concepts import ANYTHING, CONCEPTS
from napari_segany.models.nano.corrections import Correction, Drawn, as_corrections
from napari_segany.models.nano.embedding import Features, NanoEmbedding
from napari_segany.models.nano.figures import describe
from napari_segany.models.nano.finder import Described
from napari_segany.models.nano.network import MASKS, Nano
from napari_segany.models.nano.prompt_maps import render
from napari_segany.models.nano.proposals import BLANK, FIRST_LOOK, basins, suitable_levels
from napari_segany.models.nano.survey import Survey
from napari_segany.models.nano.tracker import NanoTracker
from napari_segany.models.nano.views import OUTSIDE, Answer, Seen, View, nearer, search_views, view_of, vote
from napari_segany.models.nano.volume_network import VOLUME_WINDOW
from napari_segany.models.nano.windows import to_windows
from napari_segany.models.packing import fingerprint, from_half, to_half

#: Proposed boxes that overlap with a higher IoU are one.
SAME_BOX = 0.8
#: Added to the logits of what boxes and single clicks are answered with: on training images outlines drawn at these
#: heights overlap the truth the most. The decoder is a little too careful in a box, and too generous without one.
BOXED_WIDENING, CLICKED_WIDENING = 0.5, -0.25
#: The same for objects that are drawn in depth.
DRAWN_WIDENING = 0.5
#: What so many earlier prompts were answered with is kept, 16 KB each.
RECENT_DRAWN = 128
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
    volume_window = VOLUME_WINDOW
    #: Its proposals come one to an object, so overlaps are duplicates.
    everything_settings = EverythingSettings(
        score_threshold=0.2, stability_threshold=0.25, overlap_threshold=0.4, contained_threshold=0.6, min_area=16
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
        if device.type == "cpu":
            # Images come with their colours last, and convolutions that stay so are a quarter faster.
            self.network.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.network.volume.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @in_memory
    @torch.inference_mode()
    def embed(self, image: np.ndarray, intensity: IntensityRange | None = None) -> NanoEmbedding:
        """Encode an (H, W[, C]) image at its own size; other zoom levels follow on demand."""
        embedding = self._unencoded(image, intensity)
        embedding.encode_level(self.network.encoder, 0)
        return embedding

    def _unencoded(self, image: np.ndarray, intensity: IntensityRange | None) -> NanoEmbedding:
        rgb = torch.from_numpy(to_rgb(image, intensity)).permute(2, 0, 1)[None]
        scaled = (rgb / 127.5 - 1.0).to(device=self.device, dtype=self.dtype)
        return NanoEmbedding((image.shape[0], image.shape[1]), self.name, scaled)

    @cached_property
    def fingerprint(self) -> str:
        """See `StorableModel.fingerprint`."""
        return fingerprint(self.network)

    def pack(self, embedding: NanoEmbedding) -> dict[str, np.ndarray]:
        """See `StorableModel.pack`; other zoom levels than the image's own are encoded anew, but not surveyed anew."""
        features = embedding.encode_level(self.network.encoder, 0)
        parts = {name: to_half(getattr(features, name)) for name in ("fine", "coarse", "dense")}
        return parts if embedding.survey is None else parts | survey.pack(embedding.survey)

    def unpack(
        self, arrays: Mapping[str, np.ndarray], image: np.ndarray, intensity: IntensityRange | None = None
    ) -> NanoEmbedding:
        """See `StorableModel.unpack`."""
        embedding = self._unencoded(image, intensity)
        fine, coarse, dense = (from_half(arrays[name], self.device, self.dtype) for name in ("fine", "coarse", "dense"))
        embedding.levels[0] = Features(fine, coarse, dense)
        if "boxes" in arrays:
            embedding.survey = survey.unpack(arrays, embedding.image_shape, self.device)
        return embedding

    def predict(
        self, embedding: NanoEmbedding, prompts: Sequence[Prompt], multimask: Multimask = "auto"
    ) -> list[Candidates]:
        """Answer prompts, one object each; see `ImageModel.predict`.

        A prompt without box or mask does not tell how large its object is: it
        is looked at on several zoom levels, which then vote.
        """
        return list(self.answer(embedding, prompts, multimask))

    @torch.inference_mode()
    def answer(self, embedding: NanoEmbedding, prompts: Sequence[Prompt], multimask: Multimask = "auto") -> list[Seen]:
        """The same, with the view of each answer."""
        self.check(embedding)
        if embedding.survey is not None and multimask is not True:
            known = embedding.survey.answers_to(prompts)
            if known is not None:
                return known

        def draw(prompts: Sequence[Prompt]) -> list[Drawn]:
            return [Drawn(seen.view, seen.logits[seen.best_index]) for seen in self._ask(embedding, prompts, "auto")]

        # A copy, since another thread may answer too.
        drawn = dict(embedding.drawn)
        corrections = as_corrections(prompts, draw, drawn)
        embedding.drawn = dict(list(drawn.items())[-RECENT_DRAWN:])
        return self._ask(embedding, corrections, multimask)

    def _ask(self, embedding: NanoEmbedding, prompts: Sequence[Prompt], multimask: Multimask) -> list[Seen]:
        """Answer prompts as they are given."""
        chosen, looks = self.looks(embedding, prompts, multimask)
        answers = [
            self._choose(looks[i]) if prompt.is_ambiguous else (chosen[i], looks[i][chosen[i]])
            for i, prompt in enumerate(prompts)
        ]
        return [
            _candidates(embedding.image_shape, prompt, view, answer, multimask)
            for prompt, (view, answer) in zip(prompts, answers, strict=True)
        ]

    def _choose(self, looks: Mapping[View, Answer]) -> tuple[View, Answer]:
        """Choose the look at a click with the mask that is judged best, and score its masks as they are judged."""
        shown, scores = describe(looks)
        judged = self.network.judge(shown.to(self.device), scores.to(self.device)).sigmoid().cpu()
        # A click is answered with the masks after the first.
        best = int(judged[:, 1:].amax(dim=1).argmax())
        view = list(looks)[best]
        return view, (looks[view][0], judged[best].numpy())

    @torch.inference_mode()
    def looks(
        self, embedding: NanoEmbedding, prompts: Sequence[Prompt], multimask: Multimask = "auto"
    ) -> tuple[list[View], Mapping[int, Mapping[View, Answer]]]:
        """The view that suits each prompt, and, by the prompt's number, all that it was looked at through."""
        self.check(embedding)
        views = [
            prompt.drawn.again(embedding.coarsest)
            if isinstance(prompt, Correction)
            else view_of(prompt, embedding.coarsest)
            for prompt in prompts
        ]
        asked = [
            (i, look)
            for i, (prompt, view) in enumerate(zip(prompts, views, strict=True))
            for look in (search_views(prompt, embedding.coarsest) if view is None else [view])
        ]
        looks: dict[int, dict[View, Answer]] = defaultdict(dict)
        self._look(embedding, prompts, asked, looks, multimask)
        chosen = [
            vote(list(looks[i].items()), embedding.coarsest) if view is None else nearer(view, looks[i][view])
            for i, view in enumerate(views)
        ]
        self._look(
            embedding, prompts, [(i, view) for i, view in enumerate(chosen) if view not in looks[i]], looks, multimask
        )
        return chosen, looks

    @torch.inference_mode()
    def propose_boxes(self, embedding: NanoEmbedding) -> np.ndarray:
        """Boxes (y0, x0, y1, x1) in whole pixels of the objects that the encoder's dense maps show, (N, 4).

        A first look at the image magnified twice tells how large objects are, and so which levels show them best.
        Only what the image's own level does not show blank is magnified.
        """

        def maps(level: int, where: np.ndarray | None = None) -> np.ndarray:
            dense = embedding.encode_level(self.network.encoder, level, where).dense[0]
            return dense.float().sigmoid().cpu().numpy()

        if embedding.survey is not None:
            return embedding.survey.boxes
        where = maps(0)[0] > BLANK
        if not where.any():
            return np.zeros((0, 4))
        seen = {FIRST_LOOK: basins(*maps(FIRST_LOOK, where)) * 4 * 2.0**FIRST_LOOK}
        levels = suitable_levels(seen[FIRST_LOOK])
        seen.update({level: basins(*maps(level, where)) * 4 * 2.0**level for level in levels if level not in seen})
        # Of two levels that show the same box the finer counts.
        found = [seen[level] for level in levels]
        boxes = np.minimum(np.concatenate(found), np.array(embedding.image_shape * 2))
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        return boxes[np.sort(non_maximum_suppression(boxes, -np.arange(len(boxes)), SAME_BOX))]

    @torch.inference_mode()
    def survey(self, embedding: NanoEmbedding) -> Survey:
        """See `SurveyingModel.survey`: all objects that are proposed, drawn and told apart."""
        if embedding.survey is None:
            boxes = self.propose_boxes(embedding)
            answers = self.answer(embedding, [Prompt(box=box) for box in boxes]) if len(boxes) else []
            embedding.survey = Survey(boxes, answers, self.codes(embedding, answers))
        return embedding.survey

    @torch.inference_mode()
    def describe(self, text: str | None, examples: Sequence[Examples]) -> Described:
        """Encode what to look for; see `ConceptModel.describe`."""
        return finder.describe(self, text, examples)

    @torch.inference_mode()
    def find(self, embedding: NanoEmbedding, described: Described, settings: FindSettings) -> Instances:
        """Find the objects of a concept; see `ConceptModel.find`."""
        self.check(embedding)
        return finder.find(self, embedding, described, settings)

    def codes(self, embedding: NanoEmbedding, answers: Sequence[Seen]) -> Tensor:
        """Codes (P, CODE) float32 of the objects that boxes were answered with; see `ConceptHead`."""
        codes: dict[int, Tensor] = {}

        def encode(part: Sequence[int]) -> None:
            _, coarse = embedding.windows(self.network.encoder, [answers[i].view for i in part])
            inside = finder.inside_cells([answers[i] for i in part]).to(self.device)
            codes.update(zip(part, self.network.concepts.codes(coarse, inside), strict=True))

        in_batches(range(len(answers)), BATCH, encode)
        none = torch.zeros(0, self.network.concepts.code.out_features, device=self.device)
        return torch.stack([codes[i] for i in range(len(answers))]).float() if answers else none

    def check(self, embedding: NanoEmbedding) -> None:
        """Raise `UnsupportedError` when an embedding was made by another model."""
        if not isinstance(embedding, NanoEmbedding) or embedding.model_name != self.name:
            raise UnsupportedError(f"This embedding was not made by {self.name}; embed the image again.")

    def tracker(self, frames: int, motion: bool = False) -> NanoTracker:
        """A fresh memory for objects on a stack; see `StackModel.tracker`."""
        return NanoTracker(self, motion)

    @torch.inference_mode()
    def complete(self, pixels: np.ndarray, given: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Draw objects in windows around them; see `VolumeModel.complete`."""
        drawn = np.zeros(pixels.shape, dtype=np.float32)

        def draw(part: Sequence[int]) -> None:
            windows = (
                torch.from_numpy(values[part]).to(device=self.device, dtype=self.dtype)
                for values in (pixels, given, seen)
            )
            drawn[part] = self.network.volume.from_all_sides(*windows).float().cpu().numpy() + DRAWN_WIDENING

        in_batches(range(len(pixels)), BATCH, draw)
        return drawn

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
            self._look(embedding, prompts, [(i, views[i]) for i in part], looks, False, memories)
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
            _, coarse, maps = self.windows(embedding, part, prompts)
            tokens.update(zip((i for i, _ in part), self.network.decoder.remember(coarse, maps), strict=True))

        in_batches(list(views.items()), BATCH, encode)
        return tokens

    def _look(
        self,
        embedding: NanoEmbedding,
        prompts: Sequence[Prompt] | Mapping[int, Prompt],
        asked: Iterable[tuple[int, View]],
        looks: dict[int, dict[View, Answer]],
        multimask: Multimask,
        memories: Mapping[int, Tensor] | None = None,
    ) -> None:
        """Answer prompts (by number) through views, in batches, into `looks`."""

        def decode(part: Sequence[tuple[int, View]]) -> None:
            fine, coarse, maps = self.windows(embedding, part, prompts)
            memory = None if memories is None else torch.stack([memories[i] for i, _ in part])
            # The judge looks at all masks of a click.
            asked = MASKS if multimask is True or any(prompts[i].is_ambiguous for i, _ in part) else 1
            logits, scores = self.network.decoder(fine, coarse, maps, memory, asked)
            widened = torch.tensor([_widening(prompts[i]) for i, _ in part])[:, None, None, None]
            logits, scores = (logits.float().cpu() + widened).numpy(), scores.float().sigmoid().cpu().numpy()
            for (i, view), own, score in zip(part, logits, scores, strict=True):
                looks[i][view] = (_within(own, view.cells(embedding.image_shape)), score)

        in_batches(list(asked), BATCH, decode)

    def windows(
        self,
        embedding: NanoEmbedding,
        asked: Sequence[tuple[int, View]],
        prompts: Sequence[Prompt] | Mapping[int, Prompt],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features under windows, and maps of the prompts in them; see `Decoder.forward`."""
        views = [view for _, view in asked]
        fine, coarse = embedding.windows(self.network.encoder, views)
        maps = render(to_windows([prompts[i] for i, _ in asked], views))
        return fine, coarse, maps.to(device=self.device, dtype=self.dtype)


def _within(logits: np.ndarray, cells: tuple[slice, slice]) -> np.ndarray:
    """Logits (K, h, w) of a window without what is drawn beyond the image's edge."""
    kept = np.full_like(logits, OUTSIDE)
    kept[:, *cells] = logits[:, *cells]
    return kept


def _widening(prompt: Prompt) -> float:
    if prompt.box is not None and prompt.mask is None and not isinstance(prompt, Correction):
        return BOXED_WIDENING
    return CLICKED_WIDENING if prompt.is_ambiguous else 0.0


def _candidates(image_shape: tuple[int, int], prompt: Prompt, view: View, answer: Answer, multimask: Multimask) -> Seen:
    several = prompt.is_ambiguous if multimask == "auto" else multimask
    kept = slice(1, None) if several else slice(0, 1)
    logits, scores = answer
    return Seen.through(view, logits[kept], scores[kept], image_shape)
