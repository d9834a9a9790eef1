"""A sound or video file in, why something of it must be missing out: what its container records of its own extent.

Nothing is decoded. A container that records no extent, such as one that was written to a pipe, passes.

Facts of formats: RIFF and AIFF: chunks of a name and a size, padded to even; MP4: ISO/IEC 14496-12, 4.2; Matroska: RFC 8794, 4 and
RFC 9559, 5.1; Ogg: RFC 3533, 6; ASF: Advanced Systems Format 01.20.06, 3.2; MP3: ISO/IEC 11172-3, 2.4.2.3, and the Xing tag that
LAME writes into a first frame without sound; ADTS: ISO/IEC 14496-3, 1.A.2.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

from h5dat_lib.convert.frames import color_table_bytes

__all__ = ["missing"]

_UNKNOWN = 0x7FFFF000
"""RIFF and AIFF sizes from here on are what programs write that cannot go back and correct them: FFmpeg 0xFFFFFFFF, SoX 0x7FFFF024."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Bytes with their bits in reverse order: Ogg's checksum is zlib's polynomial taken the other way round."""
_FIRST_PAGE, _LAST_PAGE = 2, 4
_TRAILER_BYTES = 1 << 20
"""Bytes behind the last page or frame that are looked at: there must be no further page, and nothing but zeros behind a frame."""
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_FIRST_SEARCHED = 1 << 16
"""Bytes behind tags in which the first frame of an MP3 is looked for."""
_XING_BYTES = 56
"""The tag lies at most 36 bytes into the first frame, and 16 bytes of it are read."""
_LAYER_3_KBITS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)

Chunk = tuple[bytes, int, int]
"""Name, and where it starts and ends."""


def missing(demuxer: str, file: BinaryIO) -> str | None:
    """What shows that something of the file is missing, or None. ``demuxer`` is FFmpeg's name of the container.

    Of containers without a check nothing is said. Ogg, MP3 and ADTS are read through once, of others a few hundred bytes are read. The
    file is left at the position where it was.
    """
    position = file.tell()
    size = file.seek(0, io.SEEK_END)
    found = _CHECKS[demuxer](file, size) if demuxer in _CHECKS else None
    file.seek(position)
    return found


def _mp3_frame_bytes(head: bytes) -> int:
    """Bytes of the MPEG audio frame, layer III, with this header; 0 when that cannot be told (another layer, free format)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version = 1 if head[1] & 0x18 == 0x18 else 2
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    if bit_rate in (0, 15) or rate == 3:
        return 0
    hertz = _RATES[rate] >> {0x18: 0, 0x10: 1}.get(head[1] & 0x18, 2)
    return (144_000 if version == 1 else 72_000) * _LAYER_3_KBITS[version][bit_rate] // hertz + (head[2] >> 1 & 1)


def _adts_frame_bytes(head: bytes) -> int:
    """Bytes of the AAC frame with this ADTS header; 0 when it is none."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    return int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF


def _too_short(size: int, end: int) -> str | None:
    return f"found {size} bytes, expected {end}" if size < end else None


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _chunks(file: BinaryIO, size: int, order: Literal["little", "big"]) -> Iterator[Chunk]:
    end = min(size, 8 + int.from_bytes(_at(file, 4, 4), order)) or size
    at = 12
    while at + 8 <= end:
        head = _at(file, at, 8)
        length = int.from_bytes(head[4:], order)
        yield head[:4], at, at + 8 + length
        at += 8 + length + length % 2


def _sound_chunk(name: bytes, order: Literal["little", "big"]) -> Callable[[BinaryIO, int], str | None]:
    def check(file: BinaryIO, size: int) -> str | None:
        large = 0
        for found, start, end in _chunks(file, size, order):
            if found == b"ds64":  # of an RF64, where the chunk itself says 0xFFFFFFFF
                large = int.from_bytes(_at(file, start + 16, 8), order)
            if found == name:
                return _too_short(size, end if end < start + _UNKNOWN else start + 8 + large)
        return None

    return check


def _riff(file: BinaryIO, size: int) -> str | None:
    end = 8 + int.from_bytes(_at(file, 4, 4), "little")
    return _too_short(size, end) if end < _UNKNOWN else None


def _boxes(file: BinaryIO, size: int) -> str | None:
    at = 0
    while at + 8 <= size:
        head = _at(file, at, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return None
        at += length
    return _too_short(size, at if at >= size else at + 8)


def _segment(file: BinaryIO, size: int) -> str | None:
    at = 4
    header, width = _vint(_at(file, at, 8))
    at += width + header + 4
    segment, width = _vint(_at(file, at, 8))
    end = at + width + segment
    return _too_short(size, end) if segment != (1 << 7 * width) - 1 else None


def _vint(data: bytes) -> tuple[int, int]:
    """An EBML number and its width in bytes; all bits set stand for an unknown one."""
    width = 9 - data[0].bit_length() if data[:1] > b"\0" else 8
    return int.from_bytes(data[:width], "big") & (1 << 7 * width) - 1, width


def _pages(file: BinaryIO, size: int) -> str | None:
    """Pages touch, are numbered and whole, and the last one is marked. What follows the last, such as a tag, is passed over."""
    at, flags, numbers = 0, 0, dict[bytes, int]()
    while at < size:
        head = _at(file, at, 27 + 255)
        if head[:5] != b"OggS\0" or len(head) < 27:
            more = b"OggS" in _at(file, at, _TRAILER_BYTES)
            return None if flags & _LAST_PAGE and not more else f"found no page at byte {at}"
        flags, serial, number = head[5], head[14:18], int.from_bytes(head[18:22], "little")
        lacing = head[27 : 27 + head[26]]
        page = _at(file, at, 27 + head[26] + sum(lacing))
        if _checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            return f"found a page with a wrong checksum at byte {at}"
        if not flags & _FIRST_PAGE and number != (expected := numbers.get(serial, number)):
            return f"found page {number} at byte {at}, expected {expected}"
        numbers[serial] = number + 1
        at += len(page)
    return None if flags & _LAST_PAGE else f"found the end after {size} bytes, expected a last page"


def _checksum(data: bytes) -> int:
    """CRC-32 as Ogg has it: from the highest bit on, without inversion."""
    reversed_sum = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_sum:032b}"[::-1], 2)


