"""A JPEG 2000's bytes in, a file with boxes or a bare codestream, its pixels out, of 16 bit where it has more than 8.

Pillow reads it, but of colours of more than 8 bit it keeps the upper 8: OpenCV decodes those. Facts of the format: ITU-T T.800, annex
A.5.1 (SIZ), A.4.4 (EOC) and I.4 (boxes).
"""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import partial

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import opencv
from h5dat_lib.convert.picture import Decoded, Picture, marked
from h5dat_lib.convert.pillow import open_pillow
from h5dat_lib.errors import MemberError

_START = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"
_COLOURS = ("RGB", "RGBA")


def open_jpeg2000(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A JPEG 2000. Raises MemberError when the header is damaged or above ``limits.pixels``, and in strict mode when it is cut."""
    stream = _codestream(data)
    damage = "" if stream.endswith(_END) else "cut: found no end of the codestream"
    if damage and options.damaged == "strict":
        raise MemberError(f"cannot be decoded as JPEG2000: {damage}")
    picture = open_pillow("JPEG2000", data, options, limits)
    bits = _bits(stream)
    if bits > 8 and picture.mode in _COLOURS:
        decode = partial(_decode, data, picture.channels, 16 - bits)
        picture = replace(picture, mode=f"{picture.mode};16", dtype="<u2", decode=decode)
    return marked(picture, damage)


def _codestream(data: bytes) -> bytes:
    """The first codestream, without what fills it up to the end of a bare file."""
    if data.startswith(_START):
        return data.rstrip(b"\0")
    at = 0
    while len(head := data[at : at + 16]) >= 8:
        size, kind, large = struct.unpack(">L4sQ", head.ljust(16, b"\0"))
        end = {0: len(data), 1: at + large}.get(size, at + size)
        if kind == b"jp2c":
            return data[at + (16 if size == 1 else 8) : end] if end <= len(data) else b""
        if end <= at:
            break
        at = end
    raise MemberError("cannot be decoded as JPEG2000: found no codestream")


def _bits(stream: bytes) -> int:
    """Most bits of a component; 0 when the header is cut."""
    count = int.from_bytes(stream[40:42], "big")
    return max(((bits & 0x7F) + 1 for bits in stream[42 : 42 + 3 * count : 3]), default=0)


def _decode(data: bytes, channels: int, shift: int) -> Decoded:
    """Brought to the full range of 16 bit, as Pillow does with grey."""
    pixels = opencv.decode(data, channels, deep=True)
    if pixels is None or pixels.dtype != "<u2":
        raise MemberError("cannot be decoded as JPEG2000: damaged, or colours of other than 9 to 16 bit")
    return Decoded(pixels << shift)
