"""An icon's or a cursor's bytes in, the largest of its pictures out.

Facts of the formats: Microsoft, "Icons" (ICONDIR, ICONDIRENTRY) and "The evolution of the ICO file format" (a size of 0 stands for
256; a cursor has its hot spot where an icon has planes and bits); a bitmap within says twice its height, colours and then mask.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import png
from h5dat_lib.convert.picture import Picture, check_pixels
from h5dat_lib.convert.pillow import Source, borrowed, open_pillow, picture_of, plugin
from h5dat_lib.errors import MemberError

_ICON, _CURSOR = 1, 2
_BITS = 14
"""Where the header of a bitmap without a file header has its bits a pixel."""


def open_icon(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """The largest picture of an ICO, of those the one with the most colours. Raises MemberError when it is damaged or too large."""
    return _open("ICO", _ICON, data, options, limits)


def open_cursor(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """The largest picture of a CUR, as `open_icon` has it."""
    return _open("CUR", _CURSOR, data, options, limits)


def open_icons(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """The picture of an ICNS with the most pixels. Raises MemberError when it is damaged or too large."""
    with borrowed("ICNS", limits):
        image = plugin("ICNS", data)
        image.best_size = max(image.info["sizes"], key=lambda size: size[0] * size[2])  # type: ignore[attr-defined]
        width, height, scale = image.best_size  # type: ignore[attr-defined]
        image.size = (width * scale, height * scale)  # type: ignore[misc]
        return picture_of(image, Source("ICNS", data, options, limits))


def _open(kind: str, number: int, data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    entry, body = _largest(kind, number, data)
    if body.startswith(png.SIGNATURE):
        return replace(png.open_png(body, options, limits), format=kind)
    if len(body) < 16:
        raise MemberError(f"cannot be decoded as {kind}: found a picture of {len(body)} bytes")
    _, width, height, _, bits = struct.unpack_from("<LllHH", body)
    check_pixels(abs(width), abs(height) // 2, limits)
    # An icon of this picture alone, with its own bits: those of the directory are often 0, and of a cursor the hot spot.
    alone = struct.pack("<HHH4BHHLL", 0, _ICON, 1, *entry[:4], 1, bits, len(body), 22) + body
    return replace(open_pillow("ICO", alone, options, limits), format=kind)


def _largest(kind: str, number: int, data: bytes) -> tuple[bytes, bytes]:
    """The directory's entry and the bytes of the picture with the most pixels, and among equals the most bits."""
    found, count = struct.unpack_from("<2xHH", data) if len(data) >= 6 else (0, 0)
    if found != number or not count or len(data) < 6 + 16 * count:
        raise MemberError(f"cannot be decoded as {kind}: found {data[:6]!r} in {len(data)} bytes, expected a directory of pictures")
    entries = [data[at : at + 16] for at in range(6, 6 + 16 * count, 16)]
    entry = max(entries, key=lambda entry: _rank(entry, data))
    size, offset = struct.unpack_from("<LL", entry, 8)
    if offset + size > len(data) and not data.startswith(png.SIGNATURE, offset):  # a PNG says itself that it is cut
        raise MemberError(f"cannot be decoded as {kind}: cut: found {len(data)} bytes, expected {offset + size}")
    return entry, data[offset : offset + size]


def _rank(entry: bytes, data: bytes) -> tuple[int, int]:
    at = int.from_bytes(entry[12:16], "little")
    bits = 32 if data.startswith(png.SIGNATURE, at) else int.from_bytes(data[at + _BITS : at + _BITS + 2], "little")
    return (entry[0] or 256) * (entry[1] or 256), bits
