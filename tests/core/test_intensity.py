"""Any real image becomes RGB in 0-255."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_segany.core.errors import InvalidImageError
from napari_segany.core.intensity import IntensityRange, estimate_range, to_rgb

DTYPES = [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64, np.float16, np.float32, np.float64]


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, st.sampled_from([(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)]))
    )
)
def test_every_dtype_gives_finite_rgb(image: np.ndarray) -> None:
    rgb = to_rgb(image)
    assert rgb.shape == (5, 7, 3) and rgb.dtype == np.float32
    assert np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 255


def test_8_bit_colour_is_left_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(image), image.astype(np.float32))


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf, -np.inf])
def test_images_without_contrast_are_even(value: float) -> None:
    assert len(np.unique(to_rgb(np.full((5, 6), value)))) == 1


def test_nan_is_black_and_infinity_white() -> None:
    image = np.linspace(0, 1, 100).reshape(10, 10)
    image[0, 0], image[0, 1] = np.nan, np.inf
    rgb = to_rgb(image)
    assert (rgb[0, 0] == 0).all() and (rgb[0, 1] == 255).all()


def test_a_given_range_makes_frames_alike() -> None:
    dim, bright = np.full((4, 4), 100, np.uint16), np.full((4, 4), 900, np.uint16)
    shared = IntensityRange((0.0,), (1000.0,))
    assert to_rgb(dim, shared)[0, 0, 0] == pytest.approx(25.5) and to_rgb(bright, shared)[0, 0, 0] == pytest.approx(
        229.5
    )


def test_a_few_bright_objects_still_have_contrast() -> None:
    image = np.zeros((200, 200), np.uint16)
    image[3:5, 3:5] = 900
    assert to_rgb(image).max() == 255


def test_channels_are_stretched_apart() -> None:
    image = np.stack([np.linspace(0, 1, 400).reshape(20, 20), np.linspace(0, 1000, 400).reshape(20, 20)], axis=-1)
    rgb = to_rgb(image)
    np.testing.assert_allclose(rgb[..., 0], rgb[..., 1], atol=0.5)
    assert len(estimate_range(image).low) == 2


@pytest.mark.parametrize("shape", [(5,), (5, 6, 7), (2, 3, 4, 5), (0, 5), (5, 0, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImageError):
        to_rgb(np.zeros(shape))


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(InvalidImageError, match="complex"):
        to_rgb(np.zeros((5, 5), complex))


@given(hnp.arrays(np.float64, (6, 6), elements=st.floats(allow_nan=True, allow_infinity=True)))
@example(np.where(np.eye(6) > 0, 1.8e307, -1.62e308))
@example(np.where(np.arange(36).reshape(6, 6) > 0, -1.615e308, 1.8e307))
def test_brighter_pixels_never_become_darker(image: np.ndarray) -> None:
    finite = np.nan_to_num(image, nan=-np.inf).ravel()
    gray = to_rgb(image)[..., 0].ravel()
    assert (np.diff(gray[np.argsort(finite, kind="stable")]) >= 0).all()


@given(hnp.arrays(st.sampled_from(DTYPES), (3, 8, 9)))
def test_an_estimated_range_lies_within_the_values(stack: np.ndarray) -> None:
    estimated = estimate_range(stack)
    finite = stack[np.isfinite(stack)].astype(np.float64)
    assert len(estimated.low) == 1
    if finite.size:
        assert finite.min() <= estimated.low[0] <= estimated.high[0] <= finite.max()


@pytest.mark.parametrize(
    "image",
    [
        1e9 + np.linspace(0, 10, 100),
        2**40 + np.arange(100),
        np.arange(100, dtype=np.uint32) + 2**31,
        np.arange(100) * 1e300,
    ],
    ids=["float64 offset", "int64", "uint32", "huge"],
)
def test_contrast_far_from_zero_is_kept(image: np.ndarray) -> None:
    rgb = to_rgb(image.reshape(10, 10))
    assert len(np.unique(rgb)) > 90 and rgb.max() == 255


@pytest.mark.parametrize(
    ("low", "high"), [((0.0,), (1.0, 2.0)), ((2.0,), (1.0,)), ((np.nan,), (1.0,)), ((0.0,), (np.inf,))]
)
def test_ranges_without_meaning_are_refused(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    with pytest.raises(InvalidImageError, match="range"):
        IntensityRange(low, high)


def test_a_range_of_another_channel_count_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="2 channels and the image has 3"):
        to_rgb(np.zeros((4, 4, 3)), IntensityRange((0.0, 0.0), (1.0, 1.0)))