def _asf(file: BinaryIO, size: int) -> str | None:
    head = _at(file, 0, 1 << 16)
    at = head.find(_ASF_FILE_PROPERTIES)
    recorded, flags = int.from_bytes(head[at + 40 : at + 48], "little"), int.from_bytes(head[at + 88 : at + 92], "little")
    live = flags & 1
    return _too_short(size, recorded) if at >= 0 and not live else None


def _frames(frame_bytes: Callable[[bytes], int]) -> Callable[[BinaryIO, int], str | None]:
    def check(file: BinaryIO, size: int) -> str | None:
        """Frames touch, but for tags, and are as many as a Xing tag says; zeros may follow. Bytes before the first are passed over."""
        first = _first_frame(file, size, frame_bytes)
        if first is None:  # such as of free format
            return None
        at, frames = first, 0
        while at < size:
            head = _at(file, at, 32)
            length = frame_bytes(head)
            frames += length > 0
            length = length or _tag_bytes(head)
            if not length:
                return f"found no frame at byte {at}" if _at(file, at, _TRAILER_BYTES).strip(b"\0") else None
            at += length
        expected, end = _xing(_at(file, first, _XING_BYTES))
        if frames < expected:
            return f"found {frames} frames, expected {expected}"
        return _too_short(size, max(at, first + end))

    return check


def _first_frame(file: BinaryIO, size: int, frame_bytes: Callable[[bytes], int]) -> int | None:
    """The first place behind tags where frames touch, or one has a Xing tag."""
    start = 0
    while length := _tag_bytes(_at(file, start, 32)):
        start += length
    head = _at(file, start, _FIRST_SEARCHED)
    at = head.find(b"\xff")
    while at >= 0:
        length = frame_bytes(head[at : at + 6])
        if length and (any(_xing(head[at : at + _XING_BYTES])) or _touch(file, start + at + length, size, frame_bytes)):
            return start + at
        at = head.find(b"\xff", at + 1)
    return None


def _touch(file: BinaryIO, at: int, size: int, frame_bytes: Callable[[bytes], int]) -> bool:
    """Whether two more frames lie there, or as many as the file has room for."""
    for _ in range(2):
        length = frame_bytes(_at(file, at, 6))
        if at < size and not length:
            return False
        at += length
    return True


def _tag_bytes(head: bytes) -> int:
    """Bytes of the ID3v2, ID3v1 or APEv2 tag that starts so; 0 when it is none."""
    if head[:3] == b"ID3" and len(head) >= 10:
        return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    if head[:8] == b"APETAGEX":
        return 32 + int.from_bytes(head[12:16], "little")
    return 128 if head[:3] == b"TAG" else 0


def _xing(frame: bytes) -> tuple[int, int]:
    """The number of frames and of bytes that a tag in the first frame records, or zeros."""
    mark = max(frame.find(b"Xing"), frame.find(b"Info"))
    if mark < 0:
        return 0, 0
    flags, fields = frame[mark + 7 : mark + 8] or b"\0", frame[mark + 8 : mark + 16]
    has_frames, has_bytes = flags[0] & 1, flags[0] & 2
    frames = int.from_bytes(fields[:4], "big") if has_frames else 0
    at = 4 * has_frames
    return frames, int.from_bytes(fields[at : at + 4], "big") if has_bytes else 0


def _transport(file: BinaryIO, size: int) -> str | None:
    head = _at(file, 0, 1024)
    for length, first in ((188, 0), (192, 4), (204, 0)):  # plain, with a time in front, with parity behind
        if head[first::length] == b"\x47" * len(head[first::length]):
            return _too_short(size, -(-size // length) * length)
    return None


def _gif(file: BinaryIO, size: int) -> str | None:
    """Its blocks lead to the mark of its end."""
    at = 13 + color_table_bytes(_at(file, 10, 1))
    while (block := _at(file, at, 10))[:1] in (b"\x21", b"\x2c"):
        at += 2 if block[:1] == b"\x21" else 11 + color_table_bytes(block[9:])
        while (length := _at(file, at, 1)) > b"\0":
            at += 1 + length[0]
        at += 1
    return "cut short: found no mark of its end" if at >= size else None


_CHECKS: dict[str, Callable[[BinaryIO, int], str | None]] = {
    "wav": _sound_chunk(b"data", "little"),
    "aiff": _sound_chunk(b"SSND", "big"),
    "avi": _riff,
    "mov": _boxes,
    "matroska": _segment,
    "ogg": _pages,
    "asf": _asf,
    "mpegts": _transport,
    "gif": _gif,
    "mp3": _frames(_mp3_frame_bytes),
    "aac": _frames(_adts_frame_bytes),
}
