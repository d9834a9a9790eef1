"""A PNG's bytes in, its pixels out: every checksum compared, 16 bit kept.

imagecodecs (libpng) decodes what Pillow decodes alike, faster; OpenCV what has 16 bit, of which Pillow keeps the upper half of colours;
Pillow does all else.
Facts of the format: Portable Network Graphics, third edition (W3C), 5.3 (chunks), 5.4 (which of them are critical), 11.2.1 (IHDR),
11.3.1.1 (tRNS).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from isal import isal_zlib

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import opencv
from h5dat_lib.convert.picture import Decoded, Picture, Pixels, check_pixels, marked
from h5dat_lib.convert.pillow import Source, borrowed, picture_of, plugin
from h5dat_lib.errors import MemberError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS, _METADATA = (b"tEXt", b"zTXt", b"iTXt"), (b"Raw profile", b"XML:com")
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4, "I;16": 1, "RGB;16": 3, "LA;16": 2, "RGBA;16": 4}
_MODES = {(8, 0): "L", (8, 2): "RGB", (8, 6): "RGBA", (16, 0): "I;16", (16, 2): "RGB;16", (16, 4): "LA;16", (16, 6): "RGBA;16"}
"""What libpng and OpenCV may decode: Pillow's mode, or what it would be called, by bits and colour type."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """``name``, where its data lie, and what is wrong with it."""

    name: bytes
    start: int
    end: int
    damage: str = ""


@dataclass(frozen=True, slots=True)
class _Contents:
    """Names of the chunks, the first damage, and whether one could hold an orientation: asking Pillow makes it decode the picture."""

    names: frozenset[bytes]
    may_turn: bool
    damage: str


def open_png(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A PNG. Raises MemberError when the header is damaged, above a limit, and in strict mode when any chunk is damaged."""
    if not data.startswith(SIGNATURE):
        raise MemberError(f"cannot be decoded as PNG: found {data[:8]!r}, expected {SIGNATURE!r}")
    contents = _contents(data)
    if not contents.damage:
        return _open(data, contents, options, limits)
    if options.damaged == "strict":
        raise MemberError(f"cannot be decoded as PNG: {contents.damage}")
    data = _mended(data)
    return marked(_open(data, _contents(data), options, limits), contents.damage)


def _open(data: bytes, contents: _Contents, options: ImageOptions, limits: Limits) -> Picture:
    width, height, depth, color = _header(data)
    check_pixels(width, height, limits)
    source = Source("PNG", data, options, limits, contents.may_turn)
    transparent, animated = b"tRNS" in contents.names, b"acTL" in contents.names
    mode = _MODES.get((depth, color), "")
    deep = mode.endswith("16") and (color != 0 or transparent) and not (animated and options.frames == "all")
    special = contents.may_turn or animated or (b"iCCP" in contents.names and options.profile == "srgb")
    if not deep and (special or not mode or depth == 16 or transparent):
        return _by_pillow(source)
    channels = _CHANNELS[mode] + (transparent and color in (0, 2))  # where there is alpha, tRNS counts for nothing
    plain = Picture("PNG", mode, height, width, channels, "<u2" if deep else "|u1", partial(_decode, source, mode, channels))
    if not special:
        return plain
    known = _by_pillow(source)
    return replace(plain, frames=known.frames, frame=known.frame, orientation=known.orientation, profile=known.profile)


def _by_pillow(source: Source) -> Picture:
    with borrowed("PNG", source.limits):
        return picture_of(plugin("PNG", source.data), source)


# Chunks


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """All chunks, with what is wrong with them. The last is IEND, or one that says that there is none."""
    at, view = len(SIGNATURE), memoryview(data)
    while len(head := data[at : at + 8]) == 8:
        size, name = struct.unpack(">L4s", head)
        start, end = at + 8, at + 8 + size
        where = f"{name.decode('ascii', 'backslashreplace')} at byte {at}"
        if end + 4 > len(data):
            yield _Chunk(name, start, min(end, len(data)), f"cut in chunk {where}")
            return
        checksum = int.from_bytes(data[end : end + 4], "big")
        yield _Chunk(name, start, end, "" if isal_zlib.crc32(view[at + 4 : end]) == checksum else f"bad checksum of chunk {where}")
        if name == b"IEND":
            return
        at = end + 4
    yield _Chunk(b"", at, at, "cut: found no IEND")


def _mended(data: bytes) -> bytes:
    """The same with correct checksums and an end, without damaged chunks that are not critical."""
    parts = [SIGNATURE]
    for chunk in _chunks(data):
        if chunk.damage and chunk.name == b"IHDR":
            raise MemberError(f"cannot be decoded as PNG: {chunk.damage}")
        if chunk.name != b"IEND" and (chunk.name[:1].isupper() or not chunk.damage):
            parts.append(_chunk(chunk.name, data[chunk.start : chunk.end]))
    return b"".join((*parts, _chunk(b"IEND", b"")))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", isal_zlib.crc32(name + body))


def _header(data: bytes) -> tuple[int, int, int, int]:
    """Width, height, bits and colour type."""
    first = next(_chunks(data))
    if first.name != b"IHDR" or first.end - first.start != 13:
        raise MemberError(f"cannot be decoded as PNG: found a first chunk {first.name!r}, expected IHDR of 13 bytes")
    width, height, depth, color = struct.unpack_from(">LLBB", data, first.start)
    return width, height, depth, color


def _contents(data: bytes) -> _Contents:
    names, may_turn, damage = set(), False, ""
    for chunk in _chunks(data):
        names.add(chunk.name)
        may_turn |= chunk.name == b"eXIf" or (chunk.name in _TEXTS and data.startswith(_METADATA, chunk.start))
        damage = damage or chunk.damage
    return _Contents(frozenset(names), may_turn, damage)


# Pixels


def _decode(source: Source, mode: str, channels: int) -> Decoded:
    if not mode.endswith("16"):
        pixels = _by_libpng(source.data, channels)
        return _by_pillow(source).decode() if pixels is None else Decoded(pixels)  # Pillow says what is wrong, or keeps what it can
    pixels = opencv.decode(source.data, 1 if mode == "I;16" else channels, deep=True)
    if pixels is None:
        raise MemberError("cannot be decoded as PNG: damaged pixels of 16 bit")
    return Decoded(_with_alpha(pixels, source.data) if mode == "I;16" else pixels)


def _by_libpng(data: bytes, channels: int) -> Pixels | None:
    """Pixels of 8 bit (height, width, channels); None when libpng cannot."""
    import imagecodecs  # 0.1 s, and only who needs it

    try:
        pixels: Pixels = np.atleast_3d(imagecodecs.png_decode(data))
    except (imagecodecs.PngError, ValueError):
        return None
    return pixels if pixels.shape[2] == channels else None


def _with_alpha(pixels: Pixels, data: bytes) -> Pixels:
    """Grey of 16 bit and, as alpha, whether it is another than the one that stands for transparent."""
    key = next(data[chunk.start : chunk.end] for chunk in _chunks(data) if chunk.name == b"tRNS")
    opaque = pixels != int.from_bytes(key[:2], "big")
    return np.concatenate((pixels, opaque * pixels.dtype.type(65535)), axis=2)
