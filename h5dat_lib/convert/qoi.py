"""A QOI's bytes in, its pixels by FFmpeg out: Pillow reads it in Python, a hundred times slower.

Facts of the format: The Quite OK Image Format, specification 1.0: a header of 14 bytes, operations, an end marker of 8 bytes.
"""

from __future__ import annotations

import struct
from functools import partial

from h5dat_lib.config import ImageOptions, Limits
from h5dat_lib.convert.picture import Decoded, Picture, Pixels, check_pixels, short
from h5dat_lib.errors import MemberError

_HEADER = struct.Struct(">4sLLBB")
_END = bytes(7) + b"\1"
_MODES = {3: "RGB", 4: "RGBA"}
_WITNESS = (1, 2, 3)
_LONGEST_RUN = 62


def open_qoi(data: bytes, options: ImageOptions, limits: Limits) -> Picture:
    """A QOI. Raises MemberError when the header is damaged, above ``limits.pixels``, and in strict mode when the file is cut."""
    if len(data) < _HEADER.size:
        raise MemberError(f"cannot be decoded as QOI: found {len(data)} bytes")
    name, width, height, channels, _ = _HEADER.unpack_from(data)
    if name != b"qoif" or channels not in _MODES:
        raise MemberError(f"cannot be decoded as QOI: found {name!r} of {channels} channels, expected b'qoif' of 3 or 4")
    check_pixels(width, height, limits)
    damage = "" if data.endswith(_END) else "cut: found no end marker"
    if damage and options.damaged == "strict":
        raise MemberError(f"cannot be decoded as QOI: {damage}")
    decode = partial(_decode, data, damage, options.damaged == "tolerant")
    return Picture("QOI", _MODES[channels], height, width, channels, "|u1", decode)


def _decode(data: bytes, damage: str, tolerant: bool) -> Decoded:
    """The decoder keeps still when pixels are missing, so one row is added that must be found behind them: a witness, then black."""
    _, width, height, *_ = _HEADER.unpack_from(data)
    pixels = _pixels(_with_witness(data, width))
    witness = pixels[height, : min(width, 2), :3].tolist()
    if not damage and witness != [list(_WITNESS), [0, 0, 0]][: len(witness)]:
        damage = f"found other pixels than {width} x {height}"
    if damage and not tolerant:
        raise MemberError(f"cannot be decoded as QOI: {damage}")
    return Decoded(pixels[:height], damage)


def _with_witness(data: bytes, width: int) -> bytes:
    name, _, height, channels, space = _HEADER.unpack_from(data)
    header = _HEADER.pack(name, width, height + 1, channels, space)
    row = b"\xfe" + bytes(_WITNESS) + b"\xfe\0\0\0" + bytes((0xC0 | _LONGEST_RUN - 1,)) * (width // _LONGEST_RUN + 1)
    return header + data[_HEADER.size :].removesuffix(_END) + row + _END


def _pixels(data: bytes) -> Pixels:
    import av  # 0.1 s, and few pictures are QOI

    try:
        (frame,) = av.CodecContext.create("qoi", "r").decode(av.Packet(data))
    except (av.FFmpegError, ValueError) as exc:
        raise MemberError(f"cannot be decoded as QOI: {short(exc)}") from exc
    return frame.to_ndarray()
