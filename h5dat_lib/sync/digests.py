"""A file -> a digest of each of its spans, by which is known what has changed, and the CRC-32 of any run of spans.

A span is a MiB, as HDF5's pages are in the files that we write: a page that was written is one span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import cached_property

from isal import isal_zlib
from pydantic import BaseModel, ConfigDict

from h5dat_lib.storage import Source

__all__ = ["NOTHING", "SPAN", "Digests", "digests_of"]

SPAN = 1 << 20
_SHA256, _CRC32 = 32, 4
"""Bytes of a digest."""
_POLYNOMIAL = 0xEDB88320
"""Of CRC-32, bits reversed: the highest bit stands for x^0."""
_ONE = 1 << 31


class Digests(BaseModel):
    """What a file of ``size`` bytes holds: of each span the SHA-256, 32 bytes, and the CRC-32, 4 bytes, one after the other."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64", ignored_types=(cached_property,))

    size: int = 0
    sha256: bytes = b""
    crc32: bytes = b""

    @property
    def spans(self) -> int:
        return _spans(self.size)

    @cached_property
    def name(self) -> str:
        """The digest of all, in hexadecimal digits: files of one name are the same."""
        return hashlib.sha256(b"%d %d " % (SPAN, self.size) + self.sha256).hexdigest()

    def span(self, number: int) -> tuple[bytes, bytes]:
        """SHA-256 and CRC-32 of a span."""
        return _item(self.sha256, number, _SHA256), _item(self.crc32, number, _CRC32)

    def same(self, other: Digests) -> list[bool]:
        """Of each of these spans, whether the other file has the same bytes there."""
        return [_item(self.sha256, number, _SHA256) == _item(other.sha256, number, _SHA256) for number in range(self.spans)]

    def crc_of(self, start: int, size: int) -> int:
        """CRC-32 of ``size`` bytes from ``start`` on, both on the border of a span; the last span may be shorter."""
        crc = 0
        for number in range(start // SPAN, _spans(start + size)):
            length = min(SPAN, self.size - number * SPAN)
            crc = _times(_power(length), crc) ^ int.from_bytes(_item(self.crc32, number, _CRC32), "big")
        return crc


NOTHING = Digests()
"""Those of an empty file."""


def digests_of(source: Source, before: Digests = NOTHING, changed: Collection[int] | None = None) -> Digests:
    """The digests of a file. Where ``changed`` holds all spans that may differ from ``before``, only those are read, and what is new."""
    whole = min(before.size, source.size) // SPAN
    sha256, crc32 = bytearray(), bytearray()
    for number in range(_spans(source.size)):
        known = changed is not None and number not in changed and (number < whole or before.size == source.size)
        sha, crc = before.span(number) if known else _digest(source.read_at(number * SPAN, SPAN))
        sha256 += sha
        crc32 += crc
    return Digests(size=source.size, sha256=bytes(sha256), crc32=bytes(crc32))


def _digest(data: bytes) -> tuple[bytes, bytes]:
    return hashlib.sha256(data).digest(), isal_zlib.crc32(data).to_bytes(_CRC32, "big")


def _item(digests: bytes, number: int, size: int) -> bytes:
    return digests[number * size : (number + 1) * size]


def _spans(size: int) -> int:
    """Spans that so many bytes begin."""
    return -(-size // SPAN)


# The CRC-32 of two pieces is that of the first times x^(bits of the second), plus that of the second, modulo the polynomial.

_powers: dict[int, int] = {}


def _power(length: int) -> int:
    """x^(8 * length); there are two lengths in a file."""
    if length not in _powers:
        _powers[length] = _raised(_ONE >> 8, length)
    return _powers[length]


def _raised(square: int, exponent: int) -> int:
    power = _ONE
    while exponent:
        if exponent & 1:
            power = _times(power, square)
        square = _times(square, square)
        exponent >>= 1
    return power


def _times(left: int, right: int) -> int:
    product = 0
    while left:
        if left & _ONE:
            product ^= right
        left = (left << 1) & 0xFFFFFFFF
        right = (right >> 1) ^ (_POLYNOMIAL if right & 1 else 0)
    return product
