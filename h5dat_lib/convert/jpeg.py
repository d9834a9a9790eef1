"""A JPEG's bytes in, its pixels by libjpeg-turbo out, together with what is wrong with them.

Pixels are those of Pillow. Facts of the format: ITU-T T.81, annex B (markers); CIPA DC-007 (MPF, further pictures behind the first);
Adobe technical note 5116 (inks are stored inverted where an Adobe segment is); ICC.1, annex B.4 (profiles in pieces).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import orientation, sizes
from h5dat_lib.convert.jpeg12 import decode_12_bit
from h5dat_lib.convert.picture import Decoded, Picture, Pixels, check_pixels, marked, short
from h5dat_lib.convert.pillow import open_pillow, pixels_of
from h5dat_lib.errors import MemberError

_MODES = {"Gray": "L", "YCbCr": "RGB", "RGB": "RGB", "CMYK": "CMYK", "YCCK": "CMYK"}
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_PLAIN = {b"L": "GRAY", b"RGB": "RGB"}
_CHANNELS = {"L": 1, "RGB": 3, "CMYK": 3}
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""What is no marker: stuffed zeros, fill bytes, restarts."""
_END = b"\xff\xd9"
_NO_SEGMENT = (0x00, 0xDA, 0xD9)
_PADDING = (b"\0\0", b"\xff\xff")
"""Cameras fill up the last block of a file, and what lies behind that is whatever their buffer held."""
_FACTORS = (8, 4, 2)


@dataclass(slots=True)
class _Segments:
    """What the segments before the scan tell; ``scan`` is where it starts."""

    info: dict[str | tuple[int, int], Any] = field(default_factory=dict)
    profile: list[bytes] = field(default_factory=list)
    adobe: bool = False
    bits: int = 8
    further: bool = False
    scan: int = 2


def open_jpeg(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A JPEG of 8 or 12 bit. Raises MemberError when the header is damaged, above ``limits.pixels``, and in strict mode when the file is
    cut or goes on behind the picture with what no camera is known to write there.
    """
    header = _header(data)
    if header is None:
        tidy = _without_stray_bytes(data)
        return _by_pillow(data, options, limits) if tidy == data else open_jpeg(tidy, options, limits)
    height, width, mode = header
    check_pixels(width, height, limits)
    segments = _segments(data)
    ending = _checked_ending(data, segments, options)
    turn = orientation.of_metadata(segments.info) if segments.info else 1
    if segments.bits != 8:
        return _of_12_bit(data, header, segments.bits, turn, ending, options)
    profile = b"".join(piece[2:] for piece in sorted(segments.profile)) if options.profile == "srgb" else b""
    inks = _Inks(segments.adobe, profile) if mode == "CMYK" else None
    least = _least(height, width, turn, options)
    return Picture(
        format="JPEG",
        mode=mode,
        height=height,
        width=width,
        channels=_CHANNELS[mode],
        dtype="|u1",
        decode=partial(_decode, data, _Decoding(_SPACES[mode], least, inks, ending, options.damaged == "tolerant")),
        orientation=turn,
        profile=b"" if inks else profile,
    )


def plain_pixels(data: bytes, mode: bytes, out: Pixels | None = None) -> Pixels | None:
    """The pixels of a JPEG that was opened before, is upright, and has no profile to be applied: as the decoder gives them, by one call.

    In ``out`` where it is given and large enough. None when its ``mode`` is neither L nor RGB, or the decoder has a complaint.
    """
    space = _PLAIN.get(mode)
    if space is None:
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, space, buffer=out)
    except ValueError:
        return None
    return pixels


def small_grey(data: bytes, height: int, width: int) -> Pixels | None:
    """The grey of a JPEG, (height, width, 1), by averages of up to 8 x 8 pixels, of which there are at least so many; None when the
    decoder has a complaint, as of colours that have no grey among them."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY", min_height=height, min_width=width)
    except ValueError:
        return None
    return pixels


def _of_12_bit(data: bytes, header: tuple[int, int, str], bits: int, turn: int, ending: str, options: ImageOptions) -> Picture:
    height, width, mode = header
    if bits != 12 or mode not in ("L", "RGB"):
        raise MemberError(f"cannot be decoded as JPEG: found {mode} of {bits} bit, expected 8 bit, or 12 of L or RGB")
    decode = partial(decode_12_bit, data, mode == "L", ending, options.damaged == "tolerant")
    return Picture("JPEG", mode, height, width, _CHANNELS[mode], "<u2", decode, orientation=turn)


