"""From any real image to RGB intensities in 0-255, by one visible range."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_segany.core.errors import InvalidImageError

#: Percentiles that become black and white unless the person chooses otherwise.
DEFAULT_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True)
class IntensityRange:
    """Intensities shown as black and as white, one pair for each channel.

    Attributes
    ----------
    low, high : tuple of float
        One value per channel in the image's own units. Where ``low == high``
        the channel has no contrast and becomes black.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high):
            raise InvalidImageError(
                f"An intensity range needs as many low as high values, got {len(self.low)} and {len(self.high)}."
            )
        for low, high in zip(self.low, self.high, strict=True):
            if not (np.isfinite(low) and np.isfinite(high)) or low > high:
                raise InvalidImageError(f"An intensity range must be finite with low <= high, got {low} to {high}.")


def check_image(image: np.ndarray) -> np.ndarray:
    """Return `image` as an array in memory; see `check_pixels`."""
    return check_pixels(np.asarray(image))


def check_pixels(image: Any) -> Any:
    """Return an image as it is, read or not, or say what is wrong with it.

    Parameters
    ----------
    image : (H, W) or (H, W, C) array-like, C <= 4, any real or bool dtype

    Raises
    ------
    InvalidImageError
        Empty, of another number of dimensions, or not real.
    """
    if not hasattr(image, "shape") or not hasattr(image, "dtype"):
        image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        raise InvalidImageError(
            f"An image must have the shape (H, W) or (H, W, C) with at most 4 channels, got {image.shape}; "
            "choose one plane or the channels first."
        )
    if 0 in image.shape:
        raise InvalidImageError(f"The image is empty: its shape is {image.shape}.")
    if image.dtype.kind not in "buif":
        raise InvalidImageError(f"An image must hold real numbers, got dtype {image.dtype}.")
    return image


def estimate_range(image: np.ndarray, percentiles: tuple[float, float] = DEFAULT_PERCENTILES) -> IntensityRange:
    """Estimate the black and white point of an image or of sampled planes.

    An 8-bit RGB(A) image already is what a camera or scanner meant to show
    and keeps 0-255; everything else is stretched between two percentiles of
    its finite values.

    Parameters
    ----------
    image : (..., H, W) gray array or (..., H, W, C) array with a channel axis
        Leading axes are pooled. Only a 3D array whose last axis is 1 to 4
        long, or a 4D array, is read as having channels.
    percentiles : (low, high), each 0 to 100
    """
    if image.dtype == np.uint8 and image.ndim >= 3 and image.shape[-1] in (3, 4):
        return IntensityRange((0.0,) * image.shape[-1], (255.0,) * image.shape[-1])
    has_channels = image.ndim == 4 or (image.ndim == 3 and image.shape[-1] <= 4)
    channels = np.moveaxis(image, -1, 0) if has_channels else image[None]
    pairs = [_percentile_pair(channel, percentiles) for channel in channels]
    if all(low == high for low, high in pairs):
        warnings.warn(
            "The image has no contrast: all its pixels are alike, or none is a number. Nothing can be found in it.",
            stacklevel=2,
        )
    return IntensityRange(tuple(low for low, _ in pairs), tuple(high for _, high in pairs))


def _percentile_pair(values: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float]:
    flat = values.ravel()
    # A million evenly spaced samples place a percentile as well as all of them do.
    flat = flat[:: max(1, flat.size // 1_000_000)].astype(np.float64)
    flat = flat[np.isfinite(flat)]
    if flat.size == 0:
        return 0.0, 0.0
    with np.errstate(over="ignore"):
        low, high = np.percentile(flat, percentiles)
    if low == high or not np.isfinite([low, high]).all():
        # A few bright objects on an even ground can hide above the percentile, and differences of doubles overflow.
        low, high = flat.min(), flat.max()
    return float(low), float(high)


def to_rgb(image: np.ndarray, intensity: IntensityRange | None = None) -> np.ndarray:
    """Stretch an image to RGB in 0-255.

    Parameters
    ----------
    image : (H, W) or (H, W, C) array, C <= 4, any real or bool dtype
        NaN counts as black, infinities as the nearer end of the range.
    intensity : IntensityRange, optional
        Estimated from the image when absent. One pair serves all channels.

    Returns
    -------
    (H, W, 3) float32
        One channel is repeated; of two, the third is their mean; of four,
        the last is dropped as transparency.

    Raises
    ------
    InvalidImageError
        See `check_image`; also when `intensity` has another channel count.
    """
    image = check_image(image)
    if intensity is None:
        intensity = estimate_range(image)
    channels = image[..., None] if image.ndim == 2 else image
    count = channels.shape[-1]
    low, high = (np.asarray(pair, dtype=np.float64) for pair in (intensity.low, intensity.high))
    if low.size not in (1, count):
        raise InvalidImageError(
            f"The intensity range has {low.size} channels and the image has {count}; give one range or {count}."
        )
    with np.errstate(over="ignore"):
        span = np.where(high > low, high - low, np.inf)
    # Wide integers and doubles far from zero have contrast that single precision would lose.
    exact = np.result_type(image.dtype, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (channels.astype(exact) - low.astype(exact)) * (255.0 / span).astype(exact)
    scaled = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0.0, 255.0)
    scaled = scaled.astype(np.float32, copy=False)
    if count == 1:
        return np.repeat(scaled, 3, axis=-1)
    if count == 2:
        return np.concatenate([scaled, scaled.mean(axis=-1, keepdims=True)], axis=-1)
    return np.ascontiguousarray(scaled[..., :3])


def to_gray(image: np.ndarray, intensity: IntensityRange | None = None) -> np.ndarray:
    """Stretch an image to one brightness in 0-255, the mean of what `to_rgb` gives; (H, W) float32."""
    return to_rgb(image, intensity).mean(axis=-1)
