"""What every image model must do; a subclass gives the fixture `model`."""

import numpy as np
import pytest

from napari_segany.core.errors import InvalidImageError, UnsupportedError
from napari_segany.core.prompts import make_prompt
from napari_segany.core.protocols import Embedding, ImageModel, StorableModel


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Bright discs on a noisy ground."""
    rng = np.random.default_rng(seed)
    image = rng.normal(20, 4, (height, width))
    ys, xs = np.ogrid[:height, :width]
    for y, x in rng.uniform(0.15, 0.85, (4, 2)) * (height, width):
        image[(ys - y) ** 2 + (xs - x) ** 2 < (min(height, width) / 9) ** 2] += 60
    return image.clip(0, 255).astype(np.uint8)


class ImageModelConformance:
    """Inherit this and define a fixture `model`."""

    @pytest.fixture
    def embedding(self, model: ImageModel) -> Embedding:
        return model.embed(picture(90, 130))

    def test_it_tells_what_it_is(self, model: ImageModel, embedding: Embedding) -> None:
        assert model.name and model.family and "image" in model.capabilities
        assert isinstance(embedding, Embedding)
        assert embedding.image_shape == (90, 130) and embedding.model_name == model.name

    @pytest.mark.parametrize(
        "prompt",
        [
            {"points": [(40, 60)]},
            {"points": [(40, 60), (70, 20)], "labels": [1, 0]},
            {"box": (20, 30, 60, 100)},
            {"points": [(40, 60)], "box": (20, 30, 60, 100)},
            {"mask": picture(90, 130) > 50},
        ],
        ids=["click", "clicks", "box", "click and box", "mask"],
    )
    @pytest.mark.parametrize("multimask", [True, False])
    def test_answers_have_their_shapes(self, model: ImageModel, embedding: Embedding, prompt, multimask) -> None:
        (answer,) = model.predict(embedding, [make_prompt((90, 130), **prompt)], multimask)
        count = 3 if multimask else 1
        assert answer.logits.shape[0] == count and answer.logits.dtype == np.float32
        assert answer.scores.shape == (count,) and np.isfinite(answer.scores).all()
        assert answer.masks.shape == (count, 90, 130) and answer.masks.dtype == bool
        assert answer.uncertainty.shape == (90, 130)

    def test_one_click_has_three_answers_and_other_prompts_one(self, model: ImageModel, embedding: Embedding) -> None:
        click, box = make_prompt((90, 130), points=[(40, 60)]), make_prompt((90, 130), box=(20, 30, 60, 100))
        answers = model.predict(embedding, [click, box])
        assert [len(answer.scores) for answer in answers] == [3, 1]

    def test_a_batch_equals_one_by_one_in_any_order(self, model: ImageModel, embedding: Embedding) -> None:
        prompts = [make_prompt((90, 130), points=[(y, x)]) for y, x in ((10, 10), (40, 60), (80, 120))]
        prompts += [make_prompt((90, 130), box=(5, 5, 40, 50)), make_prompt((90, 130), box=(30, 60, 80, 120))]
        prompts += [make_prompt((90, 130), points=[(9, 9), (30, 30)])]
        together = model.predict(embedding, prompts)
        backwards = model.predict(embedding, prompts[::-1])[::-1]
        for prompt, a, b in zip(prompts, together, backwards, strict=True):
            (alone,) = model.predict(embedding, [prompt])
            for other in (alone, b):
                np.testing.assert_allclose(a.logits, other.logits, atol=2e-3 * np.abs(a.logits).max())
                np.testing.assert_allclose(a.scores, other.scores, atol=1e-3)

    def test_no_prompts_no_answers(self, model: ImageModel, embedding: Embedding) -> None:
        assert model.predict(embedding, []) == []

    @pytest.mark.parametrize("shape", [(90, 130), (130, 90), (64, 64), (17, 300), (3, 5), (1, 1)])
    def test_any_size(self, model: ImageModel, shape: tuple[int, int]) -> None:
        embedding = model.embed(picture(*shape))
        (answer,) = model.predict(embedding, [make_prompt(shape, points=[(shape[0] // 2, shape[1] // 2)])])
        assert answer.best.shape == shape

    @pytest.mark.parametrize(
        "image",
        [
            picture(60, 70).astype(np.float32) / 7,
            picture(60, 70).astype(np.uint16) * 200,
            np.stack([picture(60, 70, i) for i in range(3)], axis=-1),
            np.stack([picture(60, 70, i) for i in range(2)], axis=-1).astype(np.float64),
            np.full((60, 70), np.nan),
            np.zeros((60, 70), dtype=bool),
        ],
        ids=["float", "uint16", "rgb", "two channels", "nan", "constant"],
    )
    def test_any_image(self, model: ImageModel, image: np.ndarray) -> None:
        (answer,) = model.predict(model.embed(image), [make_prompt((60, 70), points=[(30, 30)])])
        assert np.isfinite(answer.logits).all()

    def test_empty_images_are_refused(self, model: ImageModel) -> None:
        with pytest.raises(InvalidImageError, match="empty"):
            model.embed(np.zeros((0, 10)))

    def test_anothers_embedding_is_refused(self, model: ImageModel) -> None:
        class Foreign:
            image_shape, model_name = (90, 130), "other"

        with pytest.raises(UnsupportedError, match="embed the image again"):
            model.predict(Foreign(), [make_prompt((90, 130), points=[(40, 60)])])

    def test_stored_embeddings_answer_alike(self, model: ImageModel, embedding: Embedding) -> None:
        assert isinstance(model, StorableModel) and len(model.fingerprint) == 16
        arrays = model.pack(embedding)
        assert all(array.dtype == np.float16 for array in arrays.values())
        again = model.unpack(arrays, picture(90, 130))
        assert again.image_shape == (90, 130) and again.model_name == model.name
        prompts = [make_prompt((90, 130), points=[(40, 60)]), make_prompt((90, 130), box=(20, 30, 60, 100))]
        for a, b in zip(model.predict(embedding, prompts), model.predict(again, prompts), strict=True):
            np.testing.assert_allclose(a.logits, b.logits, atol=1e-2 * np.abs(a.logits).max())
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-2)

    def test_the_image_is_not_changed(self, model: ImageModel) -> None:
        image = picture(40, 50)
        before = image.copy()
        model.embed(image)
        np.testing.assert_array_equal(image, before)