def _header(data: bytes) -> tuple[int, int, str] | None:
    """Height, width and mode; None when libjpeg complains, be it of stray bytes between segments."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width, _MODES[space]) if space in _MODES else None


def _by_pillow(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """What simplejpeg does not read: rare subsampling, or what is no JPEG."""
    picture = open_pillow("JPEG", data, options, limits)
    return marked(picture, _checked_ending(data, _segments(data), options))


# Segments


def _without_stray_bytes(data: bytes) -> bytes:
    """The same without what lies between the segments before the scan: it does no harm, but a complaint of it would hide all others."""
    parts, at = [data[:2]], 2
    while found := _MARKER.search(data, at):
        if found[0][1] in _NO_SEGMENT:
            return b"".join((*parts, data[found.start() :]))
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
        parts.append(data[found.start() : at])
    return data


def _segments(data: bytes) -> _Segments:
    found, at, last = _Segments(), 2, len(data) - 4
    while at <= last and data[at] == 0xFF and (marker := data[at + 1]) not in _NO_SEGMENT:
        if marker == 0xFF:
            at += 1
            continue
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if marker in _NOTES:
            _NOTES[marker](found, data[at + 4 : end])
        at = end
    found.scan = at
    return found


def _note_metadata(found: _Segments, segment: bytes) -> None:
    """Exif and XMP under the names, and in the way, that Pillow keeps them."""
    if segment.startswith(b"Exif\0\0"):
        found.info["exif"] = found.info["exif"] + segment[6:] if "exif" in found.info else segment
    elif segment.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        found.info["xmp"] = segment.split(b"\0", 1)[1]


def _note_profile(found: _Segments, segment: bytes) -> None:
    if segment.startswith(b"ICC_PROFILE\0"):
        found.profile.append(segment[12:])  # its number and how many there are come first
    found.further |= segment.startswith(b"MPF\0")


def _note_adobe(found: _Segments, segment: bytes) -> None:
    found.adobe |= segment.startswith(b"Adobe")


def _note_bits(found: _Segments, segment: bytes) -> None:
    found.bits = segment[0] if segment else 0


_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_NOTES = {0xE1: _note_metadata, 0xE2: _note_profile, 0xEE: _note_adobe} | dict.fromkeys(_FRAMES, _note_bits)


# The end


def _checked_ending(data: bytes, segments: _Segments, options: ImageOptions) -> str:
    ending = _ending(data, segments)
    if ending and options.damaged == "strict":
        raise MemberError(f"cannot be decoded as JPEG: {ending}")
    return ending


def _ending(data: bytes, segments: _Segments) -> str:
    """What is wrong with how the file ends, or nothing. A file that ends as it should is not searched for an earlier end."""
    if data.endswith(_END) and segments.scan < len(data):
        return ""
    end = _end(data, segments.scan)
    if end < 0:
        return "cut: found no end of the picture"
    if segments.further or _is_known(data[end:]):
        return ""
    return f"{len(data) - end} bytes behind the end of the picture"


def _end(data: bytes, at: int) -> int:
    """Where the picture ends, segment by segment: tables between two scans may hold the bytes of an end marker. -1: nowhere."""
    while found := _MARKER.search(data, at):
        at = found.end()
        if found[0] == _END:
            return at
        at += int.from_bytes(data[at : at + 2], "big")
    return -1


def _is_known(tail: bytes) -> bool:
    """Whether that is what phones and cameras write behind a picture: a film (ISO 14496-12, 4.3), Samsung's directory, padding."""
    return tail[4:8] == b"ftyp" or tail.endswith(b"SEFT") or tail.startswith(_PADDING) or tail in (b"", b"\0", b"\xff")


# Pixels


@dataclass(frozen=True, slots=True)
class _Inks:
    """CMYK: whether the numbers are inverted, and the profile that they are meant in."""

    inverted: bool
    profile: bytes


@dataclass(frozen=True, slots=True)
class _Decoding:
    """``least`` are the (height, width) that suffice, 0 when all pixels are wanted. ``ending`` is what is wrong with the file's end."""

    space: str
    least: tuple[int, int]
    inks: _Inks | None
    ending: str
    tolerant: bool


def _decode(data: bytes, how: _Decoding) -> Decoded:
    """Any complaint of libjpeg's is damage; what it makes of a damaged picture all the same has grey where blocks are missing."""
    damage = how.ending
    try:
        pixels = _pixels(data, how)
    except ValueError as exc:
        damage = short(exc)
        if not how.tolerant:
            raise MemberError(f"cannot be decoded as JPEG: {damage}") from exc
        pixels = _damaged_pixels(data, how)
    return Decoded(pixels if how.inks is None else _from_inks(pixels, how.inks), damage)


def _damaged_pixels(data: bytes, how: _Decoding) -> Pixels:
    try:
        return _pixels(data, how, strict=False)
    except ValueError as exc:
        raise MemberError(f"cannot be decoded as JPEG: {short(exc)}") from exc


def _pixels(data: bytes, how: _Decoding, strict: bool = True) -> Pixels:
    height, width = how.least
    pixels: Pixels = simplejpeg.decode_jpeg(data, how.space, min_height=height, min_width=width, strict=strict)
    return pixels


def _from_inks(pixels: Pixels, inks: _Inks) -> Pixels:
    image = Image.fromarray(np.invert(pixels) if inks.inverted else pixels, "CMYK")
    return pixels_of(image, "RGB", inks.profile)


def _least(height: int, width: int, turn: int, options: ImageOptions) -> tuple[int, int]:
    """The (height, width) to decode to where averages of 2, 4 or 8 pixels, which cost less, have twice what resizing wants.

    Only for ``area``, which averages as well. Of 60 photographs brought to 64, 224 and 512 pixels the result then differs by 0.5, 0.5
    and 0.2 of 255 in the mean and by 1.7 in the worst picture; other filters leave out most pixels, and give another picture of fewer.
    """
    how = options.resize
    if how is None or how.interpolation != "area":
        return 0, 0
    size = (width, height) if turn > 4 else (height, width)
    sides = tuple(zip(size, sizes.seen(*size, how), sizes.wanted(*size, how), strict=True))
    for factor in _FACTORS:
        if all(_suffices(*side, factor) for side in sides):
            return height // factor, width // factor
    return 0, 0


def _suffices(length: int, seen: int, wanted: int, factor: int) -> bool:
    """Whether so many averages do: a picture, or a cut, that ends within one of them would be stretched or moved."""
    return 2 * factor * wanted <= seen and not (length % factor or seen % factor or (length - seen) // 2 % factor)
