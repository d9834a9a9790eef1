"""The border between the formats of pictures and what is made of them: a member's bytes in, a `Picture` out.

An opener reads a header and checks it; nothing large is allocated before `Picture.decode`. Orientation, colours, sizes and columns
are the same for all formats and are no opener's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h5dat_lib.columns import Pairs
from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.errors import MemberError

Pixels = NDArray[Any]
"""(height, width, channels), little-endian uint8, uint16, int32 or float32, and of FITS whatever type it has."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels of a frame, and what is known only once they have been decoded.

    ``damage`` says what is wrong with them, in a few words of ASCII; empty when nothing is, and always when `ImageOptions.damaged` is
    ``strict``: then decoding raises MemberError. ``duration`` is how long the frame of an animation is shown, in seconds.
    """

    pixels: Pixels
    damage: str = ""
    duration: float = 0.0


def _only_frame(number: int) -> Picture:
    raise MemberError(f"found no frame {number}, expected one frame")


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a picture whose header has been read and checked, and how its pixels are got.

    ``format`` (at most 8 characters) and ``mode`` (likewise) are recorded as they are: the format and the decoder's name of the
    source's mode. ``height``, ``width``, ``channels`` and ``dtype`` (numpy's string) are those of what ``decode`` gives: before
    orientation, profile, colour and size. ``decode`` raises MemberError. It may give fewer pixels where `ImageOptions.resize` makes
    them fewer anyway.

    ``frames`` is how many the file has, at most ``limits.frames``, and ``frame`` gives the one of a number, from 1 on; they are asked
    for in order, and only one of them is used at a time. ``orientation`` is EXIF's (1 to 8), still to be applied unless ``turned``:
    then ``decode`` does, and height and width are those behind it. ``profile`` is the embedded ICC profile, still to be applied.
    ``pairs`` are what the header says, as pairs of row 0.
    """

    format: str
    mode: str
    height: int
    width: int
    channels: int
    dtype: str
    decode: Callable[[], Decoded]
    frames: int = 1
    frame: Callable[[int], Picture] = _only_frame
    orientation: int = 1
    turned: bool = False
    profile: bytes = b""
    pairs: Pairs | None = None

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) once the orientation has been applied."""
        return (self.width, self.height) if self.orientation > 4 and not self.turned else (self.height, self.width)


def marked(picture: Picture, damage: str) -> Picture:
    """The same, whose pixels are damaged as was found before they were decoded."""
    return replace(picture, decode=partial(_decode_marked, picture, damage)) if damage else picture


def _decode_marked(picture: Picture, damage: str) -> Decoded:
    return replace(picture.decode(), damage=damage)


Opener = Callable[[bytes, ImageOptions, Limits], Picture]
"""Reads a header. Raises MemberError when the bytes are not of the format, or when it asks for more than the limits allow."""


def check_pixels(width: int, height: int, limits: Limits, what: str = "pixels") -> None:
    """Raises MemberError when there are none, or more of them than ``limits.pixels``; to be called before they are decoded."""
    if width < 1 or height < 1:
        raise MemberError(f"empty: found {width} x {height} {what}")
    if width * height > limits.pixels:
        raise MemberError(f"too large: found {width} x {height} {what}, expected at most {limits.pixels} (limits.pixels)")


def check_frames(count: int, limits: Limits) -> None:
    """Raises MemberError when there are more of them than ``limits.frames``."""
    if count > limits.frames:
        raise MemberError(f"too large: found more than {limits.frames} frames (limits.frames)")


def short(exc: Exception) -> str:
    """The first line of what a foreign decoder says, at most 200 characters."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0][:200]


def with_channels(pixels: Pixels) -> Pixels:
    """(height, width) as (height, width, 1), in little-endian order."""
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"))
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
