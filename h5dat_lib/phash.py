"""Pixels -> a perceptual hash of 64 bits: pictures that look alike have hashes that differ in few of them.

A bit says whether one of the 64 lowest frequencies of the picture, by its cosine transform, is stronger than most of them. docs/format.md
has it step by step. Transforming the picture as it is, not a small copy, keeps the bits when its size changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from h5dat_lib.columns import Array, Scalars

BITS = 64
_SIDE = 8
"""Frequencies along each axis."""
_SAMPLES = 128
"""Of a longer side each k-th pixel is looked at, with k so that no fewer than these are: 0.1 ms a photograph, not 2."""
_STEPS = 64
"""Frequencies are rounded to so many parts of a grey level, so that those that are equal but for a machine's rounding are equal."""
_GREY = {1: (1.0,), 3: (77 / 256, 150 / 256, 29 / 256)}
"""What channels weigh in grey."""
_WHITE = 255


def frequencies(pixels: Array) -> Array:
    """The lowest frequencies (64,) float64, as `hashes` takes them, of a picture (height, width, 1 to 4 channels) of any type of number.

    What is transparent is white. Values of other types than uint8 are brought from their own range to that of uint8.
    """
    down, across = pixels.shape[0] // _SAMPLES, pixels.shape[1] // _SAMPLES
    if down > 1 or across > 1:
        pixels = pixels[down // 2 :: down or 1, across // 2 :: across or 1]
    height, width, channels = pixels.shape
    if pixels.dtype == np.uint8 and channels in _GREY:
        lines = pixels.reshape(height, -1).astype("f4") @ _across(width, channels)
    else:
        lines = _grey(pixels) @ _across(width, 1)
    found: Array = _down(height) @ lines
    return found.reshape(BITS)


def hashes(found: Sequence[Array | None]) -> Scalars:
    """The hashes <u8 of so many pictures by their `frequencies`; missing for None, and for a picture of one colour, which has nothing to
    tell it by."""
    values = np.array([np.zeros(BITS) if one is None else one for one in found]).reshape(-1, BITS)
    values = np.rint(values * _STEPS)
    middle = np.partition(values, (BITS // 2 - 1, BITS // 2), axis=1)[:, BITS // 2 - 1 : BITS // 2 + 1].sum(1, keepdims=True)
    bits = np.packbits(2 * values > middle, axis=1).view(">u8").ravel()
    missing = ~values[:, 1:].any(1)
    return Scalars(np.where(missing, 0, bits).astype("<u8"), "<u8", missing if missing.any() else None)


def phash(pixels: Array) -> int | None:
    """The hash of one picture; None where it has none."""
    found = hashes([frequencies(pixels)])
    return int(np.asarray(found.values)[0]) if found.missing is None else None


def _grey(pixels: Array) -> Array:
    """(height, width) float64 of 0 to 255, with what is transparent as white."""
    channels = pixels.shape[2]
    colours = channels - 1 + channels % 2
    grey = pixels[:, :, :colours].astype("f8") @ _GREY[colours]
    if channels > colours and pixels.dtype.kind == "u":
        most = np.iinfo(pixels.dtype).max
        grey = most - (most - grey) * (pixels[:, :, -1] / most)
    return grey if pixels.dtype == np.uint8 else _stretched(grey)


def _stretched(grey: Array) -> Array:
    """Values of any range brought to 0 to 255, by halves, whose difference is a number; what is no number is the lowest."""
    halves, finite = grey / 2, np.isfinite(grey)
    low, high = (float(end(halves, where=finite, initial=start)) for end, start in ((np.min, np.inf), (np.max, -np.inf)))
    if not low < high:
        return np.zeros_like(grey)
    return np.asarray(np.where(finite, halves - low, 0) / (high - low) * _WHITE)


@lru_cache(maxsize=256)
def _down(samples: int) -> Array:
    """(8, samples): the cosine of each frequency at the middle of each sample, by the number of samples; so many have no higher ones."""
    place = (2 * np.arange(samples) + 1) * np.pi / (2 * samples)
    waves = np.cos(place * np.arange(_SIDE)[:, np.newaxis]) / samples
    waves[samples:] = 0
    return waves


@lru_cache(maxsize=256)
def _across(samples: int, channels: int) -> Array:
    """(samples * channels, 8) float32: the same along a row of pixels, of what their channels weigh in grey."""
    return np.kron(_down(samples).T, np.array(_GREY[channels])[:, np.newaxis]).astype("f4")
