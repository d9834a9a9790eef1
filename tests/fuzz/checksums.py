"""Damaged bytes in, the same with checksums that fit out: what a stranger makes on purpose, and what checksums would else hide."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from h5dat_lib.stage.staged import _FOOTER, MAGIC
from h5dat_lib.superblock import _final, _mix
from tests.fuzz.mutations import mutated

_WORD = 0xFFFFFFFF
_BLOCK = 512


def tar(data: bytes) -> bytes:
    """Checksums of all blocks that could be headers: those that have one that looks like one."""
    found = bytearray(data)
    for at in range(0, len(found) - _BLOCK + 1, _BLOCK):
        block = found[at : at + _BLOCK]
        recorded = block[148:156].strip(b" \0")
        if recorded and not recorded.strip(b"01234567"):
            found[at + 148 : at + 156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:]))
    return bytes(found)


def png(data: bytes) -> bytes:
    """CRC-32 of each chunk (PNG third edition, 5.3)."""
    found, at = bytearray(data), 8
    while at + 12 <= len(found):
        end = at + 8 + int.from_bytes(found[at : at + 4], "big")
        if end + 4 > len(found):
            break
        found[end : end + 4] = struct.pack(">I", zlib.crc32(found[at + 4 : end]))
        at = end + 4
    return bytes(found)


def staged(data: bytes, rng: Random) -> bytes:
    """A staged file with another index: mutated as text, or one of its numbers and words replaced, under a footer that fits."""
    at, size, _, _ = _FOOTER.unpack(data[-_FOOTER.size :])
    index = data[at : at + size]
    index = mutated(index, [], rng, (b"[", b"]", b"0", b"-1", b"null", b'"|O"')) if rng.random() < 0.3 else _other_value(index, rng)
    return data[:at] + index + _FOOTER.pack(at, len(index), zlib.crc32(index), MAGIC)


_VALUES: tuple[object, ...] = (None, -1, 0, 1, 2**31, 2**63, 2**64, 1.5, "", "|O", "<f8", "|V0", "|S0", "M8[ns]", [], [0], {}, True)


def _other_value(index: bytes, rng: Random) -> bytes:
    document = json.loads(index)
    places = list(_places(document))
    for _ in range(rng.randint(1, 2)):
        container, key = rng.choice(places)
        container[key] = rng.choice(_VALUES)
    return json.dumps(document).encode()


def _places(item: Any) -> list[tuple[Any, Any]]:
    """Each container within a JSON document, with each of its keys."""
    keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else []
    return [place for key in keys for place in ((item, key), *_places(item[key]))]


# HDF5 (File Format Specification 3.0): what has a checksum, and how many bytes are before it


def _header_bytes(data: bytes, at: int) -> int:
    """IV.A.1.b: an object header, of which the flags say what stands before its messages."""
    flags = data[at + 5]
    size_at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    return size_at + width + int.from_bytes(data[at + size_at : at + size_at + width], "little")


def _continuation_bytes(data: bytes, at: int) -> int:
    """IV.A.2.q: the message that leads here says how long it is."""
    said = data.find(at.to_bytes(8, "little")) + 8
    return int.from_bytes(data[said : said + 8], "little") - 4


_STRUCTURES: dict[bytes, Callable[[bytes, int], int]] = {
    b"OHDR": _header_bytes,
    b"OCHK": _continuation_bytes,
    b"BTHD": lambda data, at: 34,  # III.A.2
    b"EAHD": lambda data, at: 68,  # VII.D
}


def structures(data: bytes) -> list[tuple[int, int]]:
    """Place and size, less its checksum, of each structure of an HDF5 file that `hdf5` can make anew."""
    found = []
    for mark, size_of in _STRUCTURES.items():
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            size = size_of(data, at)
            if lookup3(data[at : at + size]) == int.from_bytes(data[at + size : at + size + 4], "little"):
                found.append((at, size))
    return found


def lookup3(data: bytes | bytearray) -> int:
    """Bob Jenkins' hashlittle (public domain), with initial value 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    words = struct.unpack(f"<{(len(data) + 11) // 12 * 3}I", data.ljust((len(data) + 11) // 12 * 12, b"\0"))
    for at in range(0, len(words) - 3, 3):
        a, b, c = _mix((a + words[at]) & _WORD, (b + words[at + 1]) & _WORD, (c + words[at + 2]) & _WORD)
    a, b, c = (old + word & _WORD for old, word in zip((a, b, c), words[-3:], strict=True))
    return _final(a, b, c)


def hdf5(data: bytes, places: list[tuple[int, int]], rng: Random) -> bytes:
    """One or two structures, each with other bytes and a checksum that fits them."""
    found = bytearray(data)
    for at, size in rng.sample(places, rng.randint(1, 2)):
        piece = data[at + 4 : at + size]
        found[at + 4 : at + size] = (mutated(piece, [], rng) + piece)[: len(piece)]
        found[at + size : at + size + 4] = lookup3(found[at : at + size]).to_bytes(4, "little")
    return bytes(found)
