"""A WebP's bytes in, its pixels out: OpenCV decodes stills without metadata, faster than Pillow, which does all else.

Facts of the format: WebP Container Specification (RFC 9649, 2.5 to 2.7), and 3.4 of its lossless bitstream.
"""

from __future__ import annotations

from functools import partial

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert import opencv
from h5dat_lib.convert.picture import Decoded, Picture, check_pixels
from h5dat_lib.convert.pillow import open_pillow


def open_webp(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A WebP. Raises MemberError when it is damaged, above a limit, or cut: its header says how long the file is."""
    found = _simple(data)
    if found is None:
        return open_pillow("WEBP", data, options, limits)
    width, height, alpha = found
    check_pixels(width, height, limits)
    channels = 4 if alpha else 3
    decode = partial(_decode, data, channels, options, limits)
    return Picture("WEBP", "RGBA" if alpha else "RGB", height, width, channels, "|u1", decode)


def _simple(data: bytes) -> tuple[int, int, bool] | None:
    """Width, height and whether there is alpha, of a file that holds nothing but one picture."""
    kind, size = data[12:16], int.from_bytes(data[4:8], "little")
    if not (data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= size + 8):
        return None
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF, False
    if kind == b"VP8L" and data[20:21] == b"\x2f":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    return None


def _decode(data: bytes, channels: int, options: ImageOptions, limits: Limits) -> Decoded:
    pixels = opencv.decode(data, channels)
    if pixels is None:
        return open_pillow("WEBP", data, options, limits).decode()  # it says what is wrong
    return Decoded(pixels)
