"""A picture's bytes in, what Pillow makes of them out: one plugin a format, tried on that format only.

Pixels have the channels and the depth of the source, palettes resolved: 1-bit and grey pictures become L, palettes RGB or RGBA, CMYK,
YCbCr and LAB RGB. Where a picture has transparency other than an alpha channel, it gets one.
"""

from __future__ import annotations

import importlib
import io
import logging
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import frames, orientation
from h5dat_lib.convert.colours import CHANNELS, image_to_srgb
from h5dat_lib.convert.picture import Decoded, Picture, Pixels, check_frames, check_pixels, short, with_channels
from h5dat_lib.errors import MemberError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # without any, Python prints what it logs into the user's progress bar

PLUGINS = {
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "BLP": ("PIL.BlpImagePlugin", "BlpImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "DCX": ("PIL.DcxImagePlugin", "DcxImageFile"),
    "DDS": ("PIL.DdsImagePlugin", "DdsImageFile"),
    "DIB": ("PIL.BmpImagePlugin", "DibImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "ICNS": ("PIL.IcnsImagePlugin", "IcnsImageFile"),
    "ICO": ("PIL.IcoImagePlugin", "IcoImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "PCX": ("PIL.PcxImagePlugin", "PcxImageFile"),
    "PIXAR": ("PIL.PixarImagePlugin", "PixarImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "PSD": ("PIL.PsdImagePlugin", "PsdImageFile"),
    "SGI": ("PIL.SgiImagePlugin", "SgiImageFile"),
    "TGA": ("PIL.TgaImagePlugin", "TgaImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
}
"""Module and class of each format; Image.open would load all plugins and guess among them."""

_COUNTED = ("AVIF", "DCX")
"""Formats whose frames Pillow has counted when it has read the header; `frames` counts the others, none needs decoding."""
_OPAQUE = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"} | dict.fromkeys(
    ("CMYK", "YCbCr", "LAB", "HSV"), "RGB"
)
_TRANSPARENT = _OPAQUE | {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}
_DTYPES = {"I": "<i4", "F": "<f4", "I;16": "<u2", "I;16B": "<u2", "I;16L": "<u2", "I;16N": "<u2"}
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
"""Tags of a TIFF (6.0, section 15)."""


def open_pillow(kind: str, data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A picture of one of the `PLUGINS`. Raises MemberError when the header is damaged or of another format, and above a limit."""
    if not data:
        raise MemberError(f"cannot be decoded as {kind}: found 0 bytes")
    with borrowed(kind, limits):
        return picture_of(plugin(kind, data), Source(kind, data, options, limits))


def plugin(kind: str, data: bytes) -> ImageFile.ImageFile:
    """The header, read by the plugin of that format. To be called within `borrowed`."""
    module, name = PLUGINS[kind]
    image: ImageFile.ImageFile = getattr(importlib.import_module(module), name)(io.BytesIO(data))
    return image


@dataclass(frozen=True, slots=True)
class Source:
    """A file that Pillow has opened, and how it is to be decoded."""

    kind: str
    data: bytes
    options: ImageOptions
    limits: Limits
    may_turn: bool = True
    """False where the metadata are known to hold no orientation."""
    frames: int = 0
    """How many there are; 0 as long as they have not been counted."""


def picture_of(image: ImageFile.ImageFile, source: Source) -> Picture:
    """The frame that Pillow is at. To be called within `borrowed`. Raises MemberError above a limit."""
    width, height = image.size
    check_pixels(width, height, source.limits)
    tags = getattr(image, "tag_v2", {})
    check_tile(tags, source.limits)
    source = counted(source, image)
    turn = orientation.of_image(image) if source.may_turn else 1
    profile = image.info.get("icc_profile") or b""
    target = (_TRANSPARENT if image.has_transparency_data else _OPAQUE).get(image.mode, image.mode)
    turned = source.kind == "TIFF"
    if turned and turn > 4 and tags.get(orientation.TAG) not in (5, 6, 7, 8):
        width, height = height, width  # Pillow turns a TIFF when it decodes it, and has swapped the size only if its tag says so
    how = _Decoding(target, source, profile if image.mode == "CMYK" and source.options.profile == "srgb" else b"")
    return Picture(
        format=source.kind,
        mode=image.mode,
        height=height,
        width=width,
        channels=CHANNELS.get(target, 1),
        dtype=_DTYPES.get(target, "|u1"),
        decode=partial(_decode, image, image.tell(), how),
        frames=source.frames,
        frame=partial(_frame, image, source),
        orientation=turn,
        turned=turned,
        profile=b"" if how.profile else profile,
    )


def counted(source: Source, image: ImageFile.ImageFile | None) -> Source:
    """The same with its frames, which are counted once, not for each of them. Raises MemberError above ``limits.frames``."""
    if source.frames:
        return source
    most = source.limits.frames
    count = getattr(image, "n_frames", 1) if source.kind in _COUNTED else frames.count(source.data, source.kind, most)
    check_frames(count, source.limits)
    return replace(source, frames=max(count, 1))


def check_tile(tags: Mapping[int, Any], limits: Limits) -> None:
    """Raises MemberError for too large tiles of a TIFF, each of which is decoded whole however small the picture."""
    if _TILE_WIDTH in tags and _TILE_HEIGHT in tags:
        check_pixels(tags[_TILE_WIDTH], tags[_TILE_HEIGHT], limits, "pixels in a tile")


def _frame(image: ImageFile.ImageFile, source: Source, number: int) -> Picture:
    with borrowed(source.kind, source.limits):
        image.seek(number)
        return picture_of(image, source)


# Pixels


@dataclass(frozen=True, slots=True)
class _Decoding:
    """``target`` is Pillow's mode of the pixels; ``profile`` one that must be applied before, as it is of inks."""

    target: str
    source: Source
    profile: bytes


def _decode(image: ImageFile.ImageFile, number: int, how: _Decoding) -> Decoded:
    with borrowed(how.source.kind, how.source.limits):
        damage = _load(image, tolerant=how.source.options.damaged == "tolerant" and number == 0)
        return Decoded(pixels_of(image, how.target, how.profile), damage, image.info.get("duration", 0) / 1000)


def _load(image: ImageFile.ImageFile, tolerant: bool) -> str:
    """Decodes the frame; in tolerant mode what is wrong with it is returned, and what had been decoded till then is kept."""
    try:
        image.load()
    except Exception as exc:
        if not tolerant or getattr(image, "_im", None) is None:
            raise
        image.tile = []  # whatever asks for the pixels would decode them once more
        return short(exc)
    return ""


def pixels_of(image: Image.Image, target: str, profile: bytes = b"") -> Pixels:
    """The pixels of a decoded image in a mode of Pillow's."""
    if profile:
        image = image_to_srgb(image, profile)
    return with_channels(np.asarray(image if image.mode == target else image.convert(target)))


# Pillow's border


def borrowed(kind: str, limits: Limits) -> _Border:
    """A context in which Pillow's failures, of any type, become MemberErrors, its warnings are not shown, and its own limit on
    pixels is ours.
    """
    return _Border(kind, limits.pixels)


@dataclass(frozen=True, slots=True)
class _Border:
    kind: str
    pixels: int

    def __enter__(self) -> None:
        _STATE.enter(self.pixels)

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        _STATE.leave()
        if isinstance(exc, Image.DecompressionBombError):
            raise MemberError(f"too large: {short(exc)} (limits.pixels)") from exc
        if isinstance(exc, Exception) and not isinstance(exc, MemberError):
            raise MemberError(f"cannot be decoded as {self.kind}: {short(exc)}") from exc


class _State:
    """Pillow's limit on pixels, of the pictures within pictures, and Python's filters of warnings, while any thread is inside.

    Both are the process's own, so the last one out restores them; of several threads the highest limit holds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._most: int | None = None
        self._filters = warnings.catch_warnings()

    def enter(self, pixels: int) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, pixels)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = self._most


_STATE = _State()
