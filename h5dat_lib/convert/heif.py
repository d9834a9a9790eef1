"""HEIC and HEIF: a member's bytes in, its pictures and a way to decode their pixels out.

libheif turns and crops as the file says (``irot``, ``imir``, ``clap``); the orientation in Exif only informs of it (MIAF, ISO/IEC
23000-22, 7.3.6.7) and is not applied once more.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.picture import Decoded, Picture, check_frames, check_pixels, short
from h5dat_lib.errors import MemberError

__all__ = ["open_heif"]

_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_FAILURES = (ValueError, EOFError, SyntaxError, RuntimeError, OSError, IndexError)
"""What pillow_heif raises, by its documentation; IndexError where there is no picture."""


def open_heif(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """The primary picture, and the others behind it as frames: (height, width, channels) grey, RGB or with alpha.

    uint8, or uint16 for pictures of 10 and 12 bit, whose values take the upper bits. ``mode`` is Pillow's, followed by ``;16``.
    Raises MemberError for a damaged file, and for alpha that the colours have been multiplied with.
    """
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1  # workers are what uses the cores
    try:
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
        images = [file[file.primary_index], *(image for image in file if not image.info["primary"])]
    except _FAILURES as exc:
        raise MemberError(f"cannot be decoded as HEIF: {short(exc)}") from exc
    check_frames(len(images), limits)
    for image in images:
        check_pixels(*image.size, limits)
    return _picture(images, 0)


def _picture(images: list[Any], number: int) -> Picture:
    image = images[number]
    channels = _CHANNELS.get(image.mode.removesuffix(";16"))
    if channels is None:
        raise MemberError(f"cannot be decoded as HEIF: found pixels of mode {image.mode}, expected {', '.join(_CHANNELS)}")
    width, height = image.size
    dtype = "<u2" if image.mode.endswith(";16") else "|u1"
    return Picture(
        "HEIF", image.mode, height, width, channels, dtype, partial(_decoded, image, (height, width, channels), dtype),
        frames=len(images), frame=partial(_picture, images), profile=image.info.get("icc_profile", b""),
    )  # fmt: skip


def _decoded(image: Any, shape: tuple[int, int, int], dtype: str) -> Decoded:
    try:
        pixels = np.frombuffer(image.data, dtype)
    except _FAILURES as exc:
        raise MemberError(f"cannot be decoded as HEIF: {short(exc)}") from exc
    if pixels.size != np.prod(shape):
        raise MemberError(f"cannot be decoded as HEIF: found {pixels.size} samples, expected {shape[1]} x {shape[0]} of {shape[2]}")
    return Decoded(pixels.reshape(shape))
