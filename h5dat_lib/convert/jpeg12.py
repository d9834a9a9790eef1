"""The bytes of a JPEG of 12 bit in, its pixels by FFmpeg out: the libjpeg-turbo of simplejpeg and of Pillow takes 8 bit only.

The 12 bit are the upper ones of 16. Grey is within one step of 12 bit of libjpeg-turbo's, colours of full size within four; where colours
are stored at half the size they are interpolated in another way, which differs by up to 64 of 4096 at edges.
"""

from __future__ import annotations

from h5dat_lib.convert.picture import Decoded, Pixels, short, with_channels
from h5dat_lib.errors import MemberError


def decode_12_bit(data: bytes, is_grey: bool, ending: str, tolerant: bool) -> Decoded:
    """(height, width, 1 or 3) uint16. ``ending`` is what is wrong with the end of the file. Raises MemberError, also of damage in strict
    mode."""
    try:
        return Decoded(_pixels(data, is_grey, strict=True), ending)
    except MemberError as exc:
        if not tolerant:
            raise
        return Decoded(_pixels(data, is_grey, strict=False), ending or exc.reason)


def _pixels(data: bytes, is_grey: bool, strict: bool) -> Pixels:
    import av  # 0.1 s, and few pictures are of 12 bit

    codec = av.CodecContext.create("mjpeg", "r")
    codec.options = {"err_detect": "explode"} if strict else {}
    try:
        (frame,) = codec.decode(av.Packet(data))
        return with_channels(frame.to_ndarray(format="gray16le" if is_grey else "rgb48le"))
    except (av.FFmpegError, ValueError) as exc:
        raise MemberError(f"cannot be decoded as JPEG of 12 bit: {short(exc)}") from exc
