"""Pixels in, pixels in the colours that were asked for out: channels, bits, and the ICC profile that the numbers are meant in."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from h5dat_lib.convert.picture import Pixels, short
from h5dat_lib.errors import MemberError

CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}
"""By Pillow's mode; all others have one."""
_MODES = (None, "L", "LA", "RGB", "RGBA")


def recoloured(pixels: Pixels, color: str) -> Pixels:
    """Pixels in the channels of ``color``, with 8 bit, by Pillow's conversions; ``keep`` leaves them as they are."""
    if color == "keep":
        return pixels
    wanted, pixels = CHANNELS.get(color, 1), in_8_bit(pixels)
    if wanted == pixels.shape[2]:
        return pixels
    if pixels.shape[2] == 1:
        return np.repeat(pixels, wanted, axis=2)
    return np.asarray(_as_image(pixels).convert(color)).reshape(*pixels.shape[:2], wanted)


def to_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """Pixels that are meant in an ICC profile, as sRGB, by LittleCMS with perceptual intent. Alpha is kept, and grey stays grey.

    Raises MemberError when the profile cannot be used, is of another colour space, or the pixels have more than 8 bit.
    """
    if pixels.dtype != np.uint8:
        raise MemberError(
            f"cannot be converted to sRGB: found {pixels.dtype} pixels with a profile, expected uint8; set `color` to RGB or L"
        )
    colours = pixels.shape[2] - 1 + pixels.shape[2] % 2
    converted = np.asarray(image_to_srgb(_as_image(np.ascontiguousarray(pixels[:, :, :colours])), profile))
    return np.concatenate((converted[:, :, :colours], pixels[:, :, colours:]), axis=2)


def image_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An image of mode L, RGB or CMYK as RGB in sRGB. Raises MemberError as `to_srgb` does."""
    try:
        converted: Image.Image = _transform(profile, image.mode).apply(image)
    except Exception as exc:  # ImageCms lets whatever LittleCMS or its own parsing raises through
        raise MemberError(f"cannot be converted to sRGB: {short(exc)}") from exc
    return converted


@lru_cache(maxsize=8)  # a class of pictures has few profiles, and each takes milliseconds to prepare
def _transform(profile: bytes, mode: str) -> Any:
    from PIL import ImageCms

    source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, srgb, mode, "RGB", ImageCms.Intent.PERCEPTUAL)


def _as_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, _MODES[pixels.shape[2]])


def in_8_bit(pixels: Pixels) -> Pixels:
    """The upper 8 of 16 bit; 32-bit numbers have no known range and are cut off at 0 and 255, as Pillow does."""
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    return pixels if pixels.dtype == np.uint8 else np.clip(np.nan_to_num(pixels), 0, 255).astype(np.uint8)
